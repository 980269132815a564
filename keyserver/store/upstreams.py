"""What is kept about upstreams, beside what they said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class AboutUpstreams(Protocol):
    """Kept by the upstream's name, whether it is configured or not. Raises StoreError."""

    async def pauses(self) -> Mapping[str, int]:
        """The upstreams that are paused: name -> since when, Unix seconds."""

    async def pause(self, upstream: str, now: int) -> int:
        """Note that it is paused; since when. A second call changes nothing."""

    async def resume(self, upstream: str, now: int | None = None) -> bool:
        """Take the pause away; was there one? now: for the history (None: the database's clock)."""

    async def told(self) -> Mapping[str, bytes]:
        """What was kept last of each upstream's disclosures, as `keep_told` got it."""

    async def keep_told(self, upstream: str, before: bytes | None, counts: bytes) -> bool:
        """Keep an upstream's counts if those kept so far are still these (None: there are none); were they?

        So nodes that count at the same time lose nothing: who comes too late reads, adds its own, and tries again."""
