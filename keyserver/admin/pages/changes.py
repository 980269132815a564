"""What befell a certificate, as far as it is known, the latest first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from keyserver.admin.auditing import ActResource
from keyserver.admin.resources import CertificateResource

_WORDS: Mapping[str, str] = {
    "approve": "approved",
    "block": "blocked",
    "delete": "deleted",
    "invite": "its owner invited",
    "keep": "kept as local",
    "unblock": "unblocked",
}


@dataclass(frozen=True, slots=True)
class Befell:
    """One line: when (Unix seconds), what, and who did it."""

    at: int
    what: str
    who: str


def changes(shown: CertificateResource, acts: Iterable[ActResource]) -> Sequence[Befell]:
    """Its making, the last time that each entry was brought, and what administrators did to it."""
    found = []  # what comes first here is the later of what befell it in the same second
    for act in acts:
        facts = ", ".join(f"{name}: {value}" for name, value in act.facts.items())
        what = _WORDS.get(act.act, act.act)
        found.append(Befell(act.at, f"{what} ({facts})" if facts else what, act.who))
    found += [Befell(entry.cached_at, f"cached from {entry.source}: {entry.origin}", "") for entry in shown.entries]
    found.append(Befell(shown.created, "made", "its owner"))
    return sorted(found, key=lambda one: one.at, reverse=True)
