"""Where the HTTP client connects to: to guarded addresses alone, by name or by SRV records."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

from aiohttp.abc import AbstractResolver, ResolveResult
from cachetools import FIFOCache

from keyserver.upstreams.net import Names, NoSuchHost, NotPublic, Service
from keyserver.upstreams.trouble import routed

SRV_KEPT = 300.0  # seconds
SRV_HOSTS = 1000  # whose records are remembered


class Addresses(AbstractResolver):
    """What aiohttp connects to: the guarded addresses of a host, or of its SRV targets; TLS keeps the host's name."""

    def __init__(
        self,
        names: Names,
        *,
        guarded: bool,
        allow_private: bool,
        written: str,
        service: str,
        seen: Callable[[str, Sequence[str]], None],
    ) -> None:
        """`written` in full in the configuration; `seen` is told what a host resolved to."""
        self._names = names
        self._guarded = guarded
        self._allow_private = allow_private
        self._written = written
        self._service = service
        self._seen = seen
        self._services: FIFOCache[str, tuple[float, tuple[Service, ...]]] = FIFOCache(SRV_HOSTS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a host that we have a route to, best first."""
        found = await self._by_services(host)
        if not found:
            in_full = not self._guarded and host == self._written
            addresses = await self._names.guarded_addresses(host, port, not self._guarded, in_full=in_full)
            found = [(address, port) for address in addresses]
        self._seen(host, [address for address, _ in found])
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=at,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address, at in routed(found)
        ]

    async def close(self) -> None: ...

    async def _by_services(self, host: str) -> list[tuple[str, int]]:
        """Addresses and ports of a host's SRV targets; none without SRV records, and where the records of a host
        written in full lead inside: then its own address is what the administrator meant."""
        targets = await self._targets(host)
        every = await asyncio.gather(
            *(self._names.guarded_addresses(t.host, t.port, self._allow_private) for t in targets),
            return_exceptions=True,
        )
        found = [(a, t.port) for t, one in zip(targets, every, strict=True) if isinstance(one, tuple) for a in one]
        problems = [one for one in every if isinstance(one, BaseException)]
        if found or not problems:
            return found
        if host == self._written and any(isinstance(problem, NotPublic) for problem in problems):
            return []
        raise next((problem for problem in problems if not isinstance(problem, NoSuchHost)), problems[0])

    async def _targets(self, host: str) -> tuple[Service, ...]:
        """SRV targets of a keyserver pool, as GnuPG looks for them; remembered for some minutes."""
        if not self._service:
            return ()
        now = asyncio.get_running_loop().time()
        until, services = self._services.get(host, (0.0, ()))
        if now >= until:
            services = (await self._names.services(f"{self._service}.{host}"))[:4]
            self._services[host] = (now + SRV_KEPT, services)
        if services and all(s.host == "." for s in services):
            raise NoSuchHost("its domain says that there is no keyserver")
        return tuple(s for s in services if s.host != ".")
