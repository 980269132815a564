"""What the history has on record, in words for who runs a mail gateway. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keyserver.model import Kind
from keyserver.store.history import Event, Said, What

_TEXTS = {
    What.FIRST_SEEN: "came for the first time",
    What.CACHED: "cached again",
    What.RENEWED: "brought again, unchanged",
    What.MERGED: "its copy changed",
    What.REVOKED: "a revocation became known",
    What.HELD: "held until an administrator approves it",
    What.APPROVED: "approved",
    What.DELETED: "deleted",
    What.EXPIRED: "its time to live was over",
    What.UNDONE: "a delete was taken back",
    What.BLOCKED: "blocked: neither cached nor answered",
    What.UNBLOCKED: "no longer blocked",
    What.REPLACED: "answers now instead of another",
    What.PAUSED: "paused: not asked any more",
    What.RESUMED: "asked again",
    What.SETTINGS: "other settings came into force",
}


@dataclass(frozen=True, slots=True)
class EventResource:
    """One change. Times are Unix seconds; `last`: until when the same went on."""

    number: int
    at: int
    last: int
    what: str
    text: str  # the same in words, with what belongs to it
    fingerprint: str
    kind: str
    source: str
    origin: str
    address: str
    who: str  # an administrator; empty: the origin itself
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class WordResource:
    """What one upstream said to a question, unchanged from `since` to `last`."""

    kind: str
    upstream: str
    word: str  # found, absent, failed
    since: int
    last: int


def event_of(event: Event) -> EventResource:
    """As it is shown."""
    return EventResource(
        number=event.number,
        at=event.at,
        last=event.last,
        what=str(event.what),
        text=text_of(event),
        fingerprint=event.fingerprint,
        kind=str(event.kind or ""),
        source=str(event.source or ""),
        origin=event.origin,
        address=event.address,
        who=event.who,
        facts=event.facts,
    )


def word_of(kind: Kind, said: Said) -> WordResource:
    """As it is shown."""
    return WordResource(str(kind), said.upstream, str(said.word), said.since, said.last)


def text_of(event: Event) -> str:
    """What happened, in a sentence."""
    return "; ".join([_TEXTS[event.what], *_details(event)])


def _details(event: Event) -> Sequence[str]:
    facts = event.facts
    match event.what:
        case What.REPLACED:
            return [f"before it {facts.get('old')}", f"view {facts.get('view')}"]
        case What.SETTINGS:
            changed = facts.get("changed")
            named = ", ".join(map(str, changed)) if isinstance(changed, list) else ""
            return [f"changed: {named}"] if named else []
        case What.BLOCKED:
            return [str(facts["reason"])] if facts.get("reason") else []
        case What.HELD | What.APPROVED:
            return [f"for {event.address}"] if event.address else []
    return []
