"""Further tokens of the admin listener: made, listed, revoked."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keyserver.admin.access import FIRST, Access, Role, digest_of, new_token
from keyserver.admin.acts import ACTOR, Acts
from keyserver.admin.problems import NotKnown, Refusal, Unusable
from keyserver.store.administration import Administration, StoredToken

MAX_TOKENS = 1000

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._@-]{0,62}[A-Za-z0-9])?")


@dataclass(frozen=True, slots=True)
class TokenResource:
    """A token as it may be shown."""

    name: str
    role: str
    id: str
    made_at: int | None  # Unix seconds; None: the first operator's, by whoever installed us
    made_by: str
    sessions: int  # browsers signed in with it


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A new token, this once with its secret."""

    name: str
    role: str
    id: str
    token: str


class Tokens:
    """The operations. clock: Unix seconds. Every method raises Problem and StoreError."""

    def __init__(self, kept: Administration, access: Access, acts: Acts, clock: Callable[[], int]) -> None:
        self._kept = kept
        self._access = access
        self._acts = acts
        self._clock = clock

    async def list(self) -> Sequence[TokenResource]:
        """All of them; the first operator's is the one in `admin.token_file`."""
        sessions = await self._kept.sessions()
        first = self._access.first
        rows = [TokenResource(FIRST, first.role, "", None, "", sessions.get(first.token, 0))]
        for token in await self._kept.tokens():
            count = sessions.get(token.id, 0)
            rows.append(TokenResource(token.name, token.role, token.id, token.made_at, token.made_by, count))
        return rows

    async def add(self, name: str, role: str) -> MadeToken:
        """Make a token; nobody is ever shown it again."""
        if not _NAME.fullmatch(name):
            raise Unusable(
                f"name is {name[:80]!r}; accepted are 1 to 64 letters, digits, spaces and . _ @ -, a letter or digit"
                " at both ends"
            )
        if role not in list(Role):
            raise Unusable(f"role is {role[:80]!r}; accepted are {', '.join(Role)}")
        if name == FIRST:
            raise Refusal(f"{FIRST} is the name of the token in admin.token_file; accepted is another one")
        if len(await self._kept.tokens()) >= MAX_TOKENS:
            raise Refusal(f"there are {MAX_TOKENS} tokens already: revoke one first")
        token, id_ = new_token()
        stored = StoredToken(id_, name, role, digest_of(token), self._clock(), ACTOR.get().who)
        if not await self._kept.add_token(stored):
            raise Refusal(f"a token named {name} exists already: revoke it first, or choose another name")
        self._acts.note("token add", token=name, role=role)
        return MadeToken(name, role, id_, token)

    async def revoke(self, name: str) -> None:
        """Revoke a token; whoever is signed in with it is no longer."""
        if name == FIRST:
            raise Refusal("the first operator's token is revoked by changing admin.token_file and starting anew")
        if not await self._kept.revoke_token(name):
            raise NotKnown(f"no token is named {name[:80]}")
        self._acts.note("token revoke", token=name)
