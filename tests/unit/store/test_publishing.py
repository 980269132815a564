"""What a node on PostgreSQL remembers of transactions, its own and others', so as to tell of each change once."""

from __future__ import annotations

from keyserver.changes import Changes
from keyserver.store.postgres import outbox
from keyserver.store.postgres.publishing import MOST, News
from keyserver.store.postgres.writing import Written

POSITION = outbox.Position("1:1:", 1, 1, "life")


def polled(*xids: int) -> outbox.News:
    return outbox.News(POSITION, tuple((str(xid), False, frozenset({f"n{xid}"})) for xid in xids))


def test_what_others_do_while_we_write_without_a_pause_is_not_remembered_for_ever() -> None:
    changes = Changes()
    news = News(changes, lambda: True)
    news.begin(POSITION)
    for start in range(0, 5 * MOST, 100):
        news.polled(polled(*range(start, start + 100)))
        assert news.remembered <= MOST + 100
    assert changes.published == 5 * MOST, "each was told"
    last = 5 * MOST - 1
    news.written(Written(str(last), frozenset({f"n{last}"})))
    assert changes.published == 5 * MOST, "one of ours that a poll saw before us is told once"


def test_own_changes_that_no_poll_brings_are_not_remembered_for_ever() -> None:
    changes = Changes()
    news = News(changes, lambda: False)
    news.begin(POSITION)
    for xid in range(3 * MOST):
        news.written(Written(str(xid), frozenset({f"n{xid}"})))
        if xid % 100 == 0:
            news.polled(polled())
            assert news.remembered <= MOST + 100
    assert changes.published == 3 * MOST
