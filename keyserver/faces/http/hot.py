"""Hot answers: the rendered replies of one listener, by the exact request line, for as long as they are true.

Filled only with replies that the ordinary handlers gave, under the line they gave them for. `Date`, `Age`,
`max-age` and `X-Cache` are made anew at most once a second for each answer, when it is asked for: what can wait is done
then too, so that a hit itself is a look-up and a write.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import formatdate

from keyserver.faces.asked import AskedNames
from keyserver.faces.cache import Cache, CachedAnswer, MemoryLimit
from keyserver.faces.http.facts import Facts
from keyserver.model import Name
from keyserver.wire.http_hot import Block, ResponseHead

MAX_AGE = 300
"""Seconds that a client may keep a reply at most (contract, HTTP on the HKP listener)."""

MAX_LINE = 2048  # octets of a request line that is remembered

_OBJECTS = 530  # octets that an answer takes beside head and body: objects and table entries (measured)
_PER_LINE = 150

_OURS = frozenset({b"connection", b"date", b"age", b"cache-control", b"x-cache"})
_SINGULAR = frozenset({b"vary", b"set-cookie", b"expires", b"content-range", b"transfer-encoding", b"trailer"})
_UNKEPT = re.compile(rb"no-store|no-cache|private", re.IGNORECASE)
_MAX_AGE = re.compile(rb"(?<![\w-])max-age=[0-9]+", re.IGNORECASE)
_ETAG = re.compile(rb'\r\netag: (?:W/)?("[^"]*")\r\n', re.IGNORECASE)
_CONTENT = re.compile(rb"(?<=\r\n)content-[^\r]*\r\n", re.IGNORECASE)


class HotAnswer(CachedAnswer):
    """One reply. `head`, its empty line included, is true for the second `at`."""

    __slots__ = ("cut", "head", "hits", "query", "since", "tail")

    def __init__(self, cache: HotAnswers, fixed: bytes, tail: bytes, body: bytes, facts: Facts) -> None:
        budget = cache.budget
        octets = _OBJECTS + len(fixed) + 2 * len(tail)
        super().__init__(cache, budget.found if facts.positive else budget.absent, facts, octets, body)
        self.head = fixed
        self.cut = len(fixed)  # behind it the head changes by the second
        self.tail = tail
        self.since = facts.since
        self.query = facts.query
        self.hits = 0

    def __hash__(self) -> int:
        return hash((self.body, self.marks, self.since))  # octets remember their hashes

    def __eq__(self, other: object) -> bool:
        """Does the other say the same to the same clients, for the same reasons?"""
        if self is other:
            return True
        return (
            isinstance(other, HotAnswer)
            and self.cache is other.cache
            and self.segment is other.segment
            and self.head[: self.cut] == other.head[: other.cut]
            and (self.tail, self.body, self.marks) == (other.tail, other.body, other.marks)
            and (self.since, self.until) == (other.since, other.until)
        )

    @property
    def status(self) -> int:
        """200 or 404."""
        return int(self.head[9:12])

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


@dataclass(frozen=True, slots=True)
class HotCounts:
    """What one listener's hot answers were asked for since the start."""

    hits: int  # certificates given from memory
    negative_hits: int


class HotAnswers(Cache[bytes, HotAnswer]):
    """The hot answers of one listener by their request lines, within the process's budget."""

    def __init__(self, budget: MemoryLimit) -> None:
        super().__init__(budget)
        self._tails: dict[bytes, bytes] = {}
        self._touched: list[HotAnswer] = []  # with hits not yet counted
        self._asked = AskedNames()
        self._date = b""
        self._date_of = -1
        self._hits = self._negative_hits = 0

    # giving

    def find(self, line: bytes) -> HotAnswer | None:
        """The answer to a request line, if it is true now. HEAD asks for what GET would get (RFC 9110 §9.3.2)."""
        answer = self.get(line)
        if answer is None and line.startswith(b"HEAD "):
            answer = self.get(b"GET" + line[4:])
        return answer

    def fresh(self, entry: HotAnswer, now: int) -> bool:
        """Make the answer's head true for the second `now`; False: its time is over, it is gone."""
        if entry.at == now:
            return True
        if not super().fresh(entry, now):
            return False
        if now != self._date_of:
            self._date, self._date_of = formatdate(now, usegmt=True).encode(), now
        entry.head = entry.head[: entry.cut] + entry.tail % {
            b"date": self._date,
            b"age": max(0, now - entry.since),
            b"left": min(MAX_AGE, entry.until - now),
            b"how": b"DETACHED" if self.changes.detached[0] else b"HIT",
        }
        return True

    def hit(self, answer: HotAnswer) -> None:
        """Count an answer given away."""
        if not answer.hits:
            self._touched.append(answer)
        answer.hits += 1

    # filling

    def fill(self, line: bytes, reply: ResponseHead, body: bytes, facts: Facts) -> bool:
        """Keep a handler's reply to a plain GET with this request line, unless anything speaks against it.

        False when it is not taken: a name changed since the handler looked, its time is over, it is not a reply that
        may be given to somebody else, or it is too large."""
        segment = self.budget.found if facts.positive else self.budget.absent
        if not _may_repeat(line, reply, body) or not self.budget.takes(segment, reply.size + len(body), facts):
            return False
        self.put(line, HotAnswer(self, *self._split(reply), body, facts))
        return True

    def key_octets(self, key: bytes) -> int:
        """Memory of a request line."""
        return _PER_LINE + len(key)

    def _split(self, reply: ResponseHead) -> tuple[bytes, bytes]:
        """The reply's head as what never changes, and a format for what does."""
        fixed = [b"HTTP/1.1 %d %b\r\n" % (reply.status, reply.reason)]
        fixed += [b"%b: %b\r\n" % header for header in reply.headers if header[0].lower() not in _OURS]
        tail = b"Date: %(date)b\r\n"
        for value in reply.values(b"x-cache"):
            tail += b"X-Cache: %b\r\n" % (b"%(how)b" if value == b"HIT" else value.replace(b"%", b"%%"))
        if reply.values(b"age"):
            tail += b"Age: %(age)d\r\n"
        for value in reply.values(b"cache-control"):
            tail += b"Cache-Control: " + _MAX_AGE.sub(b"max-age=%(left)d", value.replace(b"%", b"%%")) + b"\r\n"
        tail += b"\r\n"
        if len(self._tails) < 64:
            tail = self._tails.setdefault(tail, tail)
        return b"".join(fixed), tail

    # counting

    def asked(self) -> dict[Name, int]:
        """What was asked for and answered from memory since the last call, by the query's name, and how often."""
        self._collect()
        return self._asked.take()

    def counts(self) -> HotCounts:
        self._collect()
        return HotCounts(self._hits, self._negative_hits)

    def _collect(self) -> None:
        touched, self._touched = self._touched, []
        for answer in touched:
            hits, answer.hits = answer.hits, 0
            if answer.segment is self.budget.found:
                self._hits += hits
            else:
                self._negative_hits += hits
            if answer.query:
                self._asked.note(answer.query, hits)


def _may_repeat(line: bytes, reply: ResponseHead, body: bytes) -> bool:
    """May this reply to this request line be given to somebody else?"""
    return (
        reply.status in (200, 404)
        and line.startswith(b"GET ")
        and len(line) <= MAX_LINE
        and reply.length == len(body)
        and _SINGULAR.isdisjoint(reply.named)
        and not any(_UNKEPT.search(value) for value in reply.values(b"cache-control"))
    )
