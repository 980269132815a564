"""The core of the service, floor upon floor: all that answers and keeps, and nothing that listens.

Faces, mail listeners and the admin API are built from `Parts`, by `app.listening`; a process that only listens needs
none of the floors below."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from keyserver.admin.operations import Operations
from keyserver.admin.outlook import Outlooks
from keyserver.app.administration import make_operations
from keyserver.app.cache import Cache, open_cache
from keyserver.app.context import Context
from keyserver.app.crls import Crls, open_crls
from keyserver.app.events import Events, open_events
from keyserver.app.invitations import make_automatic, make_inviting
from keyserver.app.mailflow import open_mailflow
from keyserver.app.outlook import make_digest, make_outlook
from keyserver.app.resolver import Lookups, open_resolver
from keyserver.app.rules import ServiceRules
from keyserver.app.upkeep import Remembers, open_upkeep
from keyserver.app.upstreams import MakeUpstream, Peers, open_upstreams
from keyserver.app.verdicts import make_verdicts
from keyserver.changes import Changes
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.install import Installation
from keyserver.invite.automatic import Automatic
from keyserver.invite.inviting import Inviting
from keyserver.listen.trust import Trust
from keyserver.mailflow.intake import Intake
from keyserver.observe import Observer
from keyserver.outlook.digest import Digest
from keyserver.resolver.resolver import Resolver
from keyserver.resolver.upkeep import Upkeep
from keyserver.store.base import Store
from keyserver.verdict.asking import Verdicts


@dataclass(frozen=True, slots=True)
class Parts:
    """The wired service without its listeners; the command line works on it where no service runs."""

    config: Config
    clocks: Clocks
    installation: Installation
    observer: Observer
    trust: Trust
    changes: Changes
    store: Store
    resolver: Resolver
    upkeep: Upkeep
    intake: Intake
    operations: Operations
    rules: ServiceRules
    peers: Peers
    cache: Cache
    crls: Crls
    lookups: Lookups
    verdicts: Verdicts
    inviting: Inviting
    automatic: Automatic
    events: Events
    digest: Digest
    hot: list[Remembers]
    """Each face adds its own: upkeep asks them what they were asked for."""


@contextlib.asynccontextmanager
async def opened(config: Config, clocks: Clocks, upstreams: MakeUpstream | None = None) -> AsyncIterator[Parts]:
    """Everything but the listeners, open until the block ends. `upstreams`: makes them; else by their URLs' schemes.
    Raises CannotStart."""
    context = Context.of(config, clocks)
    hot: list[Remembers] = []
    async with (
        open_upstreams(context, upstreams) as peers,
        open_cache(context) as cache,
        open_crls(context, cache) as crls,
        contextlib.nullcontext(ServiceRules.of(config, peers.upstreams)) as rules,
        open_resolver(context, cache, rules.lookups) as lookups,
        open_upkeep(context, cache, lookups, hot) as upkeep,
        open_events(context, cache.store, upkeep.membership) as events,
    ):
        automatic = make_automatic(context, cache, rules.invite)
        with open_mailflow(context, cache, lookups.cleaner, rules.mail, automatic.offer) as intake:
            verdicts = make_verdicts(context, lookups)
            inviting = make_inviting(context, cache, lookups, rules.invite)
            outlook = make_outlook(context, cache, crls)
            outlooks = Outlooks(outlook, lambda: rules.outlook().days)
            operations = make_operations(
                context, cache, lookups, upkeep, intake, verdicts, inviting, rules.faces, crls, events, outlooks
            )
            try:
                yield Parts(
                    config=config,
                    clocks=clocks,
                    installation=context.installation,
                    observer=context.observer,
                    trust=context.trust,
                    changes=cache.changes,
                    store=cache.store,
                    resolver=lookups.resolver,
                    upkeep=upkeep,
                    intake=intake,
                    operations=operations,
                    rules=rules,
                    peers=peers,
                    cache=cache,
                    crls=crls,
                    lookups=lookups,
                    verdicts=verdicts,
                    inviting=inviting,
                    automatic=automatic,
                    events=events,
                    digest=make_digest(context, cache, rules, upkeep.membership, events, outlook),
                    hot=hot,
                )
            finally:
                await operations.acts.written()
