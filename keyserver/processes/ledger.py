"""Connections of one client in all fronts together: a table in shared memory, of which each front writes its own row.

A client is a place in the table, by a hash that nobody outside can compute. Two that share a place are counted
together: then too many are seen, never too few.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

SLOTS = 1 << 16
"""Places of a row, four octets each; pages that nobody touches take no memory."""


class Ledger:
    """The table, made before the fronts are."""

    def __init__(self, fronts: int) -> None:
        self._fronts = fronts
        self._cells = memoryview(mmap.mmap(-1, 4 * SLOTS * fronts)).cast("I")

    def begin(self, front: int) -> None:
        """A front begins: what the one before it in its row has left is void."""
        self._cells[front * SLOTS : (front + 1) * SLOTS] = memoryview(bytes(4 * SLOTS)).cast("I")

    def page(self, front: int, listener: str) -> LedgerPage:
        """What a front sees of it for one listener."""
        return LedgerPage(self._cells, self._fronts, front, listener)


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """One listener's clients, as one front counts them: see `listen.clients.Elsewhere`."""

    cells: memoryview
    fronts: int
    front: int
    listener: str

    def others(self, client: str) -> int:
        """Connections of this client in all other fronts."""
        place = hash((self.listener, client)) % SLOTS
        return sum(self.cells[row * SLOTS + place] for row in range(self.fronts) if row != self.front)

    def note(self, client: str, change: int) -> None:
        """One more here, or one less."""
        self.cells[self.front * SLOTS + hash((self.listener, client)) % SLOTS] += change
