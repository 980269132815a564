"""One POST to a URL that the administrator names: every bound, and an answer whatever happens.

It may be inside: nobody else chooses it, and no redirect is followed. TLS is checked by the system's authorities."""

from __future__ import annotations

import asyncio
import email.utils
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

import aiohttp
from yarl import URL

from keyserver import __version__
from keyserver.upstreams.http.addresses import Addresses
from keyserver.upstreams.http.client import explain
from keyserver.upstreams.http.kept import MAX_HEADERS, MAX_LINE
from keyserver.upstreams.net import Names

TIME = 10.0  # seconds for all of it
READ = 64 << 10  # octets of an answer that are read, so that its connection can be kept
READING = 1.0  # seconds that they may take: by then it has been said what became of it
KEPT = 4.0  # seconds that a connection is kept: less than servers usually do
LONGEST_WAIT = 3600  # seconds that an answer may make us wait (Retry-After)
_HEADERS = {"User-Agent": f"keyserver/{__version__}", "Content-Type": "application/json", "Accept-Encoding": "identity"}


class Became(StrEnum):
    """What became of a POST."""

    DELIVERED = "delivered"  # 2xx
    REFUSED = "refused"  # another status
    FAILED = "failed"  # no answer


@dataclass(frozen=True, slots=True)
class Posted:
    """The same, with why (it names neither host nor event), and how long the other side asks us to wait, in seconds."""

    became: Became
    why: str = ""
    wait: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """Where events go, and the secret by which they are signed."""

    url: str
    secret: bytes


class Poster:
    """Keeps one connection. clock: Unix seconds, for dates in Retry-After; time: seconds for all of one POST."""

    def __init__(self, clock: Callable[[], int], names: Names | None = None, time: float = TIME) -> None:
        self._clock = clock
        self._names = names or Names()
        self._time = time
        self._session: tuple[str, aiohttp.ClientSession] | None = None
        self._tls: ssl.SSLContext | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        """Raises nothing but CancelledError."""
        try:
            async with asyncio.timeout(self._time):
                session = await self._session_for(url)
                tls = await self._tls_context() if url.startswith("https:") else True
                sending = session.post(
                    URL(url, encoded=True), headers={**_HEADERS, **headers}, data=body, allow_redirects=False, ssl=tls
                )
                async with sending as response:
                    await _read(response)
                    return self._judged(response)
        except Exception as error:  # whatever a client library may raise: the border of this layer is a Posted
            return Posted(Became.FAILED, explain(error).reason)

    async def close(self) -> None:
        """Close the connection."""
        if self._session is not None:
            (_, session), self._session = self._session, None
            await session.close()

    def _judged(self, response: aiohttp.ClientResponse) -> Posted:
        if 200 <= response.status < 300:
            return Posted(Became.DELIVERED)
        wait = _seconds(response.headers.get("Retry-After", ""), self._clock())
        return Posted(Became.REFUSED, f"it answered {response.status}", wait)

    async def _session_for(self, url: str) -> aiohttp.ClientSession:
        if self._session is not None and self._session[0] == url:
            return self._session[1]
        await self.close()
        addresses = Addresses(
            self._names,
            guarded=False,
            allow_private=True,
            written=URL(url, encoded=True).raw_host or "",
            service="",
            seen=lambda host, found: None,
        )
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=addresses, use_dns_cache=False, limit=1, keepalive_timeout=KEPT),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
        )
        self._session = url, session
        return session

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:  # reading the system's authorities takes a while
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        return self._tls


async def _read(response: aiohttp.ClientResponse) -> None:
    """What an answer says beside its head is passed over; one that is too long, slow or broken costs its connection."""
    left = READ
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(READING):
            async for chunk in response.content.iter_any():
                left -= len(chunk)
                if left < 0:
                    break
            else:
                return
    response.close()


def _seconds(text: str, now: int) -> int:
    """What Retry-After (RFC 9110 section 10.2.3) says, seconds or a date, within bounds; 0 for nothing."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:10]), LONGEST_WAIT)
    try:
        at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return 0
    return max(0, min(int(at) - now, LONGEST_WAIT))
