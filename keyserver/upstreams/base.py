"""What an upstream is: a spec, and one method that asks.

A new protocol is one module that describes itself (`protocol`), and one line in `register`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from keyserver.model import Outcome, UpstreamSpec
from keyserver.query import Query


async def nothing_known() -> bool:
    """Nobody remembers a host."""
    return False


@dataclass(frozen=True, slots=True)
class Asking:
    """What accompanies one question."""

    left: float  # seconds until the answer must be here
    via: str  # names of the instances that this question came through, ours last, separated by commas
    answered: Callable[[], Awaitable[bool]] = nothing_known
    """Is anything kept that this upstream said of the address's domain? Then a template's host exists, and has failed
    where it does not answer. Asked before silence is taken for absence; never raises."""


class Upstream(Protocol):
    """A keyserver or directory that we ask.

    `fetch` returns an Outcome and never raises (CancelledError excepted): whatever goes wrong is Failed with a reason
    for people. It keeps within `asking.left` seconds and its own size limits, whatever the other side does. Octets in
    Found are unarmored and unverified; proving them is the resolver's.
    """

    spec: UpstreamSpec
    """Replaced when priority, domains or times change, while connections and what is known of hosts live on."""

    def target(self, query: Query) -> str:
        """Whose health a question concerns: the upstream's name, or the host that a template makes of the address."""

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Ask once."""

    async def close(self) -> None:
        """Give back connections and threads."""
