"""Reading the audit: who did what, when and from where."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from keyserver.admin.acts import Acts
from keyserver.admin.problems import Unusable
from keyserver.store.administration import ActFilter, Administration, StoredAct

MAX_LISTED = 1000  # acts in one page
_PAGE = 500  # acts read at once while exporting


@dataclass(frozen=True, slots=True)
class ActResource:
    """One act. The certificate is a fingerprint; facts hold no addresses."""

    number: int
    at: int  # Unix seconds
    who: str
    way: str
    place: str
    act: str
    certificate: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Acts, latest first; `next` continues, None at the end."""

    acts: tuple[ActResource, ...]
    next: str | None


class Auditing:
    """The operations. Every method raises Problem and StoreError."""

    def __init__(self, kept: Administration, acts: Acts) -> None:
        self._kept = kept
        self._acts = acts

    async def list(self, what: ActFilter, limit: int = 100, cursor: str | None = None) -> AuditPage:
        """One page. What was noted before is in it."""
        if not 1 <= limit <= MAX_LISTED:
            raise Unusable(f"limit is {limit}; 1 to {MAX_LISTED} are accepted")
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise Unusable("cursor is none that a listing gave")
        await self._acts.written()
        rows = await self._kept.acts(what, limit + 1, int(cursor) if cursor is not None else None)
        more = str(rows[limit - 1].number) if len(rows) > limit else None
        return AuditPage(tuple(_shown(row) for row in rows[:limit]), more)

    async def export(self, what: ActFilter) -> AsyncIterator[ActResource]:
        """All that match, latest first."""
        await self._acts.written()
        before: int | None = None
        while rows := await self._kept.acts(what, _PAGE, before):
            for row in rows:
                yield _shown(row)
            before = rows[-1].number


def _shown(act: StoredAct) -> ActResource:
    return ActResource(act.number, act.at, act.who, act.way, act.place, act.act, act.certificate, act.facts)
