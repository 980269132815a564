"""An upstream in the test's own process, that says what it is told; `scripted.py` is the one behind a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from keyserver.model import Absent, Outcome, UpstreamSpec
from keyserver.query import Query
from keyserver.upstreams.base import Asking

NOTHING = Absent("it says so")


@dataclass(eq=False)
class Told:
    """Says what stands in `answers` for a query, `otherwise` for any other; an outcome, or what makes one."""

    spec: UpstreamSpec
    answers: dict[str, Outcome | Callable[[], Outcome]] = field(default_factory=dict)
    otherwise: Outcome | Callable[[], Outcome] = NOTHING
    delay: float = 0.0  # seconds before each answer
    open: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: answers wait until it is set
    asked: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    def target(self, query: Query) -> str:
        """Whose health this concerns."""
        return self.spec.name

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Ask once."""
        assert asking.via, "without our name a loop could not be noticed"
        self.asked.append(str(query))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.open.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
            return self.says(query)
        finally:
            self.at_once -= 1

    def says(self, query: Query) -> Outcome:
        """The answer."""
        answer = self.answers.get(str(query), self.otherwise)
        return answer() if callable(answer) else answer

    async def close(self) -> None:
        """Nothing to give back."""
