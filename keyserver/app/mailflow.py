"""The mail flow without its listeners."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from keyserver.app.cache import Cache
from keyserver.app.context import Context
from keyserver.mailflow.counts import Counts
from keyserver.mailflow.intake import Intake
from keyserver.mailflow.memory import MailMemory
from keyserver.mailflow.values import Rules
from keyserver.resolver.cleaner import Cleaner
from keyserver.rules import InForce


@contextlib.contextmanager
def open_mailflow(
    context: Context, cache: Cache, cleaner: Cleaner, rules: InForce[Rules], fresh: Callable[[str, str], None]
) -> Iterator[Intake]:
    """The intake; its `run` is the caller's to start. fresh: see there."""
    intake = Intake(
        store=cache.store,
        cleaner=cleaner,
        hygiene=cache.hygiene,
        rules=rules,
        clock=context.clocks.now,
        counts=Counts(context.observer.registry),
        identity=context.observer.identity,
        memory=MailMemory(),
        fresh=fresh,
    )
    try:
        yield intake
    finally:
        intake.close()
