"""The report of what ends soon, and its digest."""

from __future__ import annotations

import socket

from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.app.crls import Crls
from keyserver.app.events import Events
from keyserver.app.rules import ServiceRules
from keyserver.events.posting import Poster
from keyserver.outlook.digest import Digest, Wanted
from keyserver.outlook.gathering import Outlook
from keyserver.resolver.membership import Membership


def make_outlook(context: Context, cache: Cache, crls: Crls) -> Outlook:
    """The one report that page, API, command line and digest show."""
    return Outlook(cache.store.recipients, cache.store.upstreams, crls.standings, context.clocks.now)


def make_digest(
    context: Context, cache: Cache, rules: ServiceRules, membership: Membership, events: Events, outlook: Outlook
) -> Digest:
    """Its `run` is the caller's to start."""
    return Digest(
        report=outlook.report,
        marks=cache.store.history,
        wanted=lambda: Wanted(rules.outlook(), rules.invite(), events.webhook.target),
        poster=Poster(context.clocks.now),
        leads=lambda: membership.leads,
        identity=context.observer.identity,
        node=context.config.server.node or socket.gethostname(),
        clock=context.clocks.now,
    )
