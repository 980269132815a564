"""An event as others are told of it, and how what is sent is signed. Pure.

docs/events.md says how a receiver checks it."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping

from keyserver.store.history import Event

EVENT_ID, TIMESTAMP, SIGNATURE = "X-Keyserver-Event-Id", "X-Keyserver-Timestamp", "X-Keyserver-Signature"

_MORE = ("old", "view", "changed")
"""Facts that go with an event: of a replacement the certificate before and where, of settings which are others."""


def told(event: Event, identity: Callable[[str], str] = str) -> dict[str, object]:
    """What JSON says of it. identity: how addresses and fingerprints may stand there."""

    def shown(text: str) -> str:
        return identity(text) if text else ""

    said: dict[str, object] = {
        "id": event.number,
        "at": event.at,
        "what": event.what.value,
        "fingerprint": shown(event.fingerprint),
        "kind": event.kind.value if event.kind else "",
        "source": event.source.value if event.source else "",
        "origin": event.origin,
        "address": shown(event.address),
        "who": event.who,
    }
    said |= {name: event.facts[name] for name in _MORE if name in event.facts}
    if "old" in said:
        said["old"] = shown(str(said["old"]))
    return said


def body_of(said: Mapping[str, object]) -> bytes:
    """The octets that are sent, and signed."""
    return json.dumps(said, ensure_ascii=True).encode()


def signed(secret: bytes, number: int, at: int, body: bytes) -> dict[str, str]:
    """The headers that go with a body. HMAC-SHA256 (RFC 2104) over time, number and body: neither can be another's."""
    name, stamp = str(number), str(at)
    digest = hmac.new(secret, b".".join((stamp.encode(), name.encode(), body)), hashlib.sha256).hexdigest()
    return {EVENT_ID: name, TIMESTAMP: stamp, SIGNATURE: f"sha256={digest}"}
