"""What `History` promises, line by line; `test_history_model` asks for every instant again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time

import asyncpg

from keyserver.model import Kind, Selection, Source, Voucher
from keyserver.store.base import Store, Undo
from keyserver.store.history import WHO, Bounds, Event, What, Word
from keyserver.store.postgres import recording
from keyserver.store.recipients import Encryptable, Looked
from tests.conformance.conftest import Backend, Heard, Made, addr, said
from tests.conformance.test_migration import an_old_one

NOW = 1_800_000_000
HOUR, DAY = 3600, 86_400
K, M = Source.KEYSERVER, Source.MAILFLOW
ANN = Made(1, ("Ann <ann@a.example>",))
ANN_TOO = Made(1, ("Ann <ann@a.example>", "Ann <too@a.example>"))
BOB = Made(2, ("Bob <bob@b.example>",))
NAME = addr("ann@a.example")
EVER = Bounds(1 << 40, 1 << 40)


async def put(store: Store, made: Made, at: int, source: Source = K, origin: str = "one", **more: object) -> None:
    await store.put([made.find(source, origin, **more)], [], await store.begin(), at)


def whats(events: object) -> list[What]:
    return [event.what for event in events]  # type: ignore[attr-defined]


async def settled(store: Store, number: int = 0) -> list[Event]:
    """Everything behind a number, once other transactions of this server are over."""
    return list(await store.history.since(number, 100))


async def tidied(store: Store, now: int, limit: int = 1000) -> int:
    gone = 0
    while some := await store.history.tidy(now, limit):
        gone += some
    return gone


async def test_each_change_is_an_event_in_order(store: Store) -> None:
    held = Voucher("ann@a.example", held=True, seen_at=NOW)
    await put(store, ANN, NOW)
    await put(store, ANN, NOW + HOUR)  # the same event
    await put(store, ANN, NOW + 2 * HOUR + 1)
    await put(store, ANN_TOO, NOW + 3 * HOUR)
    await put(store, ANN, NOW + 3 * HOUR, M, "a.example", vouchers=(held,))
    await store.approve(ANN.fingerprint, M, "a.example", "ann@a.example", NOW + 3 * HOUR + 1)
    await put(store, Made(1, ANN_TOO.texts, ("r",)), NOW + 3 * HOUR + 2)
    await store.delete(ANN.fingerprint, NOW + 3 * HOUR + 3, K, "one", Undo("u", NOW + DAY))
    await store.undo("u", NOW + 3 * HOUR + 4, {})
    await store.purge_expired({(M, None): NOW + DAY}, 0, 10, NOW + 3 * HOUR + 5)
    await store.block(ANN.fingerprint, NOW + 3 * HOUR + 6, "why")
    await store.unblock(ANN.fingerprint, NOW + 3 * HOUR + 7)
    await store.upstreams.pause("one", NOW + 3 * HOUR + 8)
    await store.upstreams.resume("one", NOW + 3 * HOUR + 9)
    events = list(reversed(await store.history.events(100)))
    assert whats(events) == [
        *(What.FIRST_SEEN, What.RENEWED, What.MERGED, What.CACHED, What.HELD, What.APPROVED, What.REVOKED),
        *(What.MERGED, What.DELETED, What.UNDONE, What.EXPIRED, What.BLOCKED, What.UNBLOCKED),
        *(What.PAUSED, What.RESUMED),
    ]
    first = events[0]
    assert (first.at, first.last) == (NOW, NOW + HOUR)
    assert (first.fingerprint, first.kind, first.source, first.origin) == (ANN.fingerprint, Kind.OPENPGP, K, "one")
    assert (events[4].address, events[5].address) == ("ann@a.example", "ann@a.example")
    assert events[11].facts == {"reason": "why"}
    assert events[13].origin == events[14].origin == "one"
    assert [event.at for event in events[5:]] == [NOW + 3 * HOUR + n for n in (1, 2, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert [event.number for event in events] == sorted({event.number for event in events})
    await put(store, ANN, NOW + DAY, M, "a.example")
    assert (await store.history.events(1))[0].what is What.CACHED, "it is in the history"


async def test_events_are_of_all_of_a_certificate_or_of_a_name(store: Store) -> None:
    await put(store, ANN, NOW)
    await put(store, BOB, NOW)
    await store.delete(ANN.fingerprint, NOW + 1)
    await store.history.answers("default", NAME, ANN.fingerprint, NOW)
    await store.history.answers("default", NAME, BOB.fingerprint, NOW)
    of_name = await store.history.events(10, names=[NAME])
    assert whats(of_name) == [What.REPLACED, What.DELETED, What.FIRST_SEEN]
    assert whats(await store.history.events(10, names=[addr("ann@a.example", Kind.X509)])) == []
    assert whats(await store.history.events(10, fingerprint=BOB.fingerprint)) == [What.REPLACED, What.FIRST_SEEN]
    everything = await store.history.events(10)
    assert [*await store.history.events(2), *await store.history.events(9, everything[1].number)] == list(everything)
    assert await store.history.events(10, names=["\0"]) == []


async def test_an_administrator_is_named_and_nobody_else(store: Store) -> None:
    token = WHO.set("alice")
    try:
        one = asyncio.create_task(put(store, ANN, NOW, Source.LOCAL, "administrator"))
        await asyncio.sleep(0)
    finally:
        WHO.reset(token)
    await asyncio.gather(one, *(put(store, Made(n, ("x@b.example",)), NOW) for n in range(2, 6)))
    who = {event.fingerprint: event.who for event in await store.history.events(10)}
    assert who.pop(ANN.fingerprint) == "alice"
    assert set(who.values()) == {""}
    WHO.set("bob")
    await store.block(BOB.fingerprint, NOW)
    assert (await store.history.events(1))[0].who == "bob"


async def test_news_come_once_in_order_without_renewals(store: Store, other: tuple[Store, Heard]) -> None:
    assert (await store.history.newest(), await settled(store)) == (0, [])
    stores = (store, other[0])
    await asyncio.gather(*(put(stores[n % 2], Made(n + 1), NOW) for n in range(20)))
    await put(store, Made(1), NOW + DAY)
    seen: list[Event] = []
    deadline = time.monotonic() + 30
    while len(seen) < 20 and time.monotonic() < deadline:  # other tests' transactions may be under way on the server
        seen += await store.history.since(seen[-1].number if seen else 0, 3)
    assert whats(seen) == [What.FIRST_SEEN] * 20
    assert [event.number for event in seen] == sorted(event.number for event in seen)
    assert await store.history.newest() == seen[-1].number
    assert await settled(store, seen[-1].number) == []


async def test_words_go_on_for_a_day_and_failures_are_handed_in(store: Store) -> None:
    async def say(found: bool, at: int) -> None:
        await store.put([], [said(NAME, found, at)], await store.begin(), at)

    await say(False, NOW)
    await say(False, NOW + DAY)
    await say(False, NOW + 2 * DAY + 1)
    await store.history.failed({(NAME, "one"): NOW + 3 * DAY, ("\0", "one"): NOW})
    await store.history.failed({(NAME, "one"): NOW + 3 * DAY + 9})
    await say(True, NOW + 4 * DAY)
    words = [(one.word, one.since, one.last) for one in await store.history.words(NAME, 10)]
    assert words == [
        (Word.FOUND, NOW + 4 * DAY, NOW + 4 * DAY),
        (Word.FAILED, NOW + 3 * DAY, NOW + 3 * DAY + 9),
        (Word.ABSENT, NOW + 2 * DAY + 1, NOW + 2 * DAY + 1),
        (Word.ABSENT, NOW, NOW + DAY),
    ]
    assert len(await store.history.words(NAME, 2)) == 2
    past = await store.history.past(NAME, NOW + 3 * DAY)
    assert [one.word for one in past.said] == [Word.FAILED]
    assert [one.word for one in past.later] == [Word.FOUND]
    assert [(r.found, r.at) for r in past.snapshot.records] == [(False, NOW + 2 * DAY + 1)]


async def test_what_answers_is_one_event_whoever_says_it(store: Store, other: tuple[Store, Heard]) -> None:
    far, heard = other
    assert await store.history.answers("default", NAME, "A" * 40, NOW) == ""
    assert await far.history.answers("default", NAME, "A" * 40, NOW) == "A" * 40
    assert await far.history.answers("gateway", NAME, "B" * 40, NOW) == ""
    heard.clear()
    said_ = await asyncio.gather(*(s.history.answers("default", NAME, "B" * 40, NOW + 1) for s in (store, far) * 4))
    assert sorted(said_) == ["A" * 40, *["B" * 40] * 7]
    (event,) = await store.history.events(10)
    assert (event.what, event.fingerprint, event.address) == (What.REPLACED, "B" * 40, "ann@a.example")
    assert event.facts == {"view": "default", "old": "A" * 40, "since": NOW}
    assert (await store.look(NAME)).answering == {"default": "B" * 40, "gateway": "B" * 40}
    await far.poll()
    assert NAME in heard.names
    assert (await store.history.past(NAME, NOW)).answering == {"default": "A" * 40, "gateway": "B" * 40}
    assert (await store.history.past(NAME, NOW - 1)).answering == {}


async def test_settings_are_written_when_they_differ(store: Store, other: tuple[Store, Heard]) -> None:
    assert await store.history.settings({"ttl": 1, "x": [2]}, NOW)
    assert not await other[0].history.settings({"x": [2], "ttl": 1}, NOW + 1)
    assert await other[0].history.settings({"x": [3], "ttl": 1}, NOW + 2)
    assert (await store.history.past(NAME, NOW - 1)).settings is None
    assert (await store.history.past(NAME, NOW + 1)).settings == {"ttl": 1, "x": [2]}
    assert [event.facts for event in await store.history.events(9)] == [{"changed": ["x"]}], "the first are no change"
    assert [event.at for event in await settled(store)] == [NOW + 2]
    assert await store.history.count(0, await store.history.newest()) == 1
    assert (await store.history.size())[0] == 2


async def test_the_history_begins_with_the_first_settings(store: Store) -> None:
    assert (await store.history.past(NAME, NOW)).whole_since == 0
    await store.history.settings({"a": 1}, NOW)
    assert (await store.history.past(NAME, NOW)).whole_since == NOW
    assert (await store.history.events(9), await settled(store), await store.history.newest()) == ([], [], 0)
    await store.purge_all(NOW + 1)
    assert await store.history.settings({"a": 1}, NOW + 2)
    await put(store, ANN, NOW + 3)
    assert whats(await store.history.events(9)) == whats(await settled(store)) == [What.FIRST_SEEN]


async def test_what_was_paused_at_an_instant_is_known(store: Store) -> None:
    async def paused(at: int) -> frozenset[str]:
        return (await store.history.past(NAME, at)).paused

    upstreams = store.upstreams
    await upstreams.pause("one", NOW)
    await upstreams.pause("two", NOW + 1)
    await upstreams.resume("one", NOW + 2)
    await upstreams.pause("one", NOW + 4)
    assert [sorted(await paused(NOW + n)) for n in range(-1, 5)] == [
        [],
        ["one"],
        ["one", "two"],
        ["two"],
        ["two"],
        ["one", "two"],
    ]
    await upstreams.resume("two", NOW + 5)
    store.history.limit(Bounds(2, 1 << 30))
    assert await tidied(store, NOW + 6) >= 3, "when it was paused is on record no more"
    assert [sorted(await paused(NOW + n)) for n in (4, 5)] == [["one", "two"], ["one"]]


async def test_the_last_copy_outlives_its_entry(store: Store) -> None:
    assert await store.history.copy(ANN.fingerprint, K, "one") is None
    await put(store, ANN, NOW)
    await put(store, ANN_TOO, NOW + 1)
    assert await store.history.copy(ANN.fingerprint, K, "one") == ANN_TOO.octets
    await store.delete(ANN.fingerprint, NOW + 2)
    assert await store.history.copy(ANN.fingerprint, K, "one") == ANN_TOO.octets
    assert await store.history.copy(ANN.fingerprint, K, "two") is None


async def test_a_cursor_only_goes_forward(store: Store) -> None:
    assert await store.history.cursor("soc") is None
    await store.history.move("soc", 7)
    await store.history.move("soc", 5)
    assert await store.history.cursor("soc") == 7


async def test_the_oldest_goes_by_age_and_what_stands_stays(store: Store) -> None:
    await store.history.settings({"a": 1}, NOW)
    await put(store, ANN, NOW)
    await put(store, ANN_TOO, NOW + DAY)
    await put(store, BOB, NOW)
    await store.delete(BOB.fingerprint, NOW + DAY)
    await store.put([], [said(NAME, False, NOW)], await store.begin(), NOW)
    await store.history.failed({(NAME, "two"): NOW})
    assert await store.history.tidy(NOW + 99 * DAY, 10) == 0, "no bounds yet"
    store.history.limit(Bounds(10 * DAY, 1 << 30))
    assert await store.history.tidy(NOW + 5 * DAY, 10) == 0
    assert await store.history.tidy(NOW + 20 * DAY, 1) == 1, "no more than asked for"
    assert await tidied(store, NOW + 20 * DAY, 1) == 3
    assert whats(await store.history.events(10)) == [What.MERGED]
    past = await store.history.past(NAME, NOW + 15 * DAY)
    assert past.whole_since == NOW + 10 * DAY
    assert [entry.octets for entry in past.snapshot.entries] == [ANN_TOO.octets]
    assert past.settings == {"a": 1}
    assert [record.found for record in past.snapshot.records] == [False]
    assert await store.history.copy(BOB.fingerprint, K, "one") is None
    assert await store.history.events(10, names=[addr("bob@b.example")]) == []


async def test_the_size_is_kept(store: Store) -> None:
    for n in range(40):
        await put(store, Made(1, (f"{n} <ann@a.example>",), ballast=5000), NOW + n * DAY)
    rows, before = await store.history.size()
    assert rows == 40
    assert before > 200_000
    store.history.limit(Bounds(1000 * DAY, 100_000))
    assert await tidied(store, NOW + 40 * DAY) > 15
    rows, after = await store.history.size()
    assert 0 < rows < 25
    assert 50_000 < after < 100_000
    newest = await store.history.events(1)
    assert newest[0].at == NOW + 39 * DAY


async def test_without_history_nothing_is_written_and_what_there_is_goes(store: Store) -> None:
    await put(store, ANN, NOW)
    await store.history.answers("default", NAME, ANN.fingerprint, NOW)
    store.history.limit(Bounds(0, 0))
    assert await tidied(store, NOW + 1, 1) >= 2
    await put(store, ANN_TOO, NOW + 2)
    await put(store, BOB, NOW + 2)
    await store.delete(BOB.fingerprint, NOW + 2)
    await store.put([], [said(NAME, True, NOW + 2)], await store.begin(), NOW + 2)
    await store.history.failed({(NAME, "two"): NOW + 2})
    assert await store.history.answers("default", NAME, ANN.fingerprint, NOW + 2) == ""
    assert not await store.history.settings({"a": 1}, NOW + 2)
    assert (await store.history.size(), await store.history.events(10)) == ((0, 0), [])
    assert (await store.look(NAME)).answering == {}
    assert (await store.history.past(NAME, NOW + 3)).whole_since == 0
    store.history.limit(EVER)
    await store.history.tidy(NOW + 5, 10)
    past = await store.history.past(NAME, NOW + 5)
    assert past.whole_since == NOW + 5
    assert [entry.cached_at for entry in past.snapshot.entries] == [NOW + 2]
    assert [record.found for record in past.snapshot.records] == [True]
    assert whats(await store.history.events(10)) == [What.CACHED]
    assert await settled(store) == [], "nothing is new of it"


async def without_history(backend: Backend) -> None:
    """Let the database be as a release before has left it: the steps since undone."""
    if not backend.database:
        new = backend.path.with_name("new.db")
        backend.path.rename(new)
        await an_old_one(new, backend.path)
        new.unlink()
        return
    db = await asyncpg.connect(backend.url)
    theirs = (
        "SELECT oid::regprocedure::text FROM pg_proc WHERE proname ~ '^(history_|put_2|new_key|event_number|say_1)'"
    )
    for (function,) in await db.fetch(theirs):
        await db.execute(f"DROP FUNCTION {function} CASCADE")
    for function in ("recording_1", "set_aside_1"):
        await db.execute(f"DROP FUNCTION {function} CASCADE")
    await db.execute(f"DROP TABLE {', '.join(recording.ERASED)}, history, delivery, pace CASCADE")
    await db.execute("UPDATE keyserver_schema SET version = 2")
    await db.close()


async def test_what_an_older_release_left_is_taken_down(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await put(store, Made(1, ANN.texts, ("r",)), NOW)
        await store.put([], [said(NAME, True, NOW)], await store.begin(), NOW)
        await store.block(BOB.fingerprint, NOW)
    await without_history(backend)
    async with backend.opened() as (store, _):
        before = await store.look(NAME)
        assert before.entries
        assert before.records
        assert await store.history.events(10) == []
        await put(store, Made(1, ANN.texts, ("r",)), NOW + 1)  # before anything is taken down
        before = await store.look(NAME)
        store.history.limit(EVER)
        assert (await store.history.past(NAME, NOW + 1)).whole_since == 0
        await store.history.tidy(NOW + 9, 10)
        past = await store.history.past(NAME, NOW + 9)
        assert past.whole_since == NOW + 9
        assert (past.snapshot.entries, past.snapshot.revocations) == (before.entries, before.revocations)
        assert past.snapshot.records == before.records
        assert sorted(whats(await store.history.events(10))) == [What.BLOCKED, What.RENEWED, What.REVOKED]
        assert {event.number < 0 for event in await store.history.events(10) if event.what is not What.RENEWED} == {
            True
        }
        await put(store, BOB, NOW + 10)
        await put(store, ANN_TOO, NOW + 11)
        assert (await store.history.past(NAME, NOW + 10)).snapshot.entries == before.entries


async def test_purging_everything_erases_the_history_but_blocks(store: Store) -> None:
    await put(store, ANN, NOW)
    await store.block(BOB.fingerprint, NOW)
    await store.history.answers("default", NAME, ANN.fingerprint, NOW)
    last = (await store.history.events(1))[0].number
    await store.purge_all(NOW + 1)
    assert whats(await store.history.events(10)) == [What.BLOCKED]
    past = await store.history.past(NAME, NOW + 2)
    assert (past.snapshot.entries, past.answering, past.whole_since) == ((), {}, NOW + 1)
    await put(store, ANN, NOW + 2)
    (event, _) = await store.history.events(10)
    assert event.what is What.FIRST_SEEN
    assert event.number > last


async def everything_in(backend: Backend) -> bytes:
    """All that the database holds."""
    if not backend.database:
        with contextlib.closing(sqlite3.connect(backend.path)) as db:
            db.execute("VACUUM")
        return b"".join(path.read_bytes() for path in backend.path.parent.iterdir() if os.path.isfile(path))
    db = await asyncpg.connect(backend.url)
    tables = await db.fetch("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    found = []
    for (table,) in tables:
        for row in await db.fetch(f'SELECT * FROM "{table}"'):
            found += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    await db.close()
    return b"\n".join(found)


ASKED = Looked(Encryptable.NO, NOW, reason="it is revoked")


async def test_what_is_forgotten_leaves_no_octet(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        held = Voucher("ann@a.example", held=True, seen_at=NOW)
        for source in (K, M):
            await put(store, ANN, NOW, source, "one", vouchers=(held,) if source is M else ())
        await put(store, Made(3, ("Ann <ann@a.example>", "Cid <cid@c.example>")), NOW)
        await put(store, Made(3, ("Cid <cid@c.example>",)), NOW + DAY)  # names her no more
        await put(store, BOB, NOW)
        await store.put([], [said(NAME, True, NOW), said(addr("bob@b.example"), True, NOW)], await store.begin(), NOW)
        for fingerprint in (ANN.fingerprint, BOB.fingerprint):
            await store.history.answers("default", NAME, fingerprint, NOW)
        await store.recipients.note({"ann@a.example": ASKED, "bob@b.example": ASKED})
        await store.delete(ANN.fingerprint, NOW + DAY)
        await store.purge(Selection(source=M), NOW + 2 * DAY)
    assert b"ann@a.example" in await everything_in(backend)
    async with backend.opened() as (store, _):
        assert await store.history.forget("ann@a.example") > 5
        assert await store.history.forget("ann@a.example") == 0
        assert await store.history.events(10, names=[NAME]) == []
        assert await store.history.words(NAME, 10) == []
        assert (await store.history.words(addr("bob@b.example"), 10))[0].word is Word.FOUND
        assert await store.recipients.asked_today(["ann@a.example", "bob@b.example"], 0) == {"bob@b.example"}
        assert len((await store.history.past(addr("cid@c.example"), NOW + 3 * DAY)).snapshot.entries) == 1
        await store.delete(BOB.fingerprint, NOW + 2 * HOUR + 2 * DAY)  # what was deleted is noted for an hour
    left = await everything_in(backend)
    assert b"bob@b.example" in left
    assert b"ann@a.example" not in left


async def test_queries_are_in_the_database_by_their_hash_only(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await store.history.failed({(addr("nobody@n.example"), "one"): NOW})
        assert len(await store.history.words(addr("nobody@n.example"), 10)) == 1
    assert b"nobody@n.example" not in await everything_in(backend)
