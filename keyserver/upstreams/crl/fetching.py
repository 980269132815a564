"""Fetches a revocation list by HTTP or LDAP, with the clients and bounds of upstreams; nothing of it is believed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from yarl import URL

from keyserver.model import Absent, Failed, Found, Kind, Outcome, Raw
from keyserver.upstreams.base import Asking
from keyserver.upstreams.crl import HttpPlace, LdapPlace, parse_url
from keyserver.upstreams.http.client import Client
from keyserver.upstreams.net import Names, NoSuchHost
from keyserver.upstreams.verdict import GOOD, by_status, unpacked

SECONDS = 120.0
"""For one list, with everything that belongs to it: the largest comes at 5 Mbit/s."""

_ROOM = 1 << 16  # octets of an LDAP answer beside the list


class FetchFailed(Exception):
    """It could not be had; the text says why, as a clause about the server."""


class Source(Protocol):
    """One list's place."""

    async def fetch(self) -> bytes:
        """What lies there, be it a list or not. Raises FetchFailed, within SECONDS."""

    async def close(self) -> None:
        """Close all connections."""


def open_source(
    url: str,
    most: int,
    via: str,
    monotonic: Callable[[], float],
    *,
    names: Names | None = None,
    seconds: float = SECONDS,
) -> Source:
    """By the URL's scheme. most: octets of the list; via: our own name in `Via`. Raises ValueError."""
    place = parse_url(url)
    if isinstance(place, HttpPlace):
        return _Http(place, most, via, names or Names(), seconds)
    return _Ldap(place, most, monotonic, names or Names(), seconds)


class _Http:
    """A redirect leads to the same host, or to a public address."""

    def __init__(self, place: HttpPlace, most: int, via: str, names: Names, seconds: float) -> None:
        self._url = URL(place.url, encoded=True)
        self._client = Client(names=names, host=place.host, most=most)
        self._most = most
        self._via = via
        self._seconds = seconds

    async def fetch(self) -> bytes:
        outcome = await self._client.ask(self._url, Asking(self._seconds, self._via), self._judge)
        if not isinstance(outcome, Found):
            raise FetchFailed(outcome.reason)
        return outcome.raw[0].octets

    async def close(self) -> None:
        await self._client.close()

    def _judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        if status not in GOOD:
            said = by_status(status, headers, 0)
            return Failed(said.reason if isinstance(said, Absent | Failed) else f"it answered {status}")
        content = unpacked(headers, body, self._most)
        return content if isinstance(content, Failed) else Found((Raw(Kind.X509, content),))


class _Ldap:
    """A connection for each time: there are hours between two."""

    def __init__(
        self, place: LdapPlace, most: int, monotonic: Callable[[], float], names: Names, seconds: float
    ) -> None:
        self._place = place
        self._most = most
        self._monotonic = monotonic
        self._names = names
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, "crl")

    async def fetch(self) -> bytes:
        from keyserver.upstreams.ldap.link import LinkError

        try:
            async with asyncio.timeout(self._seconds):
                return await self._ask(self._monotonic() + self._seconds)
        except LinkError as problem:
            raise FetchFailed(problem.reason) from None
        except NoSuchHost as problem:
            raise FetchFailed(str(problem)) from None
        except TimeoutError:
            raise FetchFailed("it did not answer completely in time") from None

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, end: float) -> bytes:
        from keyserver.upstreams.ldap.connecting import connect
        from keyserver.upstreams.ldap.link import Entrance, Link

        place = self._place
        sock = await connect(self._names, place.host, place.port, end, self._monotonic)
        link = Link(sock, place.host, self._monotonic)

        def work() -> bytes:
            link.arm(end, self._most + _ROOM)
            link.enter(Entrance(ssl.create_default_context() if place.tls else None))
            result = link.search(place.dn, "BASE", place.filter, [place.attribute])
            if result.code:
                raise FetchFailed(f"it answered with {result.reason}")
            return _value(result.entries, place.attribute)

        job = self._thread.submit(work)
        try:
            return await asyncio.wrap_future(job)
        finally:
            job.cancel()
            link.cut()  # a thread that is left behind ends at once, whatever the other side does
            job.add_done_callback(lambda _: link.close())


def _value(entries: tuple[dict[str, list[bytes]], ...], attribute: str) -> bytes:
    """The one value of the attribute, whatever options stand behind its name. Raises FetchFailed."""
    base = attribute.partition(";")[0].lower()
    for entry in entries:
        for name, values in entry.items():
            if name.partition(";")[0] == base and values:
                return values[0]
    raise FetchFailed(f"there is no {attribute}")
