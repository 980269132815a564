"""Invitations to the owners of cached certificates, and the consents that came of them.

Every line of these docstrings has its test in tests/conformance. They lie in the cache's database and outlive what they
are about: a consent stays on record. `Store.purge_all` leaves them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from keyserver.model import Kind, Source

MAX_INVITATIONS = 100_000
"""Invitations that are kept, those that were confirmed or withdrawn not counted: of the others the oldest make room, as
new ones come; some more for a while."""


class Stage(StrEnum):
    """What has become of an invitation. That it has expired is judged by its times, and is no stage."""

    PREPARED = "prepared"  # on record, not handed to the relay yet (or we were stopped while doing so)
    SENT = "sent"  # the relay has it
    FAILED = "failed"  # the relay did not take it: it does not count against the limits of its address
    BOUNCED = "bounced"  # the relay took it, and a mail server has returned it since; the link still works
    CONFIRMED = "confirmed"
    WITHDRAWN = "withdrawn"
    REPLACED = "replaced"  # by a later one for the same entry and address: its link works no more


OPEN = (Stage.PREPARED, Stage.SENT, Stage.BOUNCED)
"""Stages in which the link of an invitation can be followed."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation, for one address and one entry (contract, cache rule 1). Times are Unix seconds."""

    id: str  # public: 32 hex digits that nobody can guess, also in the mail's Message-ID
    address: str  # normalised
    fingerprint: str
    kind: Kind
    source: Source
    origin: str
    made_at: int
    made_by: str  # who invited: an administrator's name, or "automatic"
    expires_at: int  # from this instant on it can not be confirmed
    stage: Stage = Stage.PREPARED
    changed_at: int = 0  # when it came to this stage
    note: str = ""  # why it failed or bounced
    confirmed_at: int = 0  # 0: never; stays when the consent is withdrawn
    number: int = 0  # given by the store, growing; 0 before that


@dataclass(frozen=True, slots=True)
class Quota:
    """How many invitations may be made, those that failed not counted."""

    per_hour: int  # to anybody, in the last hour
    per_address: int  # to one address, in the last day
    per_domain: int  # to addresses of one domain, in the last hour


class Refused(StrEnum):
    """Why nothing was done; the text is for people."""

    UNKNOWN = "there is no such invitation"
    USED = "it has been used already"
    EXPIRED = "it has expired"
    REPLACED = "a later invitation has taken its place"
    WITHDRAWN = "the consent has been withdrawn"
    GONE = "the certificate that it was about is not known any more"
    BLOCKED = "the certificate that it was about is blocked"
    PER_HOUR = "as many invitations as may be sent in an hour have been sent"
    PER_ADDRESS = "this address has been invited within the last day"
    PER_DOMAIN = "as many invitations as may be sent to one domain in an hour have been sent"


class Invitations(Protocol):
    """Raises StoreError as `Store` does. Times are Unix seconds handed in by the caller, digests SHA-256 of tokens.

    Each method is one transaction: of two that race, on whatever node, one comes first and the other sees it."""

    async def prepare(self, invitation: Invitation, confirm: bytes, withdraw: bytes, quota: Quota) -> Refused | None:
        """Put a new invitation on record, durably, before anything is sent; None where that was done.

        confirm, withdraw: the digests of its two tokens. It begins as PREPARED, changed at its `made_at`, which is now.
        Refused, and then nothing changes: GONE where there is no such entry or it does not name the address, BLOCKED,
        and one of the PER_…: the quota is used up. What a wrong clock has made an hour or a day ahead does not count.
        An earlier open invitation of the same entry and address is replaced."""

    async def delivered(self, id_: str, now: int, failure: str = "") -> None:
        """The relay has taken it, or has not (`failure`: why). Nothing for one that has gone further meanwhile."""

    async def bounced(self, id_: str, now: int, why: str) -> bool:
        """It came back (`why` is the last one's); was there one whose link was open? Also one that the relay has
        taken without our knowing yet."""

    async def by_confirm(self, confirm: bytes) -> Invitation | None:
        """The one whose link this is; reads only."""

    async def by_withdraw(self, withdraw: bytes) -> Invitation | None:
        """The one whose withdrawal link this is; reads only."""

    async def confirm(self, confirm: bytes, now: int) -> Invitation | Refused:
        """Approve its entry for its address (as `Store.approve`), and put the consent on record: both or neither.

        Works once. UNKNOWN (also one that the relay did not take), USED, EXPIRED, REPLACED, WITHDRAWN, GONE where its
        entry was deleted or is cached as another now, or is not indexed under the address any more, BLOCKED."""

    async def withdraw(self, withdraw: bytes, now: int) -> Invitation | Refused:
        """Take the consent back and delete its entry, as `Store.delete` without an undo; what waits to be undone loses
        the entry too. Works once, at any time: also before it was confirmed (nobody can confirm it then) and when the
        entry is gone already. UNKNOWN, WITHDRAWN, REPLACED (it was never confirmed then)."""

    async def invitations(
        self, limit: int, before: int | None = None, address: str | None = None
    ) -> Sequence[Invitation]:
        """The latest, latest first; `before`: of smaller numbers, so that later ones shift nothing; `address`: to this
        one alone."""

    async def forget(self, address: str) -> int:
        """Erase all invitations to an address, and the consents that came of them; how many. Their links work no
        more."""
