"""What an object holds, seen from outside: bounds are tested without knowing where it keeps its octets."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from types import ModuleType


def octets_held(by: object) -> int:
    """Octets of all bytes and bytearrays that it refers to, directly or not; types and modules are not its own."""
    return sum(len(one) for one in _reached(by) if isinstance(one, bytes | bytearray))


def _reached(start: object) -> Iterator[object]:
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | ModuleType) or callable(one):
            continue
        seen.add(id(one))
        yield one
        waiting += gc.get_referents(one)
