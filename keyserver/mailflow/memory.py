"""Memory that all mail on its way may take together: who gets none gives its mail up, and no mail waits."""

from __future__ import annotations

CAPACITY = 64 << 20  # octets
MAX_MAILS = 2000  # a mail of a few octets has its cost, too
OVERHEAD = 1024  # octets that a mail takes besides its own


class MailMemory:
    """A counter with a ceiling, for one event loop."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self.used = 0

    def take(self, octets: int) -> bool:
        """Is there room for so many more? Where there is, they are counted."""
        if self.used + octets > self._capacity:
            return False
        self.used += octets
        return True

    def give(self, octets: int) -> None:
        self.used -= octets


class ArrivingMail:
    """The octets of one mail while it arrives: kept up to a limit and while there is room, else forgotten."""

    def __init__(self, memory: MailMemory, most: int) -> None:
        self._memory = memory
        self._most = most
        self._pieces: list[bytes] = []
        self.held = 0  # octets of room that this mail takes
        self.size = 0  # octets that came
        self.cut = False  # larger than `most`
        self.shed = not self._grow(OVERHEAD)

    def add(self, octets: bytes) -> None:
        self.size += len(octets)
        if self.cut or self.shed:
            return
        if self.size > self._most:
            self.cut = True
        elif not self._grow(len(octets)):
            self.shed = True
        else:
            self._pieces.append(octets)
            return
        self._pieces.clear()

    def take(self) -> bytes:
        """The whole mail, once; its room stays taken until `free`."""
        octets = b"".join(self._pieces)
        self._pieces.clear()
        return octets

    def free(self) -> None:
        """Forget everything; a second call does nothing."""
        self._pieces.clear()
        self._memory.give(self.held)
        self.held = 0

    def _grow(self, octets: int) -> bool:
        if not self._memory.take(octets):
            return False
        self.held += octets
        return True
