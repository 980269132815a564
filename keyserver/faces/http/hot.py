"""Hot answers: the rendered replies of one listener, by the exact request line, for as long as they are true.

Filled only with replies that the ordinary handlers gave, under the line they gave them for; forgotten by name, by time
and when memory runs out. `Date`, `Age` and `max-age` are made anew at most once a second for each answer, when it is
asked for: what can wait is done then too, so that a hit itself is a look-up and a write.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate

from keyserver.changes import Changes
from keyserver.faces.http.facts import Facts
from keyserver.model import Change, Name
from keyserver.wire.http_hot import Block, Reply

MAX_AGE = 300
"""Seconds that a client may keep a reply at most (contract, HTTP on the HKP listener)."""

SPELLINGS = 8
"""Request lines that may lead to one answer: nobody fills memory with aliases."""

MAX_LINE = 2048  # octets of a request line that is remembered
MAX_ASKED = 100_000  # names remembered for `asked`
NEGATIVE_SHARE = 10  # negative answers may take one tenth of the memory

_OBJECTS = 530  # octets that an answer takes beside head and body: objects and table entries (measured)
_PER_LINE = 150
_PER_NAME = 22

_OURS = frozenset({b"connection", b"date", b"age", b"cache-control"})
_SINGULAR = frozenset({b"vary", b"set-cookie", b"expires", b"content-range", b"transfer-encoding", b"trailer"})
_UNKEPT = re.compile(rb"no-store|no-cache|private", re.IGNORECASE)
_MAX_AGE = re.compile(rb"(?<![\w-])max-age=[0-9]+", re.IGNORECASE)
_ETAG = re.compile(rb'\r\netag: (?:W/)?("[^"]*")\r\n', re.IGNORECASE)
_CONTENT = re.compile(rb"(?<=\r\n)content-[^\r]*\r\n", re.IGNORECASE)


class HotAnswer:
    """One reply. `head`, its empty line included, is true for the second `at`."""

    __slots__ = ("at", "body", "cut", "head", "hits", "key", "lines", "marks", "positive", "query", "since", "tail",
                 "until")  # fmt: skip

    def __init__(self, fixed: bytes, tail: bytes, body: bytes, facts: Facts, marks: bytes) -> None:
        self.head = fixed
        self.cut = len(fixed)  # behind it the head changes by the second
        self.tail = tail
        self.body = body
        self.since = facts.since
        self.until = facts.until
        self.positive = facts.positive
        self.query = facts.query
        self.marks = marks  # hashes of its names, 8 octets each
        self.lines: tuple[bytes, ...] = ()
        self.key = hash((fixed, tail, body, facts.since, facts.until, facts.positive, marks))
        self.at = -1
        self.hits = 0

    def same(self, other: HotAnswer) -> bool:
        """Does the other say the same, for the same reasons?"""
        return (
            self.head[: self.cut] == other.head[: other.cut]
            and (self.tail, self.body, self.marks) == (other.tail, other.body, other.marks)
            and (self.since, self.until, self.positive) == (other.since, other.until, other.positive)
        )

    @property
    def status(self) -> int:
        """200 or 404."""
        return int(self.head[9:12])

    @property
    def cost(self) -> int:
        """Octets of memory, its body not counted."""
        lines = sum(map(len, self.lines)) + _PER_LINE * len(self.lines)
        return _OBJECTS + self.cut + 2 * len(self.tail) + _PER_NAME * len(self.marks) // 8 + lines

    def rendered(self, line: bytes, block: Block) -> bytes:
        """The reply to a plain request that `line` and `block` say.

        HEAD, If-None-Match (RFC 9110 §13.1.2: a weak comparison; only a 200 turns into 304), HTTP/1.0 and
        `Connection: close` all come from the one answer.
        """
        head = self.head
        body = b"" if line.startswith(b"HEAD") else self.body
        if block.tags and self.status == 200:
            etag = _ETAG.search(head)
            if etag and (etag[1] in block.tags or block.tags == (b"*",)):
                body = b""
                head = b"HTTP/1.1 304 Not Modified" + _CONTENT.sub(b"", head[head.index(b"\r\n") :])
        if line.endswith(b" HTTP/1.0\r\n"):
            head = b"HTTP/1.0" + head[8:]
        elif block.close:
            head = head[:-2] + b"Connection: close\r\n\r\n"
        return head + body


class _Shelf:
    """Answers of one sort with their own count of memory, least recently used first."""

    def __init__(self) -> None:
        self.order: OrderedDict[int, HotAnswer] = OrderedDict()
        self.bodies: dict[bytes, tuple[bytes, int]] = {}  # each body once, with how many answers share it
        self.octets = 0
        self.hits = 0

    def put(self, answer: HotAnswer) -> None:
        answer.body, sharing = self.bodies.get(answer.body, (answer.body, 0))
        self.bodies[answer.body] = answer.body, sharing + 1
        self.octets += answer.cost + (0 if sharing else len(answer.body))
        self.order[answer.key] = answer

    def take(self, answer: HotAnswer) -> None:
        del self.order[answer.key]
        body, sharing = self.bodies.pop(answer.body)
        if sharing > 1:
            self.bodies[body] = body, sharing - 1
        self.octets -= answer.cost + (0 if sharing > 1 else len(body))


@dataclass(frozen=True, slots=True)
class HotCounts:
    """What the hot answers of one listener are, and what became of them since the start."""

    answers: int
    negatives: int
    octets: int
    hits: int  # certificates given from memory
    negative_hits: int
    filled: int
    refused: int  # offers that were not taken
    evicted: int  # gone because memory ran out
    forgotten: int  # gone because a name changed
    expired: int


class HotAnswers:
    """Hot answers within `capacity` octets; `clock` gives Unix seconds."""

    def __init__(self, changes: Changes, capacity: int, clock: Callable[[], int]) -> None:
        self.lines: dict[bytes, HotAnswer] = {}
        """Every request line known; whoever takes an answer from here calls `fresh` before giving it away."""
        self.clock = clock
        self._changes = changes
        self._capacity = capacity
        self._found = _Shelf()
        self._absent = _Shelf()
        self._tails: dict[bytes, bytes] = {}
        # Names are kept as hashes in buckets: a table of strings would take a kilobyte for each answer.
        self._mask = (1 << max(8, (capacity >> 16).bit_length())) - 1
        self._buckets: list[tuple[HotAnswer, ...]] = [()] * (self._mask + 1)
        self._touched: list[HotAnswer] = []  # with hits not yet counted
        self._asked: dict[Name, int] = {}
        self._date = b""
        self._date_of = -1
        self._filled = self._refused = self._evicted = self._forgotten = self._expired = 0
        changes.listen(self._change)

    # giving

    def find(self, line: bytes) -> HotAnswer | None:
        """The answer to a request line, if it is true now. HEAD asks for what GET would get (RFC 9110 §9.3.2)."""
        answer = self.lines.get(line)
        if answer is None and line.startswith(b"HEAD "):
            answer = self.lines.get(b"GET" + line[4:])
        return answer if answer is not None and self.fresh(answer, self.clock()) else None

    def fresh(self, answer: HotAnswer, now: int) -> bool:
        """Make the answer's head true for the second `now`; False: its time is over, it is gone."""
        if answer.at == now:
            return True
        if now >= answer.until:
            self._expired += 1
            self._drop(answer)
            return False
        if now != self._date_of:
            self._date, self._date_of = formatdate(now, usegmt=True).encode(), now
        answer.head = answer.head[: answer.cut] + answer.tail % {
            b"date": self._date,
            b"age": max(0, now - answer.since),
            b"left": min(MAX_AGE, answer.until - now),
        }
        answer.at = now
        self._shelf(answer).order.move_to_end(answer.key)
        return True

    def hit(self, answer: HotAnswer) -> None:
        """Count an answer given away."""
        if not answer.hits:
            self._touched.append(answer)
        answer.hits += 1

    # filling and forgetting

    def fill(self, line: bytes, reply: Reply, body: bytes, facts: Facts) -> bool:
        """Keep a handler's reply to a plain GET with this request line, unless anything speaks against it.

        False when it is not taken: a name changed since the handler looked, its time is over, it is not a reply that
        may be given to somebody else, or it is too large."""
        taken = self._may_keep(line, reply, body, facts)
        if taken:
            fixed, tail = self._split(reply)
            marks = b"".join(sorted(map(_mark, facts.names)))
            self._learn(line, HotAnswer(fixed, tail, body, facts, marks))
            self._filled += 1
        else:
            self._refused += 1
        return taken

    def clear(self) -> None:
        """Forget everything."""
        for shelf in (self._found, self._absent):
            for answer in list(shelf.order.values()):
                self._drop(answer)

    def _may_keep(self, line: bytes, reply: Reply, body: bytes, facts: Facts) -> bool:
        return (
            reply.status in (200, 404)
            and line.startswith(b"GET ")
            and len(line) <= MAX_LINE
            and reply.length == len(body)
            and reply.size + len(body) <= self._capacity // (8 if facts.positive else 8 * NEGATIVE_SHARE)
            and facts.until > self.clock()
            and not any(name.lower() in _SINGULAR for name, _ in reply.headers)
            and not any(_UNKEPT.search(value) for value in reply.values(b"cache-control"))
            and not self._changes.touched(facts.number, facts.names)
        )

    def _split(self, reply: Reply) -> tuple[bytes, bytes]:
        """The reply's head as what never changes, and a format for what does."""
        fixed = [b"HTTP/1.1 %d %b\r\n" % (reply.status, reply.reason)]
        fixed += [b"%b: %b\r\n" % header for header in reply.headers if header[0].lower() not in _OURS]
        tail = b"Date: %(date)b\r\n"
        if reply.values(b"age"):
            tail += b"Age: %(age)d\r\n"
        for value in reply.values(b"cache-control"):
            tail += b"Cache-Control: " + _MAX_AGE.sub(b"max-age=%(left)d", value.replace(b"%", b"%%")) + b"\r\n"
        tail += b"\r\n"
        if len(self._tails) < 64:
            tail = self._tails.setdefault(tail, tail)
        return b"".join(fixed), tail

    def _learn(self, line: bytes, new: HotAnswer) -> None:
        self._forget_line(line)
        shelf = self._shelf(new)
        answer = shelf.order.get(new.key)
        if answer is not None and not answer.same(new):
            self._drop(answer)  # two keys fell together
            answer = None
        if answer is None:
            answer = new
            shelf.put(answer)
            for bucket in self._places(answer):
                self._buckets[bucket] += (answer,)
        elif len(answer.lines) >= SPELLINGS:
            self._forget_line(answer.lines[0])
        shelf.octets -= answer.cost
        answer.lines += (line,)
        shelf.octets += answer.cost
        self.lines[line] = answer
        self._evict()

    def _forget_line(self, line: bytes) -> None:
        answer = self.lines.get(line)
        if answer is None:
            return
        if len(answer.lines) == 1:
            self._drop(answer)
            return
        del self.lines[line]
        shelf = self._shelf(answer)
        shelf.octets -= answer.cost
        answer.lines = tuple(other for other in answer.lines if other != line)
        shelf.octets += answer.cost

    def _evict(self) -> None:
        while self._absent.octets > self._capacity // NEGATIVE_SHARE:
            self._evicted += 1
            self._drop(next(iter(self._absent.order.values())))
        while self._found.octets + self._absent.octets > self._capacity:
            shelf = self._found if self._found.order else self._absent
            self._evicted += 1
            self._drop(next(iter(shelf.order.values())))

    def _change(self, change: Change) -> None:
        if change.everything:
            self._forgotten += len(self._found.order) + len(self._absent.order)
            self.clear()
            return
        for name in change.names:
            mark = _mark(name)
            for answer in self._buckets[int.from_bytes(mark, "little") & self._mask]:
                if mark in answer.marks:  # a match across two marks forgets one answer too many, about never
                    self._forgotten += 1
                    self._drop(answer)

    def _drop(self, answer: HotAnswer) -> None:
        self._shelf(answer).take(answer)
        for line in answer.lines:
            del self.lines[line]
        for bucket in self._places(answer):
            self._buckets[bucket] = tuple(other for other in self._buckets[bucket] if other is not answer)

    def _places(self, answer: HotAnswer) -> Iterator[int]:
        """The buckets that an answer stands in, each once."""
        marks = answer.marks
        return iter({int.from_bytes(marks[i : i + 8], "little") & self._mask for i in range(0, len(marks), 8)})

    def _shelf(self, answer: HotAnswer) -> _Shelf:
        return self._found if answer.positive else self._absent

    # counting

    def asked(self) -> dict[Name, int]:
        """What was asked for and answered from memory since the last call, by the query's name, and how often."""
        self._collect()
        asked, self._asked = self._asked, {}
        return asked

    def counts(self) -> HotCounts:
        """For metrics; cheap."""
        self._collect()
        return HotCounts(
            len(self._found.order),
            len(self._absent.order),
            self._found.octets + self._absent.octets,
            self._found.hits,
            self._absent.hits,
            self._filled,
            self._refused,
            self._evicted,
            self._forgotten,
            self._expired,
        )

    def _collect(self) -> None:
        touched, self._touched = self._touched, []
        for answer in touched:
            hits, answer.hits = answer.hits, 0
            self._shelf(answer).hits += hits
            if answer.query and (answer.query in self._asked or len(self._asked) < MAX_ASKED):
                self._asked[answer.query] = self._asked.get(answer.query, 0) + hits


def _mark(name: Name) -> bytes:
    """Eight octets for a name, another choice in every process."""
    return (hash(name) & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")
