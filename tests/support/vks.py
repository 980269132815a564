"""A verifying keyserver as keys.openpgp.org describes its interface and its limits, over TLS.

::

    async with Vks(authority) as server:
        alice = server.add([ALICE, OTHER], verified=[ALICE], seed="alice")
        ...                                     # server.url == "vks://127.0.0.1:<port>"
        assert server.asked("by-email") == ["alice@example.org"]

Its limits are the published ones without the burst that the real one allows: by address one question a minute, then
429; by fingerprint and key ID five a second, more wait. User IDs are given out only where their owner has verified
the address: a certificate may come without any.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from support.openpgp import Made, make
from support.scripted import Request, Scripted, key, reply
from support.tls import Authority

_NAMES = {"by-fingerprint": re.compile(r"(?:[0-9A-F]{40}|[0-9A-F]{64})\Z"), "by-keyid": re.compile(r"[0-9A-F]{16}\Z")}
MINUTE = 60.0
A_SECOND = 5  # questions by fingerprint or key ID


@dataclass(frozen=True)
class Held:
    """One certificate of the server's."""

    names: frozenset[str]  # fingerprints and key IDs of the primary key and the subkeys
    addresses: frozenset[str]  # verified, in lower case
    given: bytes  # without the user IDs that are not verified


class Vks:
    """The server. `statuses` are those of its answers; `by_name_at`: when it was asked by fingerprint or key ID."""

    def __init__(self, authority: Authority) -> None:
        self._held: list[Held] = []
        self._by_address_at = -MINUTE
        self._server = Scripted({"*": self._answer}, tls=authority.server("127.0.0.1"))
        self.statuses: list[int] = []
        self.by_name_at: list[float] = []

    async def __aenter__(self) -> Vks:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop()

    async def stop(self) -> None:
        """Unplugged."""
        await self._server.stop()

    @property
    def url(self) -> str:
        """Its URL as an upstream."""
        return f"vks://127.0.0.1:{self._server.port}"

    def asked(self, way: str) -> list[str]:
        """What it was asked for, `by-email`, `by-fingerprint` or `by-keyid`."""
        return [r.term for r in self._server.requests if r.target.startswith(f"/vks/v1/{way}/")]

    def add(self, user_ids: Sequence[str], *, verified: Sequence[str], seed: str, **options: Any) -> Made:
        """Hold a certificate, and give it out with those user IDs alone that are verified; the whole one."""
        whole = make(user_ids, seed=seed, **options)
        names = {name for key in (whole.primary, *whole.subkeys) for name in (key.fingerprint, key.key_id)}
        addresses = {user_id.partition("<")[2].rstrip(">").lower() for user_id in verified}
        given = make(verified, seed=seed, **options).octets
        self._held.append(Held(frozenset(names), frozenset(addresses), given))
        return whole

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool | None:
        way, _, value = request.target.removeprefix("/vks/v1/").partition("/")
        status, found = await self._look(way, unquote(value))
        self.statuses.append(status)
        text = {429: "Too many requests", 404: "No key found", 400: "Invalid query"}.get(status, "")
        return await (key(*found) if found else reply(status, text, Content_Type="text/plain"))(request, writer)

    async def _look(self, way: str, value: str) -> tuple[int, list[bytes]]:
        now = time.monotonic()
        if way == "by-email":
            if now - self._by_address_at < MINUTE:
                return 429, []
            self._by_address_at = now
            found = [held.given for held in self._held if value.lower() in held.addresses]
        elif way not in _NAMES:
            return 404, []
        else:
            self.by_name_at.append(now)
            lately = [at for at in self.by_name_at if now - at < 1]
            if len(lately) > A_SECOND:
                await asyncio.sleep(len(lately) / A_SECOND)
            if not _NAMES[way].match(value):
                return 400, []
            found = [held.given for held in self._held if value in held.names]
        return 200 if found else 404, found
