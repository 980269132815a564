"""A front before a core, both in the test's loop and by its clocks, joined as the supervisor joins two processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

from keyserver import openpgp
from keyserver.app.front import FrontProcess, Setting
from keyserver.app.listening import Listeners, open_all
from keyserver.app.parts import Parts
from keyserver.config import Listening
from keyserver.faces.http.replies import STATUS
from keyserver.listen.sockets import bind_for
from keyserver.model import Certificate, How, State
from keyserver.openpgp.armor import dearmor
from keyserver.processes.agreed import Agreed
from keyserver.processes.control import Control, tell
from keyserver.processes.fronts import Fronts
from keyserver.processes.ledger import Ledger
from keyserver.processes.news import Counter
from support.running import read_reply

REPORTED = 1.1
"""Seconds after which the core knows what its front answered from memory."""

STATES = {status: state for state, status in reversed(STATUS.items())}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client sees. `left`: seconds that he may keep it, None: he may not."""

    state: State
    how: How
    certificates: tuple[Certificate, ...]
    left: int | None


@dataclass(slots=True)
class Front:
    """HTTP clients of a front, one for each view, each on a connection that is kept."""

    parts: Parts
    bound: dict[Listening, list[socket.socket]]
    fronts: Fronts
    clients: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=dict)

    async def ask(self, term: str, view: str, *, looped: bool = False, once: bool = False) -> Reply:
        """`op=get` for a term. What memory may answer is asked until it does, unless `once`: each time the same is
        said."""
        reply = await self._once(term, view, looped)
        if not once and reply.left is not None and reply.how is not How.STALE:
            for _ in range(2):  # the core says HIT, which is kept; then memory does
                again = await self._once(term, view, looped)
                assert (again.state, again.how) == (reply.state, How.HIT), f"{term} again: {again}"
                assert (again.certificates, again.left) == (reply.certificates, reply.left), f"{term} again: {again}"
        return reply

    async def _once(self, term: str, view: str, looped: bool) -> Reply:
        if view not in self.clients:
            (sock,) = next(socks for one, socks in self.bound.items() if one.view == view)
            self.clients[view] = await asyncio.open_connection(*sock.getsockname())
        reader, writer = self.clients[view]
        via = f"Via: 1.1 {self.parts.installation.instance}\r\n" if looped else ""
        target = f"/pks/lookup?op=get&options=mr&search={quote(term)}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: test\r\n{via}\r\n".encode())
        async with asyncio.timeout(20):
            status, fields, body = await read_reply(reader)
        state = STATES[status]
        octets = b"".join(dearmor(body)) if state is State.FOUND else b""
        certificates = [c for c in openpgp.clean(octets, self.parts.clocks.now()) if isinstance(c, Certificate)]
        age = fields["cache-control"].partition("max-age=")[2]
        return Reply(state, How(fields["x-cache"]), tuple(certificates), int(age) if age else None)

    async def close(self) -> None:
        """Hang up."""
        for _, writer in self.clients.values():
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def front_before(parts: Parts) -> AsyncIterator[Front]:
    """A front before the core that `parts` are."""
    loop = asyncio.get_running_loop()
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    (to_core, core), (to_front, front) = pairs
    counter, ledger, listeners = Counter(), Ledger(1), Listeners(parts.clocks.monotonic)
    bound = {one: bind_for(one.listener, 1)[0] for one in parts.config.listeners}
    agreed = Agreed()
    fronts = Fronts(counter, Control(core), agreed, stop=lambda: None, reload=lambda: None)
    listeners.fronts = fronts
    parts.hot.append(fronts)
    await open_all(parts, listeners, lambda line: None)
    fronts.begin(
        parts.changes,
        hits=parts.observer.hot,
        searched=lambda names: parts.resolver.note_asked(names, parts.clocks.now()),
    )
    setting = Setting(parts.config, parts.clocks, counter, agreed, ledger, 0, parts.installation.instance, bound)
    running = loop.create_task(FrontProcess(setting).run(Control(front)))
    _join(to_core, to_front)
    to_front.setblocking(False)
    async with asyncio.timeout(20):
        await loop.sock_recv(to_front, 1000)  # it is ready
    asking = Front(parts, bound, fronts)
    try:
        yield asking
    finally:
        await asking.close()
        tell(to_front, {"do": "stop"})
        await running
        await listeners.close()
        fronts.close()
        await asyncio.sleep(0)
        for end in (core, front):
            loop.remove_reader(end)
        for end in (end for pair in pairs for end in pair):
            end.close()


def _join(to_core: socket.socket, to_front: socket.socket) -> None:
    """Give both their ends of a line and of the news. Nobody has a process to end: the front is this one."""
    line, news = socket.socketpair(), socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nobody = os.open(os.devnull, os.O_RDONLY)
    facts = {"front": 0, "pid": 0, "since": 0, "restarts": 0, "core": {}}
    tell(to_core, {"do": "admit", **facts}, [line[0].fileno(), news[0].fileno(), nobody])
    tell(to_front, {"do": "connect"}, [line[1].fileno(), news[1].fileno()])
    os.close(nobody)
    for end in (*line, *news):
        end.close()
