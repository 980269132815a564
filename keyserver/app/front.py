"""A front process: listeners whose connections are answered from memory, or by the core."""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from keyserver.app.listening import CORES_PART, DRAIN, Listeners
from keyserver.app.log import install_log
from keyserver.app.metrics import memory_values
from keyserver.clocks import Clocks
from keyserver.config import Config, Listening
from keyserver.faces.cache import MemoryLimit
from keyserver.listen.trust import Trust
from keyserver.model import Change, Name
from keyserver.processes.agreed import Agreed
from keyserver.processes.control import Control, Message
from keyserver.processes.front import FrontFace, FrontOpening
from keyserver.processes.ledger import Ledger
from keyserver.processes.news import Counter, Replica
from keyserver.processes.register import BY_FACE
from keyserver.processes.relay import Relay

NAMES_AT_ONCE = 1000  # in one report


@dataclass(frozen=True, slots=True)
class Setting:
    """What one front is made of. number: which it is. instance: our name in `Via`. bound: its sockets."""

    config: Config
    clocks: Clocks
    counter: Counter
    agreed: Agreed
    ledger: Ledger
    number: int
    instance: str
    bound: Mapping[Listening, Sequence[socket.socket]]


def agreed_on(agreed: Agreed, config: Config) -> tuple[int, Config]:
    """The configuration that all processes go by, and its number; `config` where that is still the one of the start."""
    number, octets = agreed.read()
    return number, pickle.loads(octets) if octets else config  # noqa: S301 - from the core, which is ours


class FrontProcess:
    """One front, in its loop."""

    def __init__(self, setting: Setting) -> None:
        self._agreed, config = agreed_on(setting.agreed, setting.config)
        limits = config.limits
        self._config = config
        self._setting = setting
        self._clocks = setting.clocks
        setting.ledger.begin(setting.number)
        self._replica = Replica(setting.counter)
        self._replica.subscribe(self._changed)
        self._relay = Relay(self._replica)
        self._listeners = Listeners(self._clocks.monotonic)
        self._stop = asyncio.Event()
        self._connecting: asyncio.Task[None] | None = None
        self._trust = Trust(limits.trusted, limits.proxies, limits.proxy_header)
        memory = config.cache.memory * (CORES_PART - 1) // CORES_PART // config.workers
        self._budget = MemoryLimit(memory, self._replica, self._clocks.now)
        self._faces: dict[str, list[FrontFace]] = {}  # by name, one for each view

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
        await asyncio.gather(*(face.server.close(DRAIN) for faces in self._faces.values() for face in faces))
        self._report()
        self._relay.close()

    def _heard(self, message: Message, files: list[int]) -> None:
        match message["do"]:
            case "connect":
                line, news = (socket.socket(fileno=file) for file in files)
                self._connecting = asyncio.get_running_loop().create_task(self._relay.connect(line, news))
            case "stop":
                self._stop.set()

    def _changed(self, change: Change) -> None:
        """Another configuration comes with a change of everything, after which nothing is known here."""
        if change.everything and self._setting.agreed.number != self._agreed:
            asyncio.get_running_loop().call_soon(self._agree)

    def _agree(self) -> None:
        """Go by it, and say so."""
        before = self._config
        self._agreed, config = agreed_on(self._setting.agreed, before)
        self._config = config
        limits = config.limits
        self._trust.change(limits.trusted, limits.proxies, limits.proxy_header)
        for faces in self._faces.values():
            for face in faces:
                face.server.limit(limits.connections_per_client)
        self._listeners.read_certificates(config)
        if before.log != config.log:
            install_log(config)
        self._report()

    async def _open(self) -> None:
        opened: dict[str, FrontFace] = {}
        for one, socks in self._setting.bound.items():
            if one.key not in opened:
                face = opened[one.key] = BY_FACE[one.face].open(self._opening(one))
                self._faces.setdefault(one.face, []).append(face)
                face.server.share(self._setting.ledger.page(self._setting.number, one.key))
            for sock in socks:
                await opened[one.key].server.serve(one.listener, sock)

    def _opening(self, one: Listening) -> FrontOpening:
        return FrontOpening(
            config=self._config,
            place=one.key,
            relay=self._relay,
            budget=self._budget,
            trust=self._trust,
            instance=self._setting.instance,
            tls=partial(self._listeners.tls, one.face),
        )

    def _report(self) -> None:
        """Tell the core what was answered here."""
        counts = {value.name: value.read() for value in memory_values(self._budget)}
        asked: dict[str, list[tuple[Name, int]]] = {}
        for name, faces in self._faces.items():
            total: Counts[str] = Counts()
            names: Counts[Name] = Counts()
            for face in faces:
                total.update(face.counts())
                total.update(connections=face.server.present, refused=face.server.refused)
                names.update(face.asked())
            counts |= {f"{name}_{what}": count for what, count in total.items()}
            asked[name] = list(names.items())
        for at in range(0, max([1, *map(len, asked.values())]), NAMES_AT_ONCE):
            some = {name: dict(names[at : at + NAMES_AT_ONCE]) for name, names in asked.items()}
            if not self._relay.count({"counts": counts, "agreed": self._agreed, "asked": some}):
                return
