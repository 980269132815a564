"""Inviting owners of certificates to opt in."""

from __future__ import annotations

from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.app.resolver import Lookups
from keyserver.config.models import InviteSection
from keyserver.invite.inviting import Inviting
from keyserver.rules import InForce


def make_inviting(context: Context, cache: Cache, lookups: Lookups, settings: InForce[InviteSection]) -> Inviting:
    """The one way in which anybody is invited."""
    return Inviting(
        store=cache.store,
        hygiene=cache.hygiene,
        settings=settings,
        rules=lookups.rules,
        clock=context.clocks.now,
        count=context.observer.invitation,
    )
