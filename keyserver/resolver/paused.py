"""Upstreams that an administrator has paused: kept in the store, known here, and by all nodes that share it.

A paused upstream counts as failed in every query. What it said before holds as long as it would have.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator

from keyserver.model import joined
from keyserver.store.base import StoreError
from keyserver.store.upstreams import AboutUpstreams

log = logging.getLogger("keyserver.upstreams")


class Paused:
    """Which, and since when (Unix seconds)."""

    def __init__(self, kept: AboutUpstreams, clock: Callable[[], int]) -> None:
        self._kept = kept
        self._clock = clock
        self._since: dict[str, int] = {}
        self._acts = 0  # of ours, begun or ended

    async def load(self) -> None:
        """Read them, and say so in the log: nobody should have to wonder why an upstream is not asked."""
        try:
            self._since = dict(await self._kept.pauses())
        except StoreError as problem:
            log.error("which upstreams are paused cannot be read, so none is: %s", problem)
        for name, at in self._since.items():
            ago = max(0, self._clock() - at)
            log.warning("upstream %s was paused %d s ago: it is not asked, and counts as failed", name, ago)

    async def look(self) -> None:
        """Go by what other nodes have paused and resumed. Raises StoreError."""
        acts = self._acts
        kept = dict(await self._kept.pauses())
        if acts != self._acts:
            return  # an act of ours went by: what was read may lie before or behind it
        for name in sorted(kept.keys() - self._since.keys()):
            log.warning("upstream %s was paused on another node: it is not asked, and counts as failed", name)
        for name in sorted(self._since.keys() - kept.keys()):
            log.warning("upstream %s was resumed on another node", name)
        self._since = kept

    async def pause(self, upstream: str) -> int:
        """From now on it is not asked; since when."""
        with self._acting():
            at = await self._kept.pause(upstream, self._clock())
            self._since[upstream] = at
        return at

    async def resume(self, upstream: str) -> None:
        """It is asked again."""
        with self._acting():
            await self._kept.resume(upstream, self._clock())
            self._since.pop(upstream, None)

    @contextlib.contextmanager
    def _acting(self) -> Iterator[None]:
        self._acts += 1
        try:
            yield
        finally:
            self._acts += 1

    def since(self, upstream: str) -> int | None:
        """None: it is not paused."""
        return self._since.get(upstream)

    def complaint(self, upstreams: Collection[str]) -> str:
        """What is said to everybody; empty where none of these is paused."""
        names = [name for name in upstreams if name in self._since]
        return f"paused by an administrator, so not asked: {joined(names)}" if names else ""

    def __contains__(self, upstream: str) -> bool:
        return upstream in self._since
