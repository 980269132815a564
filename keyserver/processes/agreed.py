"""The configuration that all processes go by, in memory that they share: who is started later finds it there, too."""

from __future__ import annotations

import mmap

ROOM = 8 << 20
"""Octets that a configuration may take; pages that nobody touches take no memory."""


class Agreed:
    """Made before the processes are; only the core writes it. Two rooms take turns, so that whoever reads is not
    disturbed by the next writing, and notices the one after that."""

    def __init__(self) -> None:
        self._head = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")  # its number, and the length in each room
        self._rooms = tuple(mmap.mmap(-1, ROOM) for _ in range(2))

    @property
    def number(self) -> int:
        """How often it was replaced since the start."""
        return self._head[0]

    def read(self) -> tuple[int, bytes]:
        """Its number, and its octets; 0 and nothing: still that of the start."""
        while True:
            number = self.number
            octets = self._rooms[number % 2][: self._head[1 + number % 2]]
            if self.number == number:
                return number, octets

    def write(self, octets: bytes) -> None:
        """Another one. Raises ValueError for one that is too large."""
        if len(octets) > ROOM:
            raise ValueError(f"a configuration of {len(octets)} octets")
        following = self.number + 1
        self._rooms[following % 2][: len(octets)] = octets
        self._head[1 + following % 2] = len(octets)
        self._head[0] = following
