"""What is blocked, as last known: for when the store cannot say it, and upstreams are asked all the same."""

from __future__ import annotations

from keyserver.store.base import Store


class Blocks:
    """The fingerprints."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()

    async def renew(self, store: Store) -> None:
        """Read them again. Raises StoreError; then what was known stays."""
        self._known = frozenset(await store.blocked())

    def __contains__(self, fingerprint: str) -> bool:
        return fingerprint in self._known
