"""What can be seen from outside: metrics in a registry of their own, and one log line per lookup.

Addresses (of mail and of clients), fingerprints and key IDs appear in logs only as keyed hashes unless
`log.identities` is on: the same identity gives the same hash, so that lines can be followed, and nobody without the
secret can test a guess.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TextIO

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from keyserver.model import Answer, How, Name, State
from keyserver.traffic import Traffic

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATE = 0.2  # seconds that the line of a lookup may wait for others
MOST_LATE = 64  # lines that wait
STAGES = ("prepared", "sent", "failed")  # of invitations, while they are sent
_TRAFFIC = {State.FAILED: "failed", State.BUSY: "failed"}


class Observer:
    """Counters, gauges and the lookup log of one process."""

    def __init__(self, secret: bytes, identities: bool, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds, for the lines."""
        self._clock = clock
        self._keyed = hashlib.blake2b(key=secret, digest_size=8)
        self.identities = identities
        """May logs show addresses and key IDs in clear?"""
        self._log = logging.getLogger("keyserver.lookup")
        self.registry = CollectorRegistry()
        self._lookups = Counter(
            "keyserver_lookups", "Lookups answered by the resolver", ["face", "state", "how"], registry=self.registry
        )
        self._verdicts = Counter(
            "keyserver_verdicts",
            "Verdicts given, but for those from memory",
            ["face", "policy", "verdict"],
            registry=self.registry,
        )
        self._invitations = Counter(
            "keyserver_invitations", "Invitations by what became of their mail", ["stage"], registry=self.registry
        )
        for stage in STAGES:
            self._invitations.labels(stage)
        self._seconds = Histogram(
            "keyserver_lookup_seconds", "Seconds to an answer", ["face", "how"], buckets=SECONDS, registry=self.registry
        )
        self._hot = Counter("keyserver_hot_answers", "Requests answered from memory", ["face"], registry=self.registry)
        self._upstream = Counter(
            "keyserver_upstream_answers", "Outcomes of upstreams", ["upstream", "outcome"], registry=self.registry
        )
        self._upstream_seconds = Histogram(
            "keyserver_upstream_seconds", "Seconds to an outcome", ["upstream"], buckets=SECONDS, registry=self.registry
        )
        self.traffic = Traffic(clock)
        """`hit`, `miss`, `failed`: lookups; `upstream NAME found`, `… absent`, `… failed`: what each said."""
        self._hot_counts: dict[str, int] = {}
        self._counted: dict[tuple[str, ...], tuple[Counter, Histogram]] = {}  # labels cost more

    def lookup(
        self, face: str, asked: str, answer: Answer, status: int, seconds: float, client: str | None = None
    ) -> None:
        """One lookup: `asked` is the query's own text, `status` the face's code for it, `client` the address that it
        came from, empty for a Unix socket's."""
        state, how = str(answer.state), str(answer.how)
        counted = self._counted.get((face, state, how))
        if counted is None:
            counted = (self._lookups.labels(face, state, how), self._seconds.labels(face, how))
            self._counted[face, state, how] = counted
        self.traffic.note(_TRAFFIC.get(answer.state) or ("miss" if answer.how is How.MISS else "hit"))
        counted[0].inc()
        counted[1].observe(seconds)
        if self._log.isEnabledFor(logging.INFO):
            facts: dict[str, object] = {"face": face}
            if client is not None:
                facts["client"] = self.identity(client) if client else "unix"
            facts["query"] = self.identity(asked)
            facts["state"] = state
            facts["how"] = how
            facts["certificates"] = len(answer.certificates)
            facts["status"] = status
            facts["ms"] = round(seconds * 1000, 1)
            facts["reason"] = answer.reason
            self._log.handle(_Lookup("lookup", facts, self._clock()))

    def verdict(self, face: str, policy: str, address: str, word: str, reason: str, seconds: float) -> None:
        """One verdict that did not come from memory."""
        self._verdicts.labels(face, policy, word).inc()
        if self._log.isEnabledFor(logging.INFO):
            facts: dict[str, object] = {"face": face, "policy": policy, "query": self.identity(address)}
            facts |= {"verdict": word, "ms": round(seconds * 1000, 1), "reason": reason}
            self._log.handle(_Lookup("verdict", facts, self._clock()))

    def invitation(self, stage: str) -> None:
        """An invitation has come to a stage."""
        self._invitations.labels(stage).inc()

    def hits(self, face: str, name: Name, hits: int) -> None:
        """One query's answers from memory since the last call, in one line: a line for each would cost more than it."""
        if self._log.isEnabledFor(logging.INFO):
            facts = {"face": face, "query": self.identity(name.split(":", 2)[2]), "how": "HIT", "hits": hits}
            self._log.handle(_Lookup("hits", facts, self._clock()))

    def hot(self, face: str, count: int) -> None:
        """So many requests were answered from memory since the last call."""
        if count:
            self._hot.labels(face).inc(count)
            self.traffic.note("hit", count)
            self._hot_counts[face] = self._hot_counts.get(face, 0) + count

    def hot_answers(self, face: str) -> int:
        """How many were, since the start."""
        return self._hot_counts.get(face, 0)

    def upstream(self, upstream: str, outcome: str, seconds: float) -> None:
        """One outcome of one upstream."""
        self.traffic.note(f"upstream {upstream} {outcome}")
        counted = self._counted.get((upstream, outcome))
        if counted is None:
            counted = (self._upstream.labels(upstream, outcome), self._upstream_seconds.labels(upstream))
            self._counted[upstream, outcome] = counted
        counted[0].inc()
        counted[1].observe(seconds)

    def identity(self, text: str) -> str:
        """An address, fingerprint or key ID as logs may show it."""
        return text if self.identities else self.hashed(text)

    def hashed(self, text: str) -> str:
        """Its hash, keyed with this installation's secret."""
        keyed = self._keyed.copy()
        keyed.update(text.encode(errors="replace"))
        return "#" + keyed.hexdigest()

    def exposition(self) -> bytes:
        """Prometheus text."""
        return generate_latest(self.registry)


_BARE: Mapping[str, object] = vars(logging.LogRecord("keyserver.lookup", logging.INFO, "", 0, "", (), None))


class _Lookup(logging.LogRecord):
    """A line about lookups, without the caller, thread and process of others, which take longer than all the rest."""

    def __init__(self, message: str, facts: Mapping[str, object], created: float) -> None:
        self.__dict__.update(_BARE)
        self.msg = message
        self.created = created
        self.facts = facts


class _Lines(logging.StreamHandler[TextIO]):
    """Writes lines in their order. Those about lookups wait until one of another sort comes, or for others of theirs:
    0.2 s and 64 of them at most, and for no one where no loop runs."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._waiting: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._waiting.append(record)
        if isinstance(record, _Lookup) and len(self._waiting) < MOST_LATE:
            if len(self._waiting) > 1:
                return
            if _in_time(self.flush):
                return
        self._write()

    def flush(self) -> None:
        self.acquire()
        try:
            if self._waiting:
                self._write()
        finally:
            self.release()

    def _write(self) -> None:
        records, self._waiting = self._waiting, []
        lines: list[str] = []
        for record in records:
            try:
                lines.append(self.format(record) + self.terminator)
            except Exception:
                self.handleError(record)
        try:
            self.stream.write("".join(lines))
            self.stream.flush()
        except Exception:
            self.handleError(records[-1])


def _in_time(flush: Callable[[], None]) -> bool:
    """Let the loop flush soon; False where none runs."""
    try:
        asyncio.get_running_loop().call_later(LATE, flush)
    except RuntimeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class LogFormat:
    """How log lines look: `text` for people, `json` for machines."""

    json: bool

    def install(self, level: str) -> None:
        """Make this the only handler of the root logger, on stderr."""
        handler = _Lines(sys.stderr)
        handler.setFormatter(_Json() if self.json else _Text())
        root = logging.getLogger()
        for before in root.handlers:
            before.flush()
        root.handlers[:] = [handler]
        root.setLevel(level.upper())
        logging.getLogger("aiohttp.access").disabled = True


def _facts(record: logging.LogRecord) -> Mapping[str, object]:
    facts = getattr(record, "facts", {})
    return facts if isinstance(facts, Mapping) else {}


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


class _Text(logging.Formatter):
    """One line, and an exception's lines indented below it: what is hostile in either starts no line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        facts = " ".join(f"{k}={_word(v)}" for k, v in _facts(record).items())
        line = f"{stamp} {record.levelname.lower():7} {_shown(record.getMessage())} {facts}".rstrip()
        if not record.exc_info:
            return line
        return "\n    ".join([line, *map(_shown, self.formatException(record.exc_info).splitlines())])


def _word(value: object) -> str:
    """One value as one word: quoted and escaped where it would not be one, or could not be seen as it is."""
    text = str(value)
    return json.dumps(text) if not text.isprintable() or " " in text or '"' in text else text


def _shown(text: str) -> str:
    """A sentence without what terminals obey or readers do not see: controls, bidi marks, line separators."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
