"""Opening and closing everything that listens: faces, mail flow, administration."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from keyserver.admin.api.app import make_api
from keyserver.admin.reloading import NoService, Reloads
from keyserver.app.administration import rules_of
from keyserver.app.context import CannotStart
from keyserver.app.metrics import ServiceMetrics
from keyserver.app.owners import owners_server, trailing_of
from keyserver.app.parts import Parts
from keyserver.config import Config, Listener, Listening
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.context import FaceContext
from keyserver.faces.face import Face, NoteVerdict, Opening
from keyserver.faces.http.app import make_runner
from keyserver.faces.http.connection import HttpLimits
from keyserver.faces.http.exchange import at_work
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.server import HttpServer
from keyserver.faces.register import FACES
from keyserver.listen.server import Address, ListeningServer
from keyserver.listen.tls import TlsCertificate
from keyserver.mailflow import lmtp, milter, trailing
from keyserver.mailflow.server import MailConnection, MailServer
from keyserver.model import Answer, View
from keyserver.observe import Observer
from keyserver.processes.fronts import Fronts, Node
from keyserver.processes.register import BY_FACE
from keyserver.query import Query
from keyserver.verdict.deciding import Verdict

DRAIN = 5.0  # seconds that open requests have when we stop
MAIL = ("milter", "lmtp", "trailer")
OF_MAIL_SERVERS = (*MAIL, "socketmap")
"""Written as mail servers have it, and as open as loopback where it is a Unix socket."""
ADMIN_CONNECTIONS = 64
CORES_PART = 8
"""The core has one in so many octets of `cache.memory`, fronts share the rest: what they do not know is asked there."""
ADMIN_MEMORY = 0  # octets of hot answers: there are none

_LOG = logging.getLogger("keyserver")


async def nothing() -> bytes:
    """No metrics: nothing listens."""
    return b""


@dataclass(slots=True)
class Listeners:
    """Everything that listens. What stands behind the connections is closed when none is left.
    monotonic: seconds."""

    monotonic: Callable[[], float]
    servers: list[ListeningServer[Any]] = field(default_factory=list)
    certificates: dict[str, TlsCertificate] = field(default_factory=dict)
    """By the section of the configuration that names them."""
    closing: AsyncExitStack = field(default_factory=AsyncExitStack)
    fronts: Fronts | None = None
    """Other processes, which have the sockets of faces that have a part in them, if there are any."""
    bound: Mapping[Listening, Sequence[socket.socket]] = field(default_factory=dict)
    """Sockets that somebody has bound already."""
    config: Callable[[], Config] = Config
    """The configuration that holds now, and who reads it again: for administrators."""
    reloads: Reloads = field(default_factory=NoService)

    metrics: Callable[[], Awaitable[bytes]] = nothing
    """What is shown to Prometheus; nothing before faces are open."""

    async def close(self) -> None:
        """Take nothing new, let open requests end."""
        await asyncio.gather(*(server.close(DRAIN) for server in self.servers))
        await self.closing.aclose()

    def of(self, *faces: str) -> list[ListeningServer[Any]]:
        """Those of some faces."""
        return [server for server in self.servers if server.face in faces]

    def read_certificates(self, config: Config) -> None:
        """Read the certificates again, where they are now. Connections stay; in place of what is broken, what was there
        before."""
        for section, certificate in self.certificates.items():
            files = getattr(config, section)
            certificate.move(files.tls_certificate, files.tls_key_file)

    def tls(self, section: str, chain: Path | None, key: Path | None) -> ssl.SSLContext | None:
        """The context of a section's certificate, for as many listeners as use it. Raises CannotStart."""
        if chain is None:
            return None
        if section not in self.certificates:
            try:
                self.certificates[section] = TlsCertificate(chain, key, self.monotonic)
            except OSError as problem:
                raise CannotStart(f"{chain}: cannot be used as a TLS certificate: {problem}") from None
        return self.certificates[section].context


Maker = Callable[[View], Awaitable[ListeningServer[Any]]]
"""Makes what takes a face's connections, for one view; it raises ValueError for what it cannot work with."""


async def open_all(parts: Parts, listeners: Listeners, ready: Callable[[str], None]) -> None:
    """Open what is configured, the admin listener last. `ready` hears one line per listener. Raises CannotStart."""
    memory = parts.config.cache.memory // (CORES_PART if listeners.fronts is not None else 1)
    budget = MemoryLimit(memory, parts.changes, parts.clocks.now)
    metrics = ServiceMetrics(parts, budget, listeners.servers, listeners.certificates, listeners.fronts)
    listeners.metrics = metrics.exposition
    for name, make in _makers(parts, listeners, budget).items():
        for view in parts.rules.lookups().views.values():
            wanted = [one for one in parts.config.listeners if (one.face, one.view) == (name, view.name)]
            if wanted:
                try:
                    server = await make(view)
                except ValueError as problem:
                    raise CannotStart(str(problem)) from None
                listeners.servers.append(server)
                if listeners.fronts is not None and name in BY_FACE:
                    listeners.fronts.places[wanted[0].key] = server.behind
                    server.begin()
                else:
                    await _bind(server, wanted, ready, listeners.bound)


def _makers(parts: Parts, listeners: Listeners, budget: MemoryLimit) -> Mapping[str, Maker]:
    """Every face by its name, in the order in which they open."""
    config, intake = parts.config, parts.intake
    mail_servers: Mapping[str, tuple[Listener | None, int, Callable[[MailServer], MailConnection]]] = {
        "milter": (config.mailflow.milter_listen, milter.MAX_CONNECTIONS, partial(milter.Connection, intake)),
        "lmtp": (
            config.mailflow.lmtp_listen,
            lmtp.MAX_CONNECTIONS,
            partial(lmtp.Connection, intake, socket.gethostname()),
        ),
    }

    async def trailer(view: View) -> ListeningServer[Any]:
        connection = partial(trailing.Connection, trailing_of(parts))
        listener, allowed = config.invite.trailer_listen, config.mailflow.allowed_clients
        assert listener is not None
        return MailServer("trailer", listener, allowed, trailing.MAX_CONNECTIONS, connection)

    async def owners(view: View) -> ListeningServer[Any]:
        tls = listeners.tls("invite", config.invite.tls_certificate, config.invite.tls_key_file)
        return await owners_server(parts, tls, listeners.closing)

    async def mail(name: str, view: View) -> ListeningServer[Any]:
        listener, most, connection = mail_servers[name]
        assert listener is not None
        return MailServer(name, listener, config.mailflow.allowed_clients, most, connection)

    async def admin(view: View) -> ListeningServer[Any]:
        return await admin_server(parts, listeners)

    return {
        **{face.name: partial(_open_face, parts, listeners, budget, face) for face in FACES},
        **{name: partial(mail, name) for name in mail_servers},
        "trailer": trailer,
        "invite": owners,
        "admin": admin,
    }


def _note(observer: Observer) -> Callable[[str, Query | None, Answer | None, int, float, str], None]:
    def note(face: str, query: Query | None, answer: Answer | None, status: int, seconds: float, client: str) -> None:
        if query is not None and answer is not None:
            observer.lookup(face, str(query), answer, status, seconds, client)

    return note


def _note_verdict(observer: Observer) -> NoteVerdict:
    def note(face: str, policy: str, verdict: Verdict, seconds: float) -> None:
        observer.verdict(face, policy, verdict.address, verdict.word, verdict.reason, seconds)

    return note


async def _open_face(
    parts: Parts, listeners: Listeners, budget: MemoryLimit, face: Face, view: View
) -> ListeningServer[Any]:
    config = parts.config
    context = FaceContext(
        lookups=parts.resolver,
        store=parts.store,
        budget=budget,
        view=view,
        clock=parts.clocks.now,
        monotonic=parts.clocks.monotonic,
        note=_note(parts.observer),
        instance=parts.installation.instance,
        rules=parts.rules.faces,
        complaint=lambda: "; ".join(filter(None, _complaints(parts))),
        detached=lambda: parts.upkeep.membership.detached,
        trust=parts.trust,
    )
    return await face.open(
        Opening(
            config=config,
            context=context,
            tls=partial(listeners.tls, face.name),
            tell=lambda hits: parts.observer.hot(face.name, hits),
            remember=parts.hot.append,
            verdicts=parts.verdicts,
            note_verdict=_note_verdict(parts.observer),
            closing=listeners.closing,
        )
    )


def _complaints(parts: Parts) -> Iterator[str]:
    """What everybody is told although we are ready."""
    detached = parts.upkeep.membership.detached
    yield detached.text if detached is not None else ""
    yield parts.upkeep.clockwatch.complaint
    yield parts.operations.pausing.complaint()
    yield from (one.complaint for one in parts.crls.standings())


async def _bind(
    server: ListeningServer[Any],
    wanted: Sequence[Listening],
    ready: Callable[[str], None],
    given: Mapping[Listening, Sequence[socket.socket]],
) -> None:
    """Open a face's listeners one by one, and say where each is. `given`: sockets that are bound. Raises
    CannotStart."""
    for one in wanted:
        bound: list[Address] = [sock.getsockname() for sock in given.get(one, ())]
        try:
            for sock in given.get(one, ()):
                await server.serve(one.listener, sock)
            bound = bound or await server.open(one.listener)
        except OSError as problem:
            raise taken(one, problem) from None
        if one.face in OF_MAIL_SERVERS and one.listener.unix is not None:
            one.listener.unix.chmod(0o666)  # as open as loopback; its directory says who gets there
        for address in bound:
            ready(ready_line(one, address))


def ready_line(one: Listening, address: Address) -> str:
    """What is said of a listener that is open."""
    return f"ready {one.face} {_spelled(one.face, one.listener, address)}"


def taken(one: Listening, problem: OSError) -> CannotStart:
    """What is said where a listener's address cannot be had."""
    return CannotStart(f"{one.key}: cannot listen on {one.listener}: {problem.strerror or problem}")


async def admin_server(parts: Parts, listeners: Listeners) -> HttpServer:
    """The admin API, not open yet. Raises CannotStart."""
    config = parts.config
    since = parts.clocks.now()

    def nodes() -> list[dict[str, object]]:
        if listeners.fronts is not None:
            return [asdict(node) for node in listeners.fronts.nodes()]
        faces = listeners.of(*(face.name for face in FACES))
        hot = sum(parts.observer.hot_answers(face.name) for face in FACES)
        return [asdict(Node("service", os.getpid(), since, 0, sum(face.present for face in faces), hot))]

    rules = rules_of(config, parts.trust, parts.observer)
    token, metrics = parts.installation.token, lambda: listeners.metrics()
    api = make_api(parts.operations, rules, token, metrics, nodes, listeners.config, listeners.reloads)
    api.middlewares.insert(0, at_work)
    runner = make_runner(api)
    await runner.setup()
    listeners.closing.push_async_callback(runner.cleanup)
    assert runner.server is not None
    return HttpServer(
        runner.server,
        HotAnswers(MemoryLimit(ADMIN_MEMORY, parts.changes, parts.clocks.now)),
        HttpLimits(config.limits.connections_per_client, parts.trust, connections=ADMIN_CONNECTIONS),
        face="admin",
        tls=listeners.tls("admin", config.admin.tls_certificate, config.admin.tls_key_file),
        privileged=True,
    )


def _spelled(face: str, listener: Listener, address: Address) -> str:
    """Where a listener is, as clients of that face write it."""
    if not isinstance(address, tuple):
        return f"unix:{listener.unix}"
    if face in OF_MAIL_SERVERS:
        return f"inet:{address[0]}:{address[1]}"
    scheme = {known.name: known.scheme for known in FACES}.get(face, "http")
    host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
    return f"{scheme}{'s' if listener.tls else ''}://{host}:{address[1]}"
