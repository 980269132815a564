"""The configuration is read again: all of it, or nothing.

Everything that may fail is done first, beside what holds. Then rules, upstreams and limits change in one turn of the
loop, and a change of everything takes hot answers away, here and in fronts. At last come those who still store by the
old rules, and fronts that have to say that they go by the new ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass

from keyserver.admin.problems import Problem as AdminProblem
from keyserver.admin.problems import Refusal
from keyserver.admin.reloading import Mistaken, Reloaded
from keyserver.app.cache import LoadedAnchors, history_bounds
from keyserver.app.context import CannotStart
from keyserver.app.crls import NextCrls
from keyserver.app.events import target_of
from keyserver.app.listening import MAIL, Listeners
from keyserver.app.log import install_log
from keyserver.app.parts import Parts
from keyserver.app.upstreams import NextPeers
from keyserver.config import Config, ConfigError, Problem, load_again
from keyserver.config.agreeing import agreeing
from keyserver.config.checks import cross_checks
from keyserver.config.settings import at_run_time, changes_of
from keyserver.events.posting import Target
from keyserver.model import EVERYTHING
from keyserver.processes.agreed import ROOM
from keyserver.store.base import StoreError

_LOG = logging.getLogger("keyserver")


@dataclass(frozen=True, slots=True)
class _Ready:
    """All that other rules need, made and not yet in use."""

    config: Config
    anchors: LoadedAnchors
    crls: NextCrls
    peers: NextPeers
    webhook: Target | None
    octets: bytes


class Reloader:
    """Of one process of its own, or of the core. `config`: what holds now."""

    def __init__(self, parts: Parts, listeners: Listeners, read: Callable[[Config], Config] = load_again) -> None:
        self.config = parts.config
        self._parts = parts
        self._listeners = listeners
        self._read = read
        self._turn = asyncio.Lock()

    async def reload(self) -> Reloaded:
        """See `admin.reloading.Reloads`."""
        async with self._turn:
            before = self.config
            if before.sources is None:
                raise Refusal("this configuration came from no file")
            file = str(before.sources.file or "the configuration")
            try:
                asked = await asyncio.to_thread(self._read, before)
                ready = await self._prepare(at_run_time(before, asked))
            except ConfigError as error:
                raise Mistaken(file, error.problems) from None
            changes = changes_of(before, asked)
            self._switch(ready)
            await self._parts.rules.replaced()
            with contextlib.suppress(StoreError):  # it is tried again by and by
                await self._parts.upkeep.note_settings()
            if self._listeners.fronts is not None:
                await self._listeners.fronts.agree()
            done = Reloaded(
                file,
                changed=tuple(change for change in changes if not change.restart),
                restart=tuple(change for change in changes if change.restart),
            )
            restart = ", ".join(change.key for change in done.restart)
            changed = ", ".join(change.key for change in done.changed)
            self._parts.operations.acts.note("reload", changed=changed or "nothing", needs_a_restart=restart)
            return done

    async def hang_up(self) -> None:
        """The same for SIGHUP: whatever comes of it is said in the log."""
        try:
            done = await self.reload()
        except AdminProblem as refusal:
            _LOG.error("%s", refusal)
            for mistake in getattr(refusal, "mistakes", ()):
                _LOG.error("configuration: %s", mistake)
        except Exception:
            _LOG.exception("the configuration could not be read again")
        else:
            _LOG.info("the configuration was read again: %s", done.text)

    async def _prepare(self, config: Config) -> _Ready:
        """Raises ConfigError: what was changed does not go with what has to stay until a restart, or cannot be had."""
        if problems := tuple(cross_checks(config)):
            raise ConfigError(problems)
        octets = pickle.dumps(config)
        if len(octets) > ROOM:
            raise ConfigError([Problem("the configuration", "", f"accepted are {ROOM >> 20} MiB of it")])
        try:
            anchors = await asyncio.to_thread(self._parts.cache.anchors.load, config.smime.trust_anchors)
        except CannotStart as problem:
            raise ConfigError([Problem("smime.trust_anchors", "", str(problem))]) from None
        try:
            crls = await self._parts.crls.prepare(config)
        except (OSError, ValueError) as problem:
            raise ConfigError([Problem("smime.crl", "", str(problem))]) from None
        try:
            webhook = await asyncio.to_thread(target_of, config)
        except CannotStart as problem:
            raise ConfigError([Problem("events.webhook_secret_file", "", str(problem))]) from None
        try:
            peers = await self._parts.peers.prepare(config)
        except (OSError, ValueError) as problem:
            raise ConfigError([Problem("upstream", "", str(problem))]) from None
        return _Ready(config, anchors, crls, peers, webhook, octets)

    def _switch(self, ready: _Ready) -> None:
        """From one turn of the loop to the next: nothing here waits, and nothing fails."""
        parts, config, limits = self._parts, ready.config, ready.config.limits
        before, self.config = self.config, config
        parts.trust.change(limits.trusted, limits.proxies, limits.proxy_header)
        parts.lookups.misses.change(limits.misses_per_minute)
        parts.store.limit(config.cache.max_size)
        parts.store.history.limit(history_bounds(config))
        parts.observer.identities = config.log.identities
        parts.cache.anchors.loaded = ready.anchors
        parts.crls.adopt(ready.crls)
        parts.peers.adopt(ready.peers)
        parts.rules.replace(config, ready.peers.upstreams)
        parts.lookups.circuit.keep(ready.peers.upstreams.keys(), anew=ready.peers.made)
        parts.resolver.rules_replaced()
        parts.upkeep.rules_replaced()
        parts.events.webhook.change(ready.webhook)
        parts.upkeep.membership.settings(agreeing(config))
        parts.upkeep.membership.max_detached = config.server.max_detached
        for server in self._listeners.servers:
            if server.face in MAIL:
                server.trust.change(config.mailflow.allowed_clients)
            else:
                server.limit(limits.connections_per_client)
        self._listeners.read_certificates(config)
        if config.log != before.log:
            install_log(config)
        if self._listeners.fronts is not None:
            self._listeners.fronts.propose(ready.octets)
        parts.changes.publish(EVERYTHING)
