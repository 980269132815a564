"""What an upstream is: a spec, and one method that asks.

A new protocol is one module and one line in `app.parts.SCHEMES`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from keyserver.model import Outcome, UpstreamSpec
from keyserver.query import Query


@dataclass(frozen=True, slots=True)
class Asking:
    """What accompanies one question."""

    left: float  # seconds until the answer must be here
    via: str  # names of the instances that this question came through, ours last, separated by commas


class Upstream(Protocol):
    """A keyserver or directory that we ask.

    `fetch` returns an Outcome and never raises (CancelledError excepted): whatever goes wrong is Failed with a reason
    for people. It keeps within `asking.left` seconds and its own size limits, whatever the other side does. Octets in
    Found are unarmored and unverified; proving them is the resolver's.
    """

    spec: UpstreamSpec

    def target(self, query: Query) -> str:
        """Whose health a question concerns: the upstream's name, or the host that a template makes of the address."""

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Ask once."""

    async def close(self) -> None:
        """Give back connections and threads."""
