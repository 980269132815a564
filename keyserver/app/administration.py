"""Administration without its listener: the operations that API, pages and command line share."""

from __future__ import annotations

from collections.abc import Sequence

from keyserver.admin.access import Access, FirstToken
from keyserver.admin.acts import Acts
from keyserver.admin.api.guard import Rules
from keyserver.admin.api.places import Places
from keyserver.admin.auditing import Auditing
from keyserver.admin.bulk import Bulk
from keyserver.admin.concerns import MailLoad
from keyserver.admin.encrypting import Encrypting
from keyserver.admin.explaining import Explaining
from keyserver.admin.health import Pulse, pulse_of
from keyserver.admin.history import Histories
from keyserver.admin.invitations import Invitations
from keyserver.admin.operations import Operations
from keyserver.admin.outlook import Outlooks
from keyserver.admin.overview import Overview
from keyserver.admin.pausing import Pausing
from keyserver.admin.service import Service
from keyserver.admin.tokens import Tokens
from keyserver.admin.undoing import Undoing
from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.app.crls import Crls
from keyserver.app.events import Events
from keyserver.app.resolver import Lookups
from keyserver.app.verdicts import policies
from keyserver.config import Config
from keyserver.faces.context import FaceRules
from keyserver.invite.inviting import Inviting
from keyserver.listen.trust import Trust, plain
from keyserver.mailflow.intake import Intake, Status
from keyserver.mailflow.memory import CAPACITY, MAX_MAILS
from keyserver.observe import Observer
from keyserver.resolver.upkeep import Upkeep
from keyserver.rules import InForce
from keyserver.verdict.asking import Verdicts


def make_operations(
    context: Context,
    cache: Cache,
    lookups: Lookups,
    upkeep: Upkeep,
    intake: Intake,
    verdicts: Verdicts,
    inviting: Inviting,
    faces: InForce[FaceRules],
    crls: Crls,
    events: Events,
    outlooks: Outlooks,
) -> Operations:
    """One of each."""
    clocks, mine = context.clocks, context.installation
    kept = cache.store.administration
    acts = Acts(kept, context.observer.identity, clocks.now)
    access = Access(kept, FirstToken(mine.token, mine.token_mark), clocks.now, clocks.monotonic)
    resolver = lookups.resolver
    service = _service(context, cache, lookups, upkeep, intake, acts)

    def pulses() -> Sequence[Pulse]:
        return [pulse_of(status, context.observer.traffic) for status in resolver.statuses()]

    explaining = Explaining(store=cache.store, whole=service.whole, rules=lookups.rules, clock=clocks.now)
    undoing = Undoing(
        store=cache.store, find=service.finding.find, terms=lambda: lookups.rules().terms, clock=clocks.now, acts=acts
    )
    return Operations(
        service=service,
        explaining=explaining,
        encrypting=Encrypting(verdicts, lambda: policies(faces()), resolver.refresh),
        invitations=Invitations(service=service, inviting=inviting, store=cache.store, acts=acts, clock=clocks.now),
        undoing=undoing,
        bulk=Bulk(service, undoing, explaining),
        pausing=Pausing(
            lookups.paused, lookups.disclosures, lambda: [status.name for status in resolver.statuses()], acts
        ),
        access=access,
        acts=acts,
        tokens=Tokens(kept, access, acts, clocks.now),
        auditing=Auditing(kept, acts),
        histories=Histories(
            store=cache.store,
            hygiene=cache.hygiene,
            matching=service.matching,
            clock=clocks.now,
            monotonic=clocks.monotonic,
            changes=cache.changes,
            acts=acts,
        ),
        outlooks=outlooks,
        overview=Overview(
            service=service,
            pulses=pulses,
            stats=cache.store.stats,
            mail=lambda: _load(intake.status()),
            traffic=context.observer.traffic,
            complaint=lambda: upkeep.clockwatch.complaint,
            differing=upkeep.membership.differences,
            lists=crls.standings,
            webhook=lambda: events.webhook.status,
            clock=clocks.now,
        ),
        feed=events.feed,
        nodes=upkeep.membership.nodes,
        pulses=pulses,
        clock=clocks.now,
    )


def _load(mail: Status) -> MailLoad:
    return MailLoad(max(mail.waiting / MAX_MAILS, mail.waiting_octets / CAPACITY), mail.shed)


def _service(context: Context, cache: Cache, lookups: Lookups, upkeep: Upkeep, intake: Intake, acts: Acts) -> Service:
    """The operations on the cache; they answer as the default view does."""
    clocks = context.clocks
    return Service(
        store=cache.store,
        resolver=lookups.resolver,
        cleaner=lookups.cleaner,
        hygiene=cache.hygiene,
        rules=lookups.rules,
        clock=clocks.now,
        monotonic=clocks.monotonic,
        harvester=intake,
        purge_expired=upkeep.purge_now,
        acts=acts,
    )


def rules_of(config: Config, trust: Trust, observer: Observer) -> Rules:
    """What the admin listener's guard goes by."""
    admin = config.admin
    own = admin.listen.host if admin.listen is not None else ""
    places = Places(frozenset(plain(name) for name in (*admin.hosts, own) if name), admin.public_url)
    return Rules(places, trust, None if admin.viewer_identities else observer.hashed)
