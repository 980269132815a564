"""What administration keeps beside the cache: tokens, sessions, and who did what.

Every line of these docstrings has its test in tests/conformance. It lies in the cache's database, so that nodes which
share that share this too. `Store.purge_all` leaves it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

MAX_ACTS = 100_000
"""Acts that are kept, refused sign-ins not counted; some more for a while."""

MAX_REFUSALS = 10_000
"""Refused sign-ins that are kept: strangers make those, and must not push out what administrators did."""

KEEP_ACTS = 400 * 86400
"""Seconds after which an act is tidied away, as new ones come: never more of them than those."""

FORGOTTEN = "forgotten"

MAX_SESSIONS = 50
"""Sessions of one token; a further one ends the oldest."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A further token of the admin listener. Times are Unix seconds."""

    id: str  # public: stands in the token itself
    name: str
    role: str
    digest: bytes  # SHA-256 of the whole token
    made_at: int
    made_by: str  # name of the token that made it


@dataclass(frozen=True, slots=True)
class StoredSession:
    """One signed-in browser. Times are Unix seconds."""

    digest: bytes  # SHA-256 of the cookie's octets
    token: str  # whose session it is: `StoredToken.id`, or the mark of the first operator's token
    begun_at: int
    used_at: int
    place: str  # where it was begun from


@dataclass(frozen=True, slots=True)
class StoredAct:
    """One act of an administrator, or a sign-in that was refused (`refusal`)."""

    at: int  # Unix seconds
    who: str
    way: str
    place: str
    act: str
    certificate: str = ""  # fingerprint, or empty
    facts: Mapping[str, object] = field(default_factory=dict)  # what JSON can say
    refusal: bool = False
    number: int = 0  # given by the store, growing; 0 before that


@dataclass(frozen=True, slots=True)
class ActFilter:
    """Which acts are meant; what is None does not matter."""

    who: str | None = None
    act: str | None = None
    certificate: str | None = None  # fingerprint
    since: int | None = None  # Unix seconds, inclusive
    until: int | None = None  # Unix seconds, exclusive


class Administration(Protocol):
    """Raises StoreError as `Store` does. Times are Unix seconds handed in by the caller."""

    async def add_token(self, token: StoredToken) -> bool:
        """Keep a token, durably; False where its name or id is taken, and then nothing changes."""

    async def tokens(self) -> Sequence[StoredToken]:
        """All of them, by name."""

    async def token(self, id_: str) -> StoredToken | None:
        """The one with this id."""

    async def revoke_token(self, name: str) -> bool:
        """Forget the token of this name and end its sessions, in one step; was there one?"""

    async def begin_session(self, session: StoredSession) -> None:
        """Keep a session. Of one token the latest 50 stay (by `begun_at`)."""

    async def session(self, digest: bytes) -> StoredSession | None:
        """The session with this digest, however old: who asks judges its age."""

    async def use_session(self, digest: bytes, at: int) -> None:
        """Note that a session is used; only ever forward, and nothing for one that has ended."""

    async def end_session(self, digest: bytes) -> bool:
        """End one; was there one?"""

    async def end_sessions(self, token: str) -> int:
        """End all sessions of a token; how many."""

    async def sessions(self) -> Mapping[str, int]:
        """How many sessions each token has, ended by age or not."""

    async def tidy_sessions(self, begun_before: int, used_before: int) -> int:
        """Forget sessions begun or last used before these instants; how many."""

    async def note(self, act: StoredAct) -> int:
        """Append an act; its number. Nothing changes or removes one but the bounds of this module, oldest first, and
        `forget`."""

    async def acts(self, what: ActFilter, limit: int, before: int | None = None) -> Sequence[StoredAct]:
        """The latest acts that match, latest first; `before`: of smaller numbers, so that later ones shift nothing."""

    async def forget(self, fact: str) -> int:
        """Put FORGOTTEN in the place of this text wherever it is a fact of an act; in how many acts."""
