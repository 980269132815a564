"""Inviting owners of certificates to opt in."""

from __future__ import annotations

from keyserver.admin.acts import ACTOR, Actor
from keyserver.admin.operations import Operations
from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.app.resolver import Lookups
from keyserver.config.sections.mail import InviteSection
from keyserver.invite.automatic import AUTOMATIC, Automatic
from keyserver.invite.inviting import Inviting
from keyserver.model import Source
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


def make_automatic(context: Context, cache: Cache, settings: InForce[InviteSection]) -> Automatic:
    """Whom mail makes us invite, where that is switched on; its `run` is the caller's to start."""
    return Automatic(
        wanted=lambda: settings().automatic, invitations=cache.store.invitations, identity=context.observer.identity
    )


async def run_automatic(automatic: Automatic, operations: Operations) -> None:
    """Invite by the operation that administrators have, until cancelled."""
    ACTOR.set(Actor(AUTOMATIC, "mailflow", ""))

    async def invite(address: str, fingerprint: str) -> None:
        await operations.invitations.invite(address, fingerprint, Source.MAILFLOW)

    await automatic.run(invite)
