"""What can be seen from outside: metrics in a registry of their own, and one log line per lookup.

Addresses (of mail and of clients), fingerprints and key IDs appear in logs only as keyed hashes unless
`log.identities` is on: the same identity gives the same hash, so that lines can be followed, and nobody without the
secret can test a guess.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from keyserver.model import Answer, Name

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Observer:
    """Counters, gauges and the lookup log of one process."""

    def __init__(self, secret: bytes, identities: bool) -> None:
        self._secret = secret
        self._identities = identities
        self._log = logging.getLogger("keyserver.lookup")
        self.registry = CollectorRegistry()
        self._lookups = Counter(
            "keyserver_lookups", "Lookups answered by the resolver", ["face", "state", "how"], registry=self.registry
        )
        self._seconds = Histogram(
            "keyserver_lookup_seconds", "Time to an answer", ["face", "how"], buckets=SECONDS, registry=self.registry
        )
        self._hot = Counter("keyserver_hot_answers", "Requests answered from memory", ["face"], registry=self.registry)
        self._upstream = Counter(
            "keyserver_upstream_answers", "Outcomes of upstreams", ["upstream", "outcome"], registry=self.registry
        )
        self._upstream_seconds = Histogram(
            "keyserver_upstream_seconds", "Time to an outcome", ["upstream"], buckets=SECONDS, registry=self.registry
        )
        self._gauges: dict[str, Gauge] = {}

    def lookup(
        self, face: str, asked: str, answer: Answer, status: int, seconds: float, client: str | None = None
    ) -> None:
        """One lookup: `asked` is the query's own text, `status` the face's code for it, `client` the address that it
        came from, empty for a Unix socket's."""
        self._lookups.labels(face, answer.state, answer.how).inc()
        self._seconds.labels(face, answer.how).observe(seconds)
        if self._log.isEnabledFor(logging.INFO):
            self._log.info(
                "lookup",
                extra={
                    "facts": {
                        "face": face,
                        **({} if client is None else {"client": self.identity(client) if client else "unix"}),
                        "query": self.identity(asked),
                        "state": str(answer.state),
                        "how": str(answer.how),
                        "certificates": len(answer.certificates),
                        "status": status,
                        "ms": round(seconds * 1000, 1),
                        "reason": answer.reason,
                    }
                },
            )

    def hits(self, face: str, name: Name, hits: int) -> None:
        """One query's answers from memory since the last call, in one line: a line for each would cost more than it."""
        if self._log.isEnabledFor(logging.INFO):
            facts = {"face": face, "query": self.identity(name.split(":", 2)[2]), "how": "HIT", "hits": hits}
            self._log.info("hits", extra={"facts": facts})

    def hot(self, face: str, count: int) -> None:
        """So many requests were answered from memory since the last call."""
        if count:
            self._hot.labels(face).inc(count)

    def upstream(self, upstream: str, outcome: str, seconds: float) -> None:
        """One outcome of one upstream."""
        self._upstream.labels(upstream, outcome).inc()
        self._upstream_seconds.labels(upstream).observe(seconds)

    def gauge(self, name: str, help_: str, read: Callable[[], float]) -> None:
        """A value read at every scrape."""
        gauge = Gauge(f"keyserver_{name}", help_, registry=self.registry)
        gauge.set_function(read)
        self._gauges[name] = gauge

    def identity(self, text: str) -> str:
        """An address, fingerprint or key ID as logs may show it."""
        if self._identities:
            return text
        return "#" + hmac.new(self._secret, text.encode(errors="replace"), hashlib.sha256).hexdigest()[:16]

    def exposition(self) -> bytes:
        """Prometheus text."""
        return generate_latest(self.registry)


@dataclass(frozen=True, slots=True)
class LogFormat:
    """How log lines look: `text` for people, `json` for machines."""

    json: bool

    def install(self, level: str) -> None:
        """Make this the only handler of the root logger, on stderr."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Json() if self.json else _Text())
        root = logging.getLogger()
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
