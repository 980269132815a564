"""Hot answers: true to the second, forgotten by name, by time and for memory; nobody fills them with aliases."""

from __future__ import annotations

import gc
import time
import tracemalloc
from email.utils import formatdate

import pytest

from keyserver.changes import Changes
from keyserver.faces.cache import MOST_KEYS, Budget
from keyserver.faces.http.facts import Facts
from keyserver.faces.http.hot import HotAnswers
from keyserver.model import Change
from keyserver.wire.http_hot import judge, read_reply

START = 1_800_000_000
PLAIN = judge(b"Host: x\r\n\r\n")
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
        self.budget = Budget(capacity, self.changes, self.clock)
        self.hot = HotAnswers(self.budget)

    def fill(self, line: bytes = LINE, body: bytes = b"body", *names: str, status: bytes = b"200 OK", head: bytes = b"",
             since: int = START, until: int = START + 1000, number: int | None = None, control: bytes = b"max-age=300",
             version: bytes = b"1.1") -> bool:  # fmt: skip
        reply = read_reply(
            b"HTTP/%b %b\r\nContent-Type: application/pgp-keys\r\nContent-Length: %d\r\n%b"
            b"Age: 0\r\nCache-Control: %b\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nConnection: keep-alive\r\n\r\n"
            % (version, status, len(body), head, control),
            False,
        )
        assert reply is not None
        names = names or ("alice",)
        number = self.changes.number if number is None else number
        positive = status.startswith(b"2")
        return self.hot.fill(line, reply, body, Facts(frozenset(names), until, number, since, positive, names[0]))

    def get(self, line: bytes = LINE, block: bytes = b"Host: x\r\n\r\n") -> bytes | None:
        answer = self.hot.find(line)
        if answer is None:
            return None
        self.hot.hit(answer)
        return answer.rendered(line, judge(block))

    def change(self, *names: str, everything: bool = False) -> None:
        self.changes.publish(Change(self.changes.number + 1, frozenset(names), everything))


@pytest.fixture
def keeper() -> Keeper:
    return Keeper()


def test_a_reply_is_repeated_word_for_word_but_for_the_time(keeper) -> None:
    assert keeper.get() is None
    assert keeper.fill(head=b'ETag: "e"\r\nX-Key-Source: local\r\n')
    keeper.clock.now += 7
    date = formatdate(START + 7, usegmt=True).encode()
    assert keeper.get() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/pgp-keys\r\nContent-Length: 4\r\n"
        b'ETag: "e"\r\nX-Key-Source: local\r\n'
        b"Date: " + date + b"\r\nAge: 7\r\nCache-Control: max-age=300\r\n\r\nbody"
    )


def test_age_and_max_age_follow_the_clock(keeper) -> None:
    keeper.fill(until=START + 400)
    for second in (0, 1, 99, 100, 101, 399):
        keeper.clock.now = START + second
        said = keeper.get()
        assert b"\r\nAge: %d\r\n" % second in said
        assert b"\r\nCache-Control: max-age=%d\r\n" % min(300, 400 - second) in said
    keeper.clock.now = START - 5  # the clock was set back
    assert b"\r\nAge: 0\r\n" in keeper.get()


def test_the_first_instant_at_which_anything_turns_takes_it_away(keeper) -> None:
    keeper.fill(until=START + 2)
    keeper.clock.now = START + 1
    assert keeper.get()
    keeper.clock.now = START + 2
    assert keeper.get() is None
    assert keeper.budget.expired == 1
    assert keeper.budget.octets == 0
    assert not keeper.fill(until=START + 2)


def test_other_directives_stay(keeper) -> None:
    keeper.fill(control=b"public, max-age=12, s-maxage=100%")
    assert b"Cache-Control: public, max-age=300, s-maxage=100%\r\n" in keeper.get()


@pytest.mark.parametrize(
    "head", [b"Vary: Accept\r\n", b"Set-Cookie: a=b\r\n", b"Expires: 0\r\n", b"Content-Range: bytes 0-1/2\r\n"]
)
def test_replies_for_one_client_are_not_kept(keeper, head) -> None:
    assert not keeper.fill(head=head)
    assert keeper.get() is None


@pytest.mark.parametrize("control", [b"no-store", b"private, max-age=3", b"No-Cache"])
def test_replies_that_forbid_it_are_not_kept(keeper, control) -> None:
    assert not keeper.fill(control=control)


@pytest.mark.parametrize(
    "status", [b"500 Internal Server Error", b"304 Not Modified", b"206 Partial Content", b"400 x"]
)
def test_only_certificates_and_absences_are_kept(keeper, status) -> None:
    assert not keeper.fill(status=status)


@pytest.mark.parametrize("line", [LINE.replace(b"GET", b"HEAD"), b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n"])
def test_only_ordinary_lines_are_kept(keeper, line) -> None:
    assert not keeper.fill(line)


def test_a_change_of_any_name_takes_it_away(keeper) -> None:
    for name in ("alice", "fpr", "kid"):
        keeper.fill(LINE, b"body", "alice", "fpr", "kid")
        keeper.change("somebody else")
        assert keeper.get()
        keeper.change(name)
        assert keeper.get() is None
    assert keeper.budget.forgotten == 3
    keeper.fill()
    keeper.change(everything=True)
    assert keeper.get() is None
    assert keeper.budget.octets == 0


def test_a_fill_that_raced_with_a_change_is_refused(keeper) -> None:
    number = keeper.changes.number
    keeper.change("bob")
    assert keeper.fill(number=number)
    keeper.change("alice")
    assert not keeper.fill(number=number)
    assert keeper.get() is None
    keeper.change("bob")
    assert keeper.fill(number=keeper.changes.number - 1)


def test_many_spellings_lead_to_one_body_and_are_capped(keeper) -> None:
    body = b"b" * 5000
    lines = [b"GET /pks/lookup?op=get&search=alice&x=%d HTTP/1.1\r\n" % n for n in range(50)]
    for line in lines:
        assert keeper.fill(line, bytes(bytearray(body)))
    assert len(keeper.budget.found) == 1
    assert keeper.budget.octets < 5000 + 4000
    assert [bool(keeper.get(line)) for line in lines] == [False] * (50 - MOST_KEYS) + [True] * MOST_KEYS


def test_two_questions_with_the_same_answer_share_its_body(keeper) -> None:
    keeper.fill(LINE, b"b" * 5000, "alice", "fpr")
    keeper.fill(LINE.replace(b"alice", b"0xAB"), b"b" * 2500 + b"b" * 2500, "fpr", until=START + 50)
    assert len(keeper.budget.found) == 2
    assert keeper.budget.octets < 7500
    keeper.change("alice")
    assert keeper.get() is None
    assert keeper.get(LINE.replace(b"alice", b"0xAB")).endswith(b"b" * 5000)
    keeper.change("fpr")
    assert keeper.budget.octets == 0


def test_a_line_that_is_filled_again_says_the_new(keeper) -> None:
    keeper.fill(body=b"old")
    keeper.fill(body=b"new")
    assert keeper.get().endswith(b"new")
    assert len(keeper.budget.found) == 1


def test_the_least_recently_used_leaves() -> None:
    keeper = Keeper(100_000)
    lines = [b"GET /%d HTTP/1.1\r\n" % n for n in range(40)]
    for n, line in enumerate(lines):
        keeper.fill(line, b"%d" % n * 5000, f"n{n}")
        keeper.clock.now += 1
        assert keeper.get(lines[0])  # always in use
        assert keeper.budget.octets <= 100_000
    kept = [n for n, line in enumerate(lines) if keeper.get(line)]
    assert kept[0] == 0
    assert kept[1:] == list(range(kept[1], 40))
    assert keeper.budget.evicted == 40 - len(kept) > 20


def test_negatives_take_a_tenth_and_never_push_certificates_out() -> None:
    keeper = Keeper(1_000_000)
    for n in range(50):
        keeper.fill(b"GET /%d HTTP/1.1\r\n" % n, b"c" * 5000 + b"%d" % n, f"n{n}")
    for n in range(2000):
        keeper.fill(b"GET /neg%d HTTP/1.1\r\n" % n, b"nothing", f"neg{n}", status=b"404 Not Found")
    assert len(keeper.budget.found) == 50
    assert 50 < len(keeper.budget.absent) < 150
    assert keeper.budget.octets < 50 * 6500 + 100_000
    assert keeper.get(b"GET /neg1999 HTTP/1.1\r\n").endswith(b"nothing")


def test_one_reply_cannot_take_all() -> None:
    keeper = Keeper(100_000)
    assert not keeper.fill(body=b"x" * 50_000)


def test_head_not_modified_old_and_closing_come_from_the_one_answer(keeper) -> None:
    keeper.fill(head=b'ETag: W/"e"\r\n')
    whole = keeper.get()
    assert keeper.get(LINE.replace(b"GET", b"HEAD")) == whole[:-4]
    assert keeper.get(block=b"Host: x\r\nConnection: close\r\n\r\n") == whole.replace(
        b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"
    )
    for tags in (b'"e"', b'W/"e"', b'"a", "e"', b"*"):
        said = keeper.get(block=b"Host: x\r\nIf-None-Match: " + tags + b"\r\n\r\n")
        assert said.startswith(b'HTTP/1.1 304 Not Modified\r\nETag: W/"e"\r\nDate: ')
        assert b"Content-" not in said and said.endswith(b"\r\n\r\n")
    assert keeper.get(block=b'Host: x\r\nIf-None-Match: "E"\r\n\r\n') == whole
    old = LINE.replace(b"1.1", b"1.0")
    assert keeper.get(old) is None
    keeper.fill(old, head=b'ETag: W/"e"\r\n', version=b"1.0")
    assert keeper.get(old) == whole.replace(b"HTTP/1.1", b"HTTP/1.0")
    assert len(keeper.budget.found) == 1


def test_a_negative_is_never_not_modified(keeper) -> None:
    keeper.fill(status=b"404 Not Found", head=b'ETag: "e"\r\n')
    assert keeper.get(block=b"Host: x\r\nIf-None-Match: *\r\n\r\n").startswith(b"HTTP/1.1 404 Not Found\r\n")


def test_what_was_asked_is_told_once(keeper) -> None:
    keeper.fill()
    keeper.fill(b"GET /n HTTP/1.1\r\n", b"-", "nobody", status=b"404 Not Found")
    for _ in range(3):
        keeper.get()
    keeper.get(b"GET /n HTTP/1.1\r\n")
    assert keeper.hot.asked() == {"alice": 3, "nobody": 1}
    assert keeper.hot.asked() == {}
    keeper.get()
    keeper.change("alice")
    assert keeper.hot.asked() == {"alice": 1}
    assert (keeper.hot.counts().hits, keeper.hot.counts().negative_hits) == (4, 1)


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
    keeper = Keeper(256 << 20)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for n in range(count):
            line = b"GET /pks/lookup?op=get&options=mr&search=0x%040X HTTP/1.1\r\n" % (n * 3)
            keeper.fill(line, b"%05d" % n + b"x" * 5140, *names_of(n), head=HEADERS)
            keeper.get(line)
        keeper.hot.asked()
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / count
    finally:
        tracemalloc.stop()
    assert each < 6500
    counted = keeper.budget.octets / count
    assert each * 0.95 < counted < each * 1.15, (each, counted)


def test_invalidation_is_quick_among_many() -> None:
    keeper = Keeper(512 << 20)
    for n in range(100_000):
        keeper.fill(b"GET /%d HTTP/1.1\r\n" % n, b"%d" % n, *names_of(n))
    began = time.perf_counter()
    for n in range(0, 100_000, 100):
        keeper.change(names_of(n)[n % 7])
    took = time.perf_counter() - began
    assert len(keeper.budget.found) == 99_000
    assert all((keeper.get(b"GET /%d HTTP/1.1\r\n" % n) is None) == (n % 100 == 0) for n in range(2000))
    assert took < 0.5, took  # 1,000 changes; a walk through all answers takes some ms each
