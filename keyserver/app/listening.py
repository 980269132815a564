"""Opening and closing everything that listens: faces, mail flow, administration."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aiohttp import web

from keyserver.admin.api import make_api
from keyserver.app.parts import CannotStart, Parts
from keyserver.app.passwords import read_password
from keyserver.config import Config, Listener
from keyserver.config.models import LdapSection
from keyserver.faces import certs, hkp
from keyserver.faces.door import Door, DoorLimits
from keyserver.faces.hot import HotAnswers
from keyserver.faces.http import make_app, make_runner
from keyserver.faces.ldap import LdapLimits, LdapServer
from keyserver.faces.ldap_bind import Account
from keyserver.faces.ldap_search import LdapDesk
from keyserver.faces.ldap_tree import Tree
from keyserver.faces.replies import Desk
from keyserver.mailflow import lmtp, milter
from keyserver.mailflow.peers import Peers
from keyserver.model import Answer, View
from keyserver.observe import Observer
from keyserver.query import Query

DRAIN = 5.0  # seconds that open requests have when we stop


def _now() -> int:
    return int(time.time())


@dataclass(slots=True)
class Listeners:
    """Everything that listens, to be closed in the opposite order."""

    doors: list[Door] = field(default_factory=list)
    runners: list[web.AppRunner] = field(default_factory=list)
    servers: list[asyncio.AbstractServer] = field(default_factory=list)
    peers: list[Peers] = field(default_factory=list)
    ldap: list[LdapServer] = field(default_factory=list)

    async def close(self) -> None:
        """Take nothing new, let open requests end."""
        for server in self.servers:
            server.close()
        for peers in self.peers:
            peers.close()
        await asyncio.gather(*(door.close(DRAIN) for door in self.doors), *(s.close(DRAIN) for s in self.ldap))
        await asyncio.gather(*(runner.cleanup() for runner in self.runners))


def _views(config: Config) -> Sequence[tuple[View, tuple[Listener, ...], tuple[Listener, ...]]]:
    """Each view with its HKP and LDAP listeners."""
    return [
        (View("default", config.policy.answer_mailflow), config.hkp.listen, config.ldap.listen),
        *((View(v.name, v.answer_mailflow), v.hkp_listen, v.ldap_listen) for v in config.view),
    ]


async def open_all(parts: Parts, listeners: Listeners, ready: Callable[[str], None]) -> None:
    """Open what is configured, the admin listener last. `ready` hears one line per listener. Raises CannotStart."""
    for view, hkp_listen, ldap_listen in _views(parts.config):
        await _open_hkp(parts, listeners, view, hkp_listen, ready)
        await _open_ldap(parts, listeners, view, ldap_listen, ready)
    await _open_mailflow(parts, listeners, ready)
    await _open_admin(parts, listeners, ready)
    _show(parts, listeners)


def _show(parts: Parts, listeners: Listeners) -> None:
    """Gauges, read at every scrape."""
    observer, doors = parts.observer, listeners.doors
    observer.gauge("searches_under_way", "Searches under way", lambda: parts.resolver.searches)
    observer.gauge("hot_octets", "Memory of hot answers", lambda: sum(d.hot.counts().octets for d in doors))
    observer.gauge("hkp_connections", "Open connections of the HTTP face", lambda: sum(d.counts().open for d in doors))
    observer.gauge(
        "ldap_connections", "Open connections of the LDAP face", lambda: sum(s.counts().open for s in listeners.ldap)
    )
    observer.gauge("hkp_refused", "Connections over a client's limit", lambda: sum(d.counts().refused for d in doors))


def _note(observer: Observer) -> Callable[[str, Query | None, Answer | None, int, float], None]:
    def note(face: str, query: Query | None, answer: Answer | None, status: int, seconds: float) -> None:
        if query is not None and answer is not None:
            observer.lookup(face, str(query), answer, status, seconds)

    return note


async def _open_hkp(
    parts: Parts, listeners: Listeners, view: View, listen: Sequence[Listener], ready: Callable[[str], None]
) -> None:
    config = parts.config
    if not listen:
        return
    desk = Desk(
        lookups=parts.resolver,
        store=parts.store,
        changes=parts.changes,
        view=view,
        clock=_now,
        monotonic=time.monotonic,
        note=_note(parts.observer),
        instance=parts.installation.instance,
        explain=config.hkp.explain,
        text_search=config.policy.text_search != "off",
        complaint=lambda: parts.keeper.clockwatch.complaint,
        max_size=config.cache.max_size,
    )
    runner = make_runner(make_app(desk, hkp.routes, certs.routes))
    await runner.setup()
    listeners.runners.append(runner)
    assert runner.server is not None
    hot = HotAnswers(parts.changes, config.cache.memory, _now)
    parts.hot.append(hot)
    door = Door(
        runner.server,
        hot,
        DoorLimits(config.limits.connections_per_client, tuple(config.limits.trusted)),
        own=parts.installation.instance,
        tell=lambda hits: parts.observer.hot("hkp", hits),
    )
    listeners.doors.append(door)
    tls = _tls(config.hkp.tls_certificate, config.hkp.tls_key_file)
    await _bind("hkp", view, listen, lambda listener: door.open(listener, tls), ready)


async def _open_ldap(
    parts: Parts, listeners: Listeners, view: View, listen: Sequence[Listener], ready: Callable[[str], None]
) -> None:
    config = parts.config
    if not listen:
        return
    desk = LdapDesk(
        lookups=parts.resolver,
        changes=parts.changes,
        view=view,
        clock=_now,
        monotonic=time.monotonic,
        note=_note(parts.observer),
        instance=parts.installation.instance,
        memory=config.cache.memory // 4,
    )
    tls = _tls(config.ldap.tls_certificate, config.ldap.tls_key_file)
    limits = LdapLimits(
        connections_per_client=config.limits.connections_per_client, trusted=tuple(config.limits.trusted)
    )
    tree = Tree(config.ldap.base, start_tls=tls is not None, text_search=config.policy.text_search != "off")
    server = LdapServer(
        desk,
        tree,
        limits,
        tls=tls,
        account=_account(config.ldap),
        tell=lambda hits: parts.observer.hot("ldap", hits),
    )
    listeners.ldap.append(server)
    await _bind("ldap", view, listen, server.open, ready)


def _account(ldap: LdapSection) -> Account | None:
    """Who may bind, if anybody. Raises CannotStart."""
    if ldap.bind_password_file is None:
        return None
    try:
        return Account(ldap.bind_dn, read_password("ldap.bind_password_file", ldap.bind_password_file))
    except OSError as problem:
        raise CannotStart(f"ldap.bind_password_file: {problem}") from None


async def _bind(
    face: str,
    view: View,
    listen: Sequence[Listener],
    open_: Callable[[Listener], Awaitable[Sequence[object]]],
    ready: Callable[[str], None],
) -> None:
    """Open a face's listeners one by one, and say where each is. Raises CannotStart."""
    for listener in listen:
        try:
            bound = await open_(listener)
        except OSError as problem:
            key = f"[{face}] listen" if view.name == "default" else f"[[view]] {view.name}: {face}_listen"
            raise _taken(key, listener, problem) from None
        _say(ready, face, listener, bound)


async def _open_mailflow(parts: Parts, listeners: Listeners, ready: Callable[[str], None]) -> None:
    config, intake = parts.config.mailflow, parts.intake
    loop = asyncio.get_running_loop()
    for face, listener, most in (
        ("milter", config.milter_listen, milter.MAX_CONNECTIONS),
        ("lmtp", config.lmtp_listen, lmtp.MAX_CONNECTIONS),
    ):
        if listener is None:
            continue
        peers = Peers(face, listener, config.allowed_clients, most)
        factories: Mapping[str, Callable[[], asyncio.Protocol]] = {
            "milter": partial(milter.Connection, intake, peers),
            "lmtp": partial(lmtp.Connection, intake, peers, socket.gethostname()),
        }
        factory = factories[face]
        try:
            if listener.unix is not None:
                server: asyncio.AbstractServer = await loop.create_unix_server(factory, str(listener.unix))
                listener.unix.chmod(0o666)  # as open as loopback; its directory says who gets there
            else:
                server = await loop.create_server(factory, listener.host, listener.port)
        except OSError as problem:
            raise _taken(f"mailflow.{face}_listen", listener, problem) from None
        listeners.servers.append(server)
        listeners.peers.append(peers)
        for bound in (s.getsockname() for s in getattr(server, "sockets", ())):
            ready(f"ready {face} {f'inet:{bound[0]}:{bound[1]}' if isinstance(bound, tuple) else listener}")


async def _open_admin(parts: Parts, listeners: Listeners, ready: Callable[[str], None]) -> None:
    listener = parts.config.admin.listen
    if listener is None:
        return
    runner = make_runner(make_api(parts.service, parts.installation.token, parts.observer.exposition))
    await runner.setup()
    listeners.runners.append(runner)
    assert runner.server is not None
    loop = asyncio.get_running_loop()
    try:
        if listener.unix is not None:
            server: asyncio.AbstractServer = await loop.create_unix_server(runner.server, str(listener.unix))
        else:
            server = await loop.create_server(runner.server, listener.host, listener.port)
    except OSError as problem:
        raise _taken("admin.listen", listener, problem) from None
    listeners.servers.append(server)
    bound = [s.getsockname() for s in getattr(server, "sockets", ())]
    _say(ready, "admin", listener, bound)


def _say(ready: Callable[[str], None], face: str, listener: Listener, bound: Sequence[object]) -> None:
    scheme = ("ldap" if face == "ldap" else "http") + ("s" if listener.tls else "")
    for address in bound:
        if isinstance(address, tuple):
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            ready(f"ready {face} {scheme}://{host}:{address[1]}")
        else:
            ready(f"ready {face} unix:{listener.unix}")


def _taken(key: str, listener: Listener, problem: OSError) -> CannotStart:
    why = problem.strerror or str(problem)
    return CannotStart(f"{key}: cannot listen on {listener}: {why}")


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as problem:
        raise CannotStart(f"{certificate}: cannot be used as a TLS certificate: {problem}") from None
    return context
