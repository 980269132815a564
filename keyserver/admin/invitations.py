"""Inviting owners of cached certificates, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keyserver.admin.acts import ACTOR, Acts
from keyserver.admin.approving import EntryChoice
from keyserver.admin.problems import NotKnown, Refusal, Unusable
from keyserver.admin.service import Service
from keyserver.invite.inviting import Inviting
from keyserver.invite.problem import NotInvited
from keyserver.model import Entry, Source
from keyserver.query import parse_address
from keyserver.store.base import Store
from keyserver.store.invitations import OPEN, Invitation

MAX_LISTED = 1000  # invitations in one page
EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class InvitationResource:
    """One invitation. Times are Unix seconds."""

    id: str  # also in the Message-ID of its mail
    number: int  # 0 where it has just been made
    address: str
    fingerprint: str
    kind: str
    source: str
    origin: str
    made_at: int
    made_by: str
    expires_at: int
    stage: str  # prepared, sent, failed, bounced, confirmed, withdrawn, replaced; expired: nobody did in time
    changed_at: int  # when it came to its stage; of one that has expired, the one before
    note: str  # why it failed or bounced
    confirmed_at: int | None


@dataclass(frozen=True, slots=True)
class InvitationPage:
    """Invitations, latest first; `next` continues, None at the end."""

    invitations: tuple[InvitationResource, ...]
    next: str | None


class Invitations:
    """The operations. Every method raises Problem and StoreError."""

    def __init__(
        self, *, service: Service, inviting: Inviting, store: Store, acts: Acts, clock: Callable[[], int]
    ) -> None:
        self._service = service
        self._inviting = inviting
        self._store = store
        self._acts = acts
        self._clock = clock

    @property
    def possible(self) -> bool:
        """Can anybody be invited here?"""
        return self._inviting.possible

    async def invite(
        self, address: str, fingerprint: str | None = None, source: Source | None = None, upstream: str | None = None
    ) -> InvitationResource:
        """Invite the owner of the one entry that is meant; Ambiguous and Undecided as `Service.approve`."""
        wanted = _address(address)
        meant = await self._service.meant(fingerprint or wanted, wanted, source, upstream)
        try:
            made = await self._inviting.invite(await self._entry(meant), wanted, ACTOR.get().who)
        except NotInvited as problem:
            self._note(meant.fingerprint, meant.source, wanted, "no")
            raise Refusal(str(problem)) from problem
        self._note(meant.fingerprint, meant.source, wanted, "yes")
        return shown(made, self._clock())

    async def list(self, limit: int = 100, cursor: str | None = None, address: str | None = None) -> InvitationPage:
        """One page."""
        if not 1 <= limit <= MAX_LISTED:
            raise Unusable(f"limit is {limit}; 1 to {MAX_LISTED} are accepted")
        if cursor is not None and not (cursor.isascii() and cursor.isdigit() and len(cursor) < 19):
            raise Unusable("cursor is none that a listing gave")
        wanted = _address(address) if address else None
        before = int(cursor) if cursor is not None else None
        rows = await self._store.invitations.invitations(limit + 1, before, wanted)
        more = str(rows[limit - 1].number) if len(rows) > limit else None
        now = self._clock()
        return InvitationPage(tuple(shown(row, now) for row in rows[:limit]), more)

    async def _entry(self, meant: EntryChoice) -> Entry:
        snapshot = await self._store.certificate(meant.fingerprint)
        for entry in snapshot.entries:
            if (entry.source, entry.origin) == (meant.source, meant.origin):
                return entry
        raise NotKnown(f"{meant.fingerprint} was deleted at the same moment")

    def _note(self, fingerprint: str, source: str, address: str, sent: str) -> None:
        self._acts.note("invite", fingerprint, source=source, address=self._acts.identity(address), sent=sent)


def shown(invitation: Invitation, now: int) -> InvitationResource:
    """As administrators see it at this instant."""
    over = invitation.stage in OPEN and invitation.expires_at <= now
    return InvitationResource(
        id=invitation.id,
        number=invitation.number,
        address=invitation.address,
        fingerprint=invitation.fingerprint,
        kind=invitation.kind.value,
        source=invitation.source.value,
        origin=invitation.origin,
        made_at=invitation.made_at,
        made_by=invitation.made_by,
        expires_at=invitation.expires_at,
        stage=EXPIRED if over else invitation.stage.value,
        changed_at=invitation.changed_at,
        note=invitation.note,
        confirmed_at=invitation.confirmed_at or None,
    )


def _address(text: str) -> str:
    address = parse_address(text.strip())
    if address is None:
        raise Unusable(f"address is {text[:80]!r}; accepted is an address such as alice@example.org")
    return address
