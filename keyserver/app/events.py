"""Who tells others what changed: the webhook, and the feed of the admin API."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

from keyserver.app.context import CannotStart, Context
from keyserver.config import Config
from keyserver.config.passwords import read_password
from keyserver.events.feed import Feed
from keyserver.events.form import told
from keyserver.events.posting import Poster, Target
from keyserver.events.webhook import Webhook
from keyserver.resolver.membership import Membership
from keyserver.store.base import Store


@dataclass(frozen=True, slots=True)
class Events:
    """One of each. The webhook's `run` is the caller's to start."""

    webhook: Webhook
    feed: Feed


@contextlib.asynccontextmanager
async def open_events(context: Context, store: Store, membership: Membership) -> AsyncIterator[Events]:
    """Both, until the block ends. Raises CannotStart."""
    target = target_of(context.config)
    clocks, observer = context.clocks, context.observer
    node = context.config.server.node or socket.gethostname()
    poster = Poster(clocks.now)
    webhook = Webhook(
        store.history,
        poster,
        leads=lambda: membership.leads,
        told=lambda event: {**told(event, observer.identity), "node": node},
        clock=clocks.now,
        monotonic=clocks.monotonic,
        random=random.random,
        registry=observer.registry,
    )
    webhook.change(target)
    try:
        yield Events(webhook, Feed(store.history))
    finally:
        await poster.close()


def target_of(config: Config) -> Target | None:
    """Where events go, with the secret as the file has it now; None: nowhere. Raises CannotStart."""
    url, file = config.events.webhook, config.events.webhook_secret_file
    if not url or file is None:
        return None
    try:
        return Target(url, read_password("events.webhook_secret_file", file))
    except OSError as problem:
        raise CannotStart(f"events.webhook_secret_file: {file}: {problem.strerror or problem}") from None
