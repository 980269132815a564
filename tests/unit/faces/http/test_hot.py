"""Hot answers: true to the second, forgotten by name, by time and for memory; nobody fills them with aliases."""

from __future__ import annotations

import gc
import time
import tracemalloc
from email.utils import formatdate

import pytest

from keyserver.changes import Changes
from keyserver.faces.cache import MOST_KEYS, MemoryLimit
from keyserver.faces.http.facts import Facts
from keyserver.faces.http.hot import HotAnswers
from keyserver.model import NO_NAMES, Change
from keyserver.wire.http_hot import classify, read_response_head

START = 1_800_000_000
PLAIN = classify(b"Host: x\r\n\r\n")
LINE = b"GET /pks/lookup?op=get&search=alice HTTP/1.1\r\n"


class Clock:
    now = START

    def __call__(self) -> int:
        return self.now


class Keeper:
    """A store with a clock of its own and short ways to fill it."""

    def __init__(self, capacity: int = 1 << 20) -> None:
        self.clock = Clock()
        self.changes = Changes()
        self.budget = MemoryLimit(capacity, self.changes, self.clock)
        self.hot = HotAnswers(self.budget)

    def fill(self, line: bytes = LINE, body: bytes = b"body", *names: str, status: bytes = b"200 OK", head: bytes = b"",
             since: int = START, until: int = START + 1000, number: int | None = None, control: bytes = b"max-age=300",
             version: bytes = b"1.1") -> bool:  # fmt: skip
        reply = read_response_head(
            b"HTTP/%b %b\r\nContent-Type: application/pgp-keys\r\nContent-Length: %d\r\n%b"
            b"Age: 0\r\nCache-Control: %b\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nConnection: keep-alive\r\n\r\n"
            % (version, status, len(body), head, control),
            False,
        )
        assert reply is not None
        names = names or ("alice",)
        number = self.changes.published if number is None else number
        positive = status.startswith(b"2")
        return self.hot.fill(line, reply, body, Facts(frozenset(names), until, number, since, positive, names[0]))

    def get(self, line: bytes = LINE, block: bytes = b"Host: x\r\n\r\n") -> bytes | None:
        answer = self.hot.find(line)
        if answer is None:
            return None
        self.hot.hit(answer)
        return answer.rendered(line, classify(block))

    def change(self, *names: str, everything: bool = False) -> None:
        self.changes.publish(Change(self.changes.published + 1, frozenset(names), everything))


@pytest.fixture
def upkeep() -> Keeper:
    return Keeper()


def test_a_reply_is_repeated_word_for_word_but_for_the_time(upkeep) -> None:
    assert upkeep.get() is None
    assert upkeep.fill(head=b'ETag: "e"\r\nX-Key-Source: local\r\n')
    upkeep.clock.now += 7
    date = formatdate(START + 7, usegmt=True).encode()
    assert upkeep.get() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/pgp-keys\r\nContent-Length: 4\r\n"
        b'ETag: "e"\r\nX-Key-Source: local\r\n'
        b"Date: " + date + b"\r\nAge: 7\r\nCache-Control: max-age=300\r\n\r\nbody"
    )


def test_age_and_max_age_follow_the_clock(upkeep) -> None:
    upkeep.fill(until=START + 400)
    upkeep.clock.now = START - 5  # the clock was set back
    assert b"\r\nAge: 0\r\n" in upkeep.get()
    for second in (0, 1, 99, 100, 101, 399):
        upkeep.clock.now = START + second
        said = upkeep.get()
        assert b"\r\nAge: %d\r\n" % second in said
        assert b"\r\nCache-Control: max-age=%d\r\n" % min(300, 400 - second) in said


def test_it_says_within_a_second_that_changes_are_not_heard(upkeep) -> None:
    upkeep.fill(head=b"X-Cache: HIT\r\n")
    upkeep.fill(LINE.replace(b"alice", b"bob"), b"body", "bob")
    for detached, how in ((0, b"HIT"), (1, b"DETACHED"), (0, b"HIT")):
        upkeep.changes.detached[0] = detached
        upkeep.clock.now += 1
        assert upkeep.get().count(b"\r\nX-Cache: %b\r\n" % how) == 1
        assert b"X-Cache" not in upkeep.get(LINE.replace(b"alice", b"bob")), "where nothing is explained"


def test_what_was_learnt_by_a_clock_that_was_ahead_is_forgotten_when_it_is_right_again(upkeep) -> None:
    """Rule 5: until then, a false "absent" would be given for as long as the clock had been ahead."""
    upkeep.clock.now = START + 30 * 86400
    upkeep.fill(until=upkeep.clock.now + 900)
    assert upkeep.get()
    upkeep.clock.now = START
    assert upkeep.get() is None
    assert not upkeep.hot.table
    upkeep.fill(until=START + 900)
    upkeep.clock.now = START - 60
    assert upkeep.get(), "clocks may differ by a minute"


def test_the_first_instant_at_which_anything_turns_takes_it_away(upkeep) -> None:
    upkeep.fill(until=START + 2)
    upkeep.clock.now = START + 1
    assert upkeep.get()
    upkeep.clock.now = START + 2
    assert upkeep.get() is None
    assert upkeep.budget.expired == 1
    assert upkeep.budget.octets == 0
    assert not upkeep.fill(until=START + 2)


def test_other_directives_stay(upkeep) -> None:
    upkeep.fill(control=b"public, max-age=12, s-maxage=100%")
    assert b"Cache-Control: public, max-age=300, s-maxage=100%\r\n" in upkeep.get()


@pytest.mark.parametrize(
    "head", [b"Vary: Accept\r\n", b"Set-Cookie: a=b\r\n", b"Expires: 0\r\n", b"Content-Range: bytes 0-1/2\r\n"]
)
def test_replies_for_one_client_are_not_kept(upkeep, head) -> None:
    assert not upkeep.fill(head=head)
    assert upkeep.get() is None


@pytest.mark.parametrize("control", [b"no-store", b"private, max-age=3", b"No-Cache"])
def test_replies_that_forbid_it_are_not_kept(upkeep, control) -> None:
    assert not upkeep.fill(control=control)


@pytest.mark.parametrize(
    "status", [b"500 Internal Server Error", b"304 Not Modified", b"206 Partial Content", b"400 x"]
)
def test_only_certificates_and_absences_are_kept(upkeep, status) -> None:
    assert not upkeep.fill(status=status)


@pytest.mark.parametrize("line", [LINE.replace(b"GET", b"HEAD"), b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n"])
def test_only_ordinary_lines_are_kept(upkeep, line) -> None:
    assert not upkeep.fill(line)


def test_a_change_of_any_name_takes_it_away(upkeep) -> None:
    for name in ("alice", "fpr", "kid"):
        upkeep.fill(LINE, b"body", "alice", "fpr", "kid")
        upkeep.change("somebody else")
        assert upkeep.get()
        upkeep.change(name)
        assert upkeep.get() is None
    assert upkeep.budget.forgotten == 3
    upkeep.fill()
    upkeep.change(everything=True)
    assert upkeep.get() is None
    assert upkeep.budget.octets == 0


def test_a_fill_that_raced_with_a_change_is_refused(upkeep) -> None:
    number = upkeep.changes.published
    upkeep.change("bob")
    assert upkeep.fill(number=number)
    upkeep.change("alice")
    assert not upkeep.fill(number=number)
    assert upkeep.get() is None
    upkeep.change("bob")
    assert upkeep.fill(number=upkeep.changes.published - 1)


def test_many_spellings_lead_to_one_body_and_are_capped(upkeep) -> None:
    body = b"b" * 5000
    lines = [b"GET /pks/lookup?op=get&search=alice&x=%d HTTP/1.1\r\n" % n for n in range(50)]
    for line in lines:
        assert upkeep.fill(line, bytes(bytearray(body)))
    assert len(upkeep.budget.found) == 1
    assert upkeep.budget.octets < 5000 + 4000
    assert [bool(upkeep.get(line)) for line in lines] == [False] * (50 - MOST_KEYS) + [True] * MOST_KEYS


def test_two_questions_with_the_same_answer_share_its_body(upkeep) -> None:
    upkeep.fill(LINE, b"b" * 5000, "alice", "fpr")
    upkeep.fill(LINE.replace(b"alice", b"0xAB"), b"b" * 2500 + b"b" * 2500, "fpr", until=START + 50)
    assert len(upkeep.budget.found) == 2
    assert upkeep.budget.octets < 7500
    upkeep.change("alice")
    assert upkeep.get() is None
    assert upkeep.get(LINE.replace(b"alice", b"0xAB")).endswith(b"b" * 5000)
    upkeep.change("fpr")
    assert upkeep.budget.octets == 0


def test_a_line_that_is_filled_again_says_the_new(upkeep) -> None:
    upkeep.fill(body=b"old")
    upkeep.fill(body=b"new")
    assert upkeep.get().endswith(b"new")
    assert len(upkeep.budget.found) == 1


def test_the_least_recently_used_leaves() -> None:
    upkeep = Keeper(100_000)
    lines = [b"GET /%d HTTP/1.1\r\n" % n for n in range(40)]
    for n, line in enumerate(lines):
        upkeep.fill(line, b"%d" % n * 5000, f"n{n}")
        upkeep.clock.now += 1
        assert upkeep.get(lines[0])  # always in use
        assert upkeep.budget.octets <= 100_000
    kept = [n for n, line in enumerate(lines) if upkeep.get(line)]
    assert kept[0] == 0
    assert kept[1:] == list(range(kept[1], 40))
    assert upkeep.budget.evicted == 40 - len(kept) > 20


def test_negatives_take_a_tenth_and_never_push_certificates_out() -> None:
    upkeep = Keeper(1_000_000)
    for n in range(50):
        upkeep.fill(b"GET /%d HTTP/1.1\r\n" % n, b"c" * 5000 + b"%d" % n, f"n{n}")
    for n in range(2000):
        upkeep.fill(b"GET /neg%d HTTP/1.1\r\n" % n, b"nothing", f"neg{n}", status=b"404 Not Found")
    assert len(upkeep.budget.found) == 50
    assert 50 < len(upkeep.budget.absent) < 150
    assert upkeep.budget.octets < 50 * 6500 + 100_000
    assert upkeep.get(b"GET /neg1999 HTTP/1.1\r\n").endswith(b"nothing")


def test_one_reply_cannot_take_all() -> None:
    upkeep = Keeper(100_000)
    assert not upkeep.fill(body=b"x" * 50_000)


def test_head_not_modified_old_and_closing_come_from_the_one_answer(upkeep) -> None:
    upkeep.fill(head=b'ETag: W/"e"\r\n')
    whole = upkeep.get()
    assert upkeep.get(LINE.replace(b"GET", b"HEAD")) == whole[:-4]
    assert upkeep.get(block=b"Host: x\r\nConnection: close\r\n\r\n") == whole.replace(
        b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"
    )
    for tags in (b'"e"', b'W/"e"', b'"a", "e"', b"*"):
        said = upkeep.get(block=b"Host: x\r\nIf-None-Match: " + tags + b"\r\n\r\n")
        assert said.startswith(b'HTTP/1.1 304 Not Modified\r\nETag: W/"e"\r\nDate: ')
        assert b"Content-" not in said and said.endswith(b"\r\n\r\n")
    assert upkeep.get(block=b'Host: x\r\nIf-None-Match: "E"\r\n\r\n') == whole
    old = LINE.replace(b"1.1", b"1.0")
    assert upkeep.get(old) is None
    upkeep.fill(old, head=b'ETag: W/"e"\r\n', version=b"1.0")
    assert upkeep.get(old) == whole.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert len(upkeep.budget.found) == 1


def test_a_negative_is_never_not_modified(upkeep) -> None:
    upkeep.fill(status=b"404 Not Found", head=b'ETag: "e"\r\n')
    assert upkeep.get(block=b"Host: x\r\nIf-None-Match: *\r\n\r\n").startswith(b"HTTP/1.1 404 Not Found\r\n")


def test_what_was_asked_is_told_once(upkeep) -> None:
    upkeep.fill()
    upkeep.fill(b"GET /n HTTP/1.1\r\n", b"-", "nobody", status=b"404 Not Found")
    for _ in range(3):
        upkeep.get()
    upkeep.get(b"GET /n HTTP/1.1\r\n")
    assert upkeep.hot.asked() == {"alice": 3, "nobody": 1}
    assert upkeep.hot.asked() == {}
    upkeep.get()
    upkeep.change("alice")
    assert upkeep.hot.asked() == {"alice": 1}
    assert (upkeep.hot.counts().hits, upkeep.hot.counts().negative_hits) == (4, 1)


def names_of(n: int) -> list[str]:
    """As many names as a certificate with two subkeys and one address has."""
    fingerprints = [f"openpgp:fpr:{n * 3 + i:040X}" for i in range(3)]
    return [*fingerprints, *(f"openpgp:kid:{f[-16:]}" for f in fingerprints), f"openpgp:addr:user{n}@example.org"]


HEADERS = (
    b'ETag: "0123456789abcdef0123456789abcdef"\r\nX-Cache: HIT\r\nX-Key-Source: keyserver\r\n'
    b"Access-Control-Allow-Origin: *\r\nX-Content-Type-Options: nosniff\r\nServer: keyserver\r\n"
)


def test_memory_for_a_hot_answer_of_5_kib() -> None:
    count = 3000
    upkeep = Keeper(256 << 20)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(count):
            line = b"GET /pks/lookup?op=get&options=mr&search=0x%040X HTTP/1.1\r\n" % (n * 3)
            upkeep.fill(line, b"%05d" % n + b"x" * 5140, *names_of(n), head=HEADERS)
            upkeep.get(line)
        upkeep.hot.asked()
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert each < 6500
    counted = upkeep.budget.octets / count
    assert each * 0.95 < counted < each * 1.15, (each, counted)


def test_invalidation_is_quick_among_many() -> None:
    upkeep = Keeper(512 << 20)
    for n in range(100_000):
        upkeep.fill(b"GET /%d HTTP/1.1\r\n" % n, b"%d" % n, *names_of(n))
    began = time.process_time()
    for n in range(0, 100_000, 100):
        upkeep.change(names_of(n)[n % 7])
    took = time.process_time() - began
    assert len(upkeep.budget.found) == 99_000
    assert all((upkeep.get(b"GET /%d HTTP/1.1\r\n" % n) is None) == (n % 100 == 0) for n in range(2000))
    assert took < 0.5, took  # 1,000 changes; a walk through all answers takes some ms each


def test_what_an_answer_says_of_itself_changes_within_its_second() -> None:
    """And nothing is gone through but what was asked for in that second."""
    kept = Keeper()
    old, new = LINE.replace(b"alice", b"old"), LINE.replace(b"alice", b"new")
    for line in (old, LINE, new):
        assert kept.fill(line, line, head=b"X-Cache: HIT\r\n")
    stale = kept.hot.find(old)
    assert stale is not None
    kept.clock.now += 1
    assert b"X-Cache: HIT\r\n" in (kept.get() or b"")
    for detached, how in ((1, b"DETACHED"), (0, b"HIT")):
        kept.changes.detached[0] = detached
        kept.changes.publish(NO_NAMES)
        assert stale.at == START, "it was not gone through"
        for line in (LINE, new):
            assert b"X-Cache: %b\r\n" % how in (kept.get(line) or b"")
    assert b"X-Cache: HIT\r\n" in (kept.get(old) or b"")
