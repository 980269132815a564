"""Administration without its listener: the operations that API and command line share."""

from __future__ import annotations

from keyserver.admin.service import Service
from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.app.resolver import Lookups
from keyserver.mailflow.intake import Intake
from keyserver.model import View
from keyserver.resolver.upkeep import Upkeep


def make_service(context: Context, cache: Cache, lookups: Lookups, upkeep: Upkeep, intake: Intake) -> Service:
    """The operations; they answer as the default view does."""
    policy, clocks = context.config.policy, context.clocks
    return Service(
        store=cache.store,
        resolver=lookups.resolver,
        cleaner=lookups.cleaner,
        hygiene=cache.hygiene,
        terms=context.terms,
        view=View("default", policy.answer_mailflow),
        clock=clocks.now,
        monotonic=clocks.monotonic,
        harvester=intake,
        purge_expired=upkeep.purge_now,
        max_certificate=policy.max_certificate_size,
        text_search=policy.text_search != "off",
        identity=context.observer.identity,
    )
