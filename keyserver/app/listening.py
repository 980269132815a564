"""Opening and closing everything that listens: faces, mail flow, administration."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from keyserver.admin.api import make_api
from keyserver.app.context import CannotStart
from keyserver.app.parts import Parts
from keyserver.config import Config, Listener
from keyserver.config.models import LdapSection
from keyserver.config.passwords import read_password
from keyserver.faces.http import certs, hkp
from keyserver.faces.http.app import make_app, make_runner
from keyserver.faces.http.door import Door, DoorLimits
from keyserver.faces.http.exchange import at_work
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.replies import Desk
from keyserver.faces.ldap.bind import Account
from keyserver.faces.ldap.search import LdapDesk
from keyserver.faces.ldap.server import LdapLimits, LdapServer
from keyserver.faces.ldap.tree import Tree
from keyserver.listen.certificate import Certificate
from keyserver.listen.reception import Address, Reception
from keyserver.mailflow import lmtp, milter
from keyserver.mailflow.peers import Peers, Talk
from keyserver.model import Answer, View
from keyserver.observe import Observer
from keyserver.query import Query

DRAIN = 5.0  # seconds that open requests have when we stop
ADMIN_CONNECTIONS = 64
ADMIN_MEMORY = 0  # octets of hot answers: there are none

_LOG = logging.getLogger("keyserver")


@dataclass(slots=True)
class Listeners:
    """Everything that listens, to be closed in the opposite order. `monotonic`: seconds."""

    monotonic: Callable[[], float]
    doors: list[Door] = field(default_factory=list)
    runners: list[web.AppRunner] = field(default_factory=list)
    ldap: list[LdapServer] = field(default_factory=list)
    peers: list[Peers] = field(default_factory=list)
    admin: list[Door] = field(default_factory=list)
    certificates: dict[tuple[Path, Path | None], Certificate] = field(default_factory=dict)

    async def close(self) -> None:
        """Take nothing new, let open requests end."""
        receptions: tuple[Reception[Any], ...] = (*self.doors, *self.ldap, *self.peers, *self.admin)
        await asyncio.gather(*(reception.close(DRAIN) for reception in receptions))
        await asyncio.gather(*(runner.cleanup() for runner in self.runners))

    def reload(self) -> None:
        """Read again what can be read again: the certificates. Connections stay; what is broken is left as it was."""
        done = [certificate.reload() for certificate in self.certificates.values()]
        facts = {"certificates": done.count(True), "failed": done.count(False)}
        _LOG.info("TLS certificates read again; all other settings need a restart", extra={"facts": facts})

    def tls(self, chain: Path | None, key: Path | None) -> ssl.SSLContext | None:
        """The context of a certificate, for as many listeners as use it. Raises CannotStart."""
        if chain is None:
            return None
        if (chain, key) not in self.certificates:
            try:
                self.certificates[chain, key] = Certificate(chain, key, self.monotonic)
            except OSError as problem:
                raise CannotStart(f"{chain}: cannot be used as a TLS certificate: {problem}") from None
        return self.certificates[chain, key].context


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
    observer.gauge("hkp_refused", "Connections over a limit", lambda: sum(d.counts().refused for d in doors))
    observer.gauge("ldap_refused", "Connections over a limit", lambda: sum(s.refused for s in listeners.ldap))
    observer.gauge("mailflow_refused", "Connections over a limit", lambda: sum(p.refused for p in listeners.peers))


def _note(observer: Observer) -> Callable[[str, Query | None, Answer | None, int, float, str], None]:
    def note(face: str, query: Query | None, answer: Answer | None, status: int, seconds: float, client: str) -> None:
        if query is not None and answer is not None:
            observer.lookup(face, str(query), answer, status, seconds, client)

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
        clock=parts.clocks.now,
        monotonic=parts.clocks.monotonic,
        note=_note(parts.observer),
        instance=parts.installation.instance,
        explain=config.hkp.explain,
        text_search=config.policy.text_search != "off",
        complaint=lambda: parts.keeper.clockwatch.complaint,
        trust=parts.trust,
        max_size=config.cache.max_size,
    )
    runner = make_runner(make_app(desk, hkp.routes, certs.routes))
    await runner.setup()
    listeners.runners.append(runner)
    assert runner.server is not None
    hot = HotAnswers(parts.changes, config.cache.memory, parts.clocks.now)
    parts.hot.append(hot)
    door = Door(
        runner.server,
        hot,
        DoorLimits(config.limits.connections_per_client, parts.trust),
        own=parts.installation.instance,
        tell=lambda hits: parts.observer.hot("hkp", hits),
        tls=listeners.tls(config.hkp.tls_certificate, config.hkp.tls_key_file),
    )
    listeners.doors.append(door)
    await _bind(_key("hkp", view), door, listen, ready)


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
        clock=parts.clocks.now,
        monotonic=parts.clocks.monotonic,
        note=_note(parts.observer),
        instance=parts.installation.instance,
        memory=config.cache.memory // 4,
    )
    tls = listeners.tls(config.ldap.tls_certificate, config.ldap.tls_key_file)
    limits = LdapLimits(connections_per_client=config.limits.connections_per_client, trust=parts.trust)
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
    await _bind(_key("ldap", view), server, listen, ready)


def _key(face: str, view: View) -> str:
    return f"[{face}] listen" if view.name == "default" else f"[[view]] {view.name}: {face}_listen"


def _account(ldap: LdapSection) -> Account | None:
    """Who may bind, if anybody. Raises CannotStart."""
    if ldap.bind_password_file is None:
        return None
    try:
        return Account(ldap.bind_dn, read_password("ldap.bind_password_file", ldap.bind_password_file))
    except OSError as problem:
        raise CannotStart(f"ldap.bind_password_file: {problem}") from None


async def _bind(
    key: str, reception: Reception[Any], listen: Sequence[Listener], ready: Callable[[str], None]
) -> list[Address]:
    """Open a face's listeners one by one, and say where each is. Raises CannotStart."""
    everywhere: list[Address] = []
    for listener in listen:
        try:
            bound = await reception.open(listener)
        except OSError as problem:
            raise _taken(key, listener, problem) from None
        everywhere += bound
        for address in bound:
            ready(f"ready {reception.face} {_spelled(reception.face, listener, address)}")
    return everywhere


async def _open_mailflow(parts: Parts, listeners: Listeners, ready: Callable[[str], None]) -> None:
    config, intake = parts.config.mailflow, parts.intake
    talks: Mapping[str, Callable[[Peers], Talk]] = {
        "milter": partial(milter.Connection, intake),
        "lmtp": partial(lmtp.Connection, intake, socket.gethostname()),
    }
    for face, listener, most in (
        ("milter", config.milter_listen, milter.MAX_CONNECTIONS),
        ("lmtp", config.lmtp_listen, lmtp.MAX_CONNECTIONS),
    ):
        if listener is None:
            continue
        peers = Peers(face, listener, config.allowed_clients, most, talks[face])
        listeners.peers.append(peers)
        await _bind(f"mailflow.{face}_listen", peers, [listener], ready)
        if listener.unix is not None:
            listener.unix.chmod(0o666)  # as open as loopback; its directory says who gets there


async def admin_door(parts: Parts, listeners: Listeners) -> Door:
    """The admin API, not open yet. Raises CannotStart."""
    config = parts.config
    api = make_api(parts.service, parts.installation.token, parts.observer.exposition)
    api.middlewares.insert(0, at_work)
    runner = make_runner(api)
    await runner.setup()
    listeners.runners.append(runner)
    assert runner.server is not None
    door = Door(
        runner.server,
        HotAnswers(parts.changes, ADMIN_MEMORY, parts.clocks.now),
        DoorLimits(config.limits.connections_per_client, parts.trust, connections=ADMIN_CONNECTIONS),
        face="admin",
        tls=listeners.tls(config.admin.tls_certificate, config.admin.tls_key_file),
        privileged=True,
    )
    listeners.admin.append(door)
    return door


async def _open_admin(parts: Parts, listeners: Listeners, ready: Callable[[str], None]) -> None:
    listener = parts.config.admin.listen
    if listener is None:
        return
    await _bind("admin.listen", await admin_door(parts, listeners), [listener], ready)


def _spelled(face: str, listener: Listener, address: Address) -> str:
    """Where a listener is, as clients of that face write it."""
    if not isinstance(address, tuple):
        return f"unix:{listener.unix}"
    host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
    if face in ("milter", "lmtp"):
        return f"inet:{address[0]}:{address[1]}"
    return f"{'ldap' if face == 'ldap' else 'http'}{'s' if listener.tls else ''}://{host}:{address[1]}"


def _taken(key: str, listener: Listener, problem: OSError) -> CannotStart:
    why = problem.strerror or str(problem)
    return CannotStart(f"{key}: cannot listen on {listener}: {why}")
