"""Pausing upstreams, and what they were told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from keyserver.admin.acts import Acts
from keyserver.admin.problems import NotKnown
from keyserver.resolver.disclosures import Disclosed, Disclosures
from keyserver.resolver.paused import Paused


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """Whether an upstream is asked."""

    upstream: str
    paused_at: int | None  # Unix seconds; None: it is not paused


class Pausing:
    """The operations; they raise as those of `Service` do."""

    def __init__(
        self,
        paused: Paused,
        disclosures: Disclosures,
        names: Callable[[], Collection[str]],
        acts: Acts,
    ) -> None:
        """`names`: of the upstreams that are configured now."""
        self._paused = paused
        self._disclosures = disclosures
        self._names = names
        self._note = acts.note

    async def pause(self, upstream: str) -> UpstreamState:
        """Ask it no more, until it is resumed: it counts as failed, and what it said before holds."""
        if upstream not in self._names():
            raise NotKnown(self._unknown(upstream))
        at = await self._paused.pause(upstream)
        self._note("pause", upstream=upstream)
        return UpstreamState(upstream, at)

    async def resume(self, upstream: str) -> UpstreamState:
        """Ask it again; one that is not configured any more can be resumed, too."""
        if upstream not in self._names() and upstream not in self._paused:
            raise NotKnown(self._unknown(upstream))
        await self._paused.resume(upstream)
        self._note("resume", upstream=upstream)
        return UpstreamState(upstream, None)

    def complaint(self) -> str:
        """What everybody is told of pauses; empty for none."""
        return self._paused.complaint(self._names())

    def told(self) -> Sequence[Disclosed]:
        """What each upstream was told, counted."""
        return self._disclosures.shown()

    def _unknown(self, upstream: str) -> str:
        return f"no upstream is named {upstream[:64]}; there are: {', '.join(self._names()) or 'none'}"
