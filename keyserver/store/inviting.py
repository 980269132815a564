"""Invitations on their way into a row and out of it, and when their links work, whatever the store. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keyserver.model import Kind, Name, Source
from keyserver.query import name_of
from keyserver.store.invitations import OPEN, Invitation, Quota, Refused, Stage

HOUR, DAY = 3600, 86400
TIDIED = 64  # invitations between two looks at the bound

COLUMNS = (
    *("id", "address", "fingerprint", "kind", "source", "origin", "made_at", "made_by", "expires_at"),
    *("stage", "changed_at", "note", "confirmed_at"),
)
"""All but the number, and the digests, which nobody reads."""

IS_OPEN = "stage IN (" + ", ".join(f"'{stage}'" for stage in OPEN) + ")"
IS_IDLE = "stage NOT IN ('confirmed', 'withdrawn')"
"""Of these only so many are kept; as its index has it."""

_UNCONFIRMABLE = {
    Stage.CONFIRMED: Refused.USED,
    Stage.REPLACED: Refused.REPLACED,
    Stage.WITHDRAWN: Refused.WITHDRAWN,
    Stage.FAILED: Refused.UNKNOWN,
}
_IRREVOCABLE = {Stage.WITHDRAWN: Refused.WITHDRAWN, Stage.REPLACED: Refused.REPLACED}


def begun(invitation: Invitation) -> Invitation:
    """As `Invitations.prepare` puts it on record."""
    return replace(invitation, stage=Stage.PREPARED, changed_at=invitation.made_at, note="", confirmed_at=0, number=0)


def row_of(invitation: Invitation) -> tuple[str | int, ...]:
    """Its `COLUMNS`."""
    values = (getattr(invitation, column) for column in COLUMNS)
    return tuple(str(value) if isinstance(value, Kind | Source | Stage) else value for value in values)


def invitation_of(row: Sequence[Any]) -> Invitation:
    """From `COLUMNS` and the number."""
    named = dict(zip((*COLUMNS, "number"), row, strict=True))
    kind, source, stage = Kind(named.pop("kind")), Source(named.pop("source")), Stage(named.pop("stage"))
    return Invitation(**named, kind=kind, source=source, stage=stage)


def named(invitation: Invitation) -> Name:
    """What its entry is indexed under for as long as it names the address."""
    return name_of(invitation.kind, "addr", invitation.address)


def suffix(invitation: Invitation) -> str:
    """How every address of its domain ends."""
    return f"@{invitation.address.rpartition('@')[2]}"


def over(quota: Quota, address: int, domain: int, hour: int) -> Refused | None:
    """What of the quota is used up, given what there has been already within its times."""
    if address >= quota.per_address:
        return Refused.PER_ADDRESS
    if domain >= quota.per_domain:
        return Refused.PER_DOMAIN
    return Refused.PER_HOUR if hour >= quota.per_hour else None


def unconfirmable(invitation: Invitation, now: int) -> Refused | None:
    """Why its link does not work (any more), its entry aside."""
    if invitation.stage not in OPEN:
        return _UNCONFIRMABLE[invitation.stage]
    return Refused.EXPIRED if now >= invitation.expires_at else None


def irrevocable(invitation: Invitation) -> Refused | None:
    """Why its withdrawal link does not work (any more)."""
    return _IRREVOCABLE.get(invitation.stage)


def confirmed(invitation: Invitation, now: int) -> Invitation:
    """As it is with the consent on record."""
    return replace(invitation, stage=Stage.CONFIRMED, changed_at=now, confirmed_at=now)


def withdrawn(invitation: Invitation, now: int) -> Invitation:
    """As it is with the consent taken back."""
    return replace(invitation, stage=Stage.WITHDRAWN, changed_at=now)
