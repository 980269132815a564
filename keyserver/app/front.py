"""A front process: HKP and LDAP listeners whose connections are answered from memory, or by the core."""

from __future__ import annotations

import asyncio
import collections
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from keyserver.app.listening import CORES_PART, DRAIN, Listeners, hot_gauges
from keyserver.clocks import Clocks
from keyserver.config import Config, Listening
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.http.connection import HttpLimits
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpServer
from keyserver.faces.ldap.connection import LdapLimits
from keyserver.listen.server import ListeningServer
from keyserver.listen.trust import Trust
from keyserver.model import Name
from keyserver.processes.control import Control, Message
from keyserver.processes.ldap import LdapFront
from keyserver.processes.ledger import Ledger
from keyserver.processes.news import Counter, Replica
from keyserver.processes.relay import Relay

NAMES_AT_ONCE = 1000  # in one report


@dataclass(frozen=True, slots=True)
class Setting:
    """What one front is made of. number: which it is. instance: our name in `Via`. bound: its sockets."""

    config: Config
    clocks: Clocks
    counter: Counter
    ledger: Ledger
    number: int
    instance: str
    bound: Mapping[Listening, Sequence[socket.socket]]


class _Asked(Protocol):
    def asked(self) -> dict[Name, int]: ...


class FrontProcess:
    """One front, in its loop."""

    def __init__(self, setting: Setting) -> None:
        config = setting.config
        limits = config.limits
        self._setting = setting
        self._clocks = setting.clocks
        setting.ledger.begin(setting.number)
        self._replica = Replica(setting.counter)
        self._relay = Relay(self._replica)
        self._listeners = Listeners(self._clocks.monotonic)
        self._stop = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None
        self._trust = Trust(limits.trusted, limits.proxies, limits.proxy_header)
        memory = config.cache.memory * (CORES_PART - 1) // CORES_PART // config.workers
        self._budget = MemoryLimit(memory, self._replica, self._clocks.now)
        self._http: list[HttpServer] = []
        self._ldap: list[LdapFront] = []

    async def run(self, control: Control) -> None:
        """Serve until told to stop. Raises CannotStart, OSError."""
        loop = asyncio.get_running_loop()
        control.listen(self._heard)
        stopped = loop.create_task(self._stop.wait())
        came = loop.create_task(self._relay.ready())
        await asyncio.wait((stopped, came), return_when=asyncio.FIRST_COMPLETED)
        came.cancel()
        if not self._stop.is_set():
            await self._open()
            control.tell({"ready": []})
        while not self._stop.is_set() and not self._relay.deserted:
            await asyncio.wait((stopped,), timeout=1.0)
            self._report()
        servers: tuple[ListeningServer[Any], ...] = (*self._http, *self._ldap)
        await asyncio.gather(*(server.close(DRAIN) for server in servers))
        self._report()

    def _heard(self, message: Message, files: list[int]) -> None:
        match message["do"]:
            case "connect":
                line, news = (socket.socket(fileno=file) for file in files)
                self._connecting = asyncio.get_running_loop().create_task(self._relay.connect(line, news))
            case "reload":
                self._listeners.reload()
            case "stop":
                self._stop.set()

    async def _open(self) -> None:
        make: Mapping[str, Callable[[str], ListeningServer[Any]]] = {"hkp": self._hkp, "ldap": self._ldap_face}
        servers: dict[str, ListeningServer[Any]] = {}
        for one, socks in self._setting.bound.items():
            if one.key not in servers:
                servers[one.key] = make[one.face](one.key)
                servers[one.key].share(self._setting.ledger.page(self._setting.number, one.key))
            for sock in socks:
                await servers[one.key].serve(one.listener, sock)

    def _hkp(self, key: str) -> HttpServer:
        config = self._setting.config
        server = HttpServer(
            self._relay.http(key),
            HotAnswers(self._budget),
            HttpLimits(config.limits.connections_per_client, self._trust),
            own=self._setting.instance,
            tls=self._listeners.tls(config.hkp.tls_certificate, config.hkp.tls_key_file),
        )
        self._http.append(server)
        return server

    def _ldap_face(self, key: str) -> LdapFront:
        config = self._setting.config
        server = LdapFront(
            self._relay,
            key,
            self._budget,
            LdapLimits(connections_per_client=config.limits.connections_per_client, trust=self._trust),
            tls=self._listeners.tls(config.ldap.tls_certificate, config.ldap.tls_key_file),
        )
        self._ldap.append(server)
        return server

    def _report(self) -> None:
        """Tell the core what was answered here."""
        hot = [server.hot for server in self._http]
        counted = [answers.counts() for answers in hot]
        counts = {
            **{name: read() for name, (_, read) in hot_gauges(self._budget, hot).items()},
            "hkp_hits": sum(c.hits + c.negative_hits for c in counted),
            "hkp_connections": sum(server.present for server in self._http),
            "hkp_refused": sum(server.refused for server in self._http),
            "ldap_hits": sum(one.hits for one in self._ldap),
            "ldap_connections": sum(one.present for one in self._ldap),
            "ldap_refused": sum(one.refused for one in self._ldap),
        }
        hkp, ldap = (list(_sum(sources).items()) for sources in (hot, self._ldap))
        for at in range(0, max(1, len(hkp), len(ldap)), NAMES_AT_ONCE):
            some: dict[str, Any] = {
                "counts": counts,
                "hkp_asked": dict(hkp[at : at + NAMES_AT_ONCE]),
                "ldap_asked": dict(ldap[at : at + NAMES_AT_ONCE]),
            }
            if not self._relay.count(some):
                return


def _sum(sources: Iterable[_Asked]) -> Mapping[Name, int]:
    """What all of them were asked for since the last time."""
    total: collections.Counter[Name] = collections.Counter()
    for source in sources:
        total.update(source.asked())
    return total
