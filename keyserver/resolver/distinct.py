"""How many different values there were, in little memory. Pure.

Of uniformly hashed values the smallest are kept, and how far they reach: they are as dense as all of them (a theta
sketch: Dasgupta, Lang, Rhodes, Thaler: A Framework for Estimating Stream Expression Cardinalities, ICDT 2016). No value
can be read out of it by who does not know the hash's key.
"""

from __future__ import annotations

import base64
import math
from bisect import bisect_left

_ALL = 1 << 64


class Distinct:
    """A count: exact up to `size` values, an estimate beyond."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._reach = _ALL  # every hash below it is kept
        self._hashes: list[int] = []

    def add(self, hashed: int) -> None:
        """Count a value, by its hash of 64 bits."""
        if hashed >= self._reach:
            return
        place = bisect_left(self._hashes, hashed)
        if place == len(self._hashes) or self._hashes[place] != hashed:
            self._hashes.insert(place, hashed)
            if len(self._hashes) > self._size:
                self._reach = self._hashes.pop()

    def take(self, other: Distinct) -> None:
        """Count what the other has counted."""
        self._reach = min(self._reach, other._reach)
        self._hashes = self._hashes[: bisect_left(self._hashes, self._reach)]
        for hashed in other._hashes:
            self.add(hashed)

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self._hashes) if self._reach == _ALL else round(len(self._hashes) * _ALL / self._reach)

    @property
    def error(self) -> float:
        """The relative standard error of `count`; 0 where it is exact."""
        return 0.0 if self._reach == _ALL else round(1 / math.sqrt(max(1, len(self._hashes))), 3)

    def written(self) -> str:
        """As text, for `read`."""
        numbers = (self._reach - 1, *self._hashes)
        return base64.b64encode(b"".join(n.to_bytes(8, "big") for n in numbers)).decode()

    @classmethod
    def read(cls, text: str, size: int) -> Distinct:
        """What `written` gave. Raises ValueError."""
        octets = base64.b64decode(text, validate=True)
        numbers = [int.from_bytes(octets[at : at + 8], "big") for at in range(0, len(octets), 8)]
        if not numbers or len(octets) % 8:
            raise ValueError("not a count")
        found = cls(size)
        found._reach = numbers[0] + 1
        for hashed in numbers[1:]:
            found.add(hashed)
        return found
