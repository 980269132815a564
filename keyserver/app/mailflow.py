"""The mail flow without its listeners."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.config import Config
from keyserver.mailflow.counts import Counts
from keyserver.mailflow.intake import Intake
from keyserver.mailflow.memory import MailMemory
from keyserver.mailflow.values import Rules
from keyserver.policy import with_subdomains
from keyserver.resolver.cleaner import Cleaner


@contextlib.contextmanager
def open_mailflow(context: Context, cache: Cache, cleaner: Cleaner) -> Iterator[Intake]:
    """The intake; its `run` is the caller's to start."""
    intake = Intake(
        store=cache.store,
        cleaner=cleaner,
        hygiene=cache.hygiene,
        rules=mailflow_rules(context.config),
        terms=context.terms,
        clock=context.clocks.now,
        counts=Counts(context.observer.registry),
        identity=context.observer.identity,
        memory=MailMemory(),
    )
    try:
        yield intake
    finally:
        intake.close()


def mailflow_rules(config: Config) -> Rules:
    """What the harvest goes by."""
    mailflow = config.mailflow
    return Rules(
        inbound_addresses=frozenset(mailflow.inbound_addresses),
        outbound_networks=mailflow.outbound_networks,
        authserv_id=mailflow.authserv_id,
        require_authenticated_sender=mailflow.require_authenticated_sender,
        internal_domains=with_subdomains(config.policy.internal_domains),
        hold_changed=mailflow.hold_changed,
        max_certificate=config.policy.max_certificate_size,
    )
