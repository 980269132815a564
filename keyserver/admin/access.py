"""Who may come in: roles, tokens and signed-in browsers.

A token is 256 random bits behind a public ID; the store has its SHA-256, which is enough for what nobody can guess. A
browser gets 32 random octets, and again the store has their SHA-256: whoever reads the database can sign in with none
of it. Both are looked up for each request, so that what is revoked on one node is revoked on all.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from cachetools import FIFOCache

from keyserver.admin.attempts import Attempts
from keyserver.store.administration import Administration, StoredSession, StoredToken
from keyserver.store.base import StoreError

FIRST = "admin"
"""Name of the first operator's token, the one in `admin.token_file`."""

IDLE = 3600  # seconds without a request that end a session
LONGEST = 12 * 3600  # seconds after which one ends whatever happens
USE = 60  # seconds between two notes that a session is used

_TOKEN = re.compile(r"ks_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_NOBODYS = bytes(32)
_SEEN = 1000  # digests of tokens that were right


class Role(StrEnum):
    """What somebody may do."""

    VIEWER = "viewer"  # read what is cached and known
    OPERATOR = "operator"  # change it, and ask upstreams

    def covers(self, wanted: Role) -> bool:
        """Is this role enough where that one is needed?"""
        return self is Role.OPERATOR or wanted is Role.VIEWER


class TooManyAttempts(Exception):
    """Too many tokens were wrong."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"too many tokens were wrong; try again in {max(1, round(wait))} s")
        self.wait = max(1, round(wait))  # seconds


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose token it is."""

    name: str
    role: Role
    token: str  # its ID, or the mark of the first operator's


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The token in `admin.token_file`. mark: stands for it where its sessions are kept; another token has another."""

    token: str
    mark: str


class Access:
    """clock: Unix seconds; monotonic: seconds. `holder` and `signed_in` raise StoreError where only the store knows."""

    def __init__(
        self, kept: Administration, first: FirstToken, clock: Callable[[], int], monotonic: Callable[[], float]
    ) -> None:
        if not first.token:
            raise ValueError("the admin API needs a token")
        self._kept = kept
        self._first = Holder(FIRST, Role.OPERATOR, first.mark)
        self._first_digest = digest_of(first.token)
        self._clock = clock
        self._attempts = Attempts(monotonic)
        self._right: FIFOCache[bytes, None] = FIFOCache(_SEEN)
        self._one = asyncio.Lock()

    async def holder(self, token: str, client: str) -> Holder | None:
        """Whose token this is, None where it is nobody's. Raises TooManyAttempts.

        client: the address that it comes from, empty for a Unix socket. What was right before is looked up at once;
        other tokens one at a time, so that many right ones together are never too many."""
        digest = digest_of(token)
        if digest in self._right and (found := await self._whose(token, digest)) is not None:
            return found
        async with self._one:
            if wait := self._attempts.take(client):
                raise TooManyAttempts(wait)
            try:
                found = await self._whose(token, digest)
            except StoreError:
                self._attempts.give_back(client)
                raise
            if found is not None:
                self._attempts.give_back(client)
                self._right[digest] = None
            return found

    async def _whose(self, token: str, digest: bytes) -> Holder | None:
        if hmac.compare_digest(digest, self._first_digest):
            return self._first
        shape = _TOKEN.fullmatch(token)
        stored = await self._kept.token(shape[1]) if shape else None
        right = hmac.compare_digest(digest, stored.digest if stored is not None else _NOBODYS)
        return _holder(stored) if stored is not None and right else None

    async def begin(self, holder: Holder, place: str) -> str:
        """Sign in: what the cookie says. Raises StoreError."""
        now = self._clock()
        octets = secrets.token_bytes(32)
        await self._kept.tidy_sessions(now - LONGEST, now - IDLE)
        await self._kept.begin_session(StoredSession(_digest(octets), holder.token, now, now, place))
        return base64.urlsafe_b64encode(octets).decode().rstrip("=")

    async def signed_in(self, cookie: str, *, use: bool = True) -> Holder | None:
        """Whose session a cookie means; None where it has ended. `use`: it counts as a sign of life."""
        digest = _digest_of_cookie(cookie)
        session = await self._kept.session(digest) if digest is not None else None
        if session is None:
            return None
        now = self._clock()
        if now - session.used_at >= IDLE or now - session.begun_at >= LONGEST:
            return None
        holder = await self._holder_of(session.token)
        if use and holder is not None and now - session.used_at >= USE:
            with contextlib.suppress(StoreError):  # what cannot be written may still be read
                await self._kept.use_session(session.digest, now)
        return holder

    async def _holder_of(self, token: str) -> Holder | None:
        if token == self._first.token:
            return self._first
        stored = await self._kept.token(token)
        return _holder(stored) if stored is not None else None

    async def valid(self, holder: Holder) -> bool:
        """Is this still so? For what lasts longer than a request."""
        return await self._holder_of(holder.token) == holder

    async def end(self, cookie: str) -> bool:
        """Sign out; was anybody signed in by that?"""
        digest = _digest_of_cookie(cookie)
        return digest is not None and await self._kept.end_session(digest)

    async def end_all(self, holder: Holder) -> int:
        """Sign out everywhere: end all sessions of a token; how many."""
        return await self._kept.end_sessions(holder.token)

    @property
    def first(self) -> Holder:
        """The holder of the token in `admin.token_file`."""
        return self._first


def new_token() -> tuple[str, str]:
    """A fresh token, and its ID."""
    id_ = secrets.token_hex(4)
    return f"ks_{id_}_{secrets.token_urlsafe(32)}", id_


def digest_of(token: str) -> bytes:
    """SHA-256 of a token."""
    return _digest(token.encode("utf-8", "surrogateescape"))


def _digest(octets: bytes) -> bytes:
    return hashlib.sha256(octets).digest()


def _digest_of_cookie(cookie: str) -> bytes | None:
    try:
        octets = base64.b64decode(cookie + "=", b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return _digest(octets) if len(octets) == 32 else None


def _holder(stored: StoredToken) -> Holder:
    return Holder(stored.name, Role(stored.role), stored.id)
