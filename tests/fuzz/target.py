"""What is fuzzed: a function of octets, beginnings for the fuzzer, and how long its inputs grow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from keyserver.model import Malformed

T = TypeVar("T")
NOW = 1_790_000_000  # 2026-09-21


@dataclass(frozen=True, slots=True)
class Target:
    """`run` raises for a finding: whatever the product may not raise, or an assertion of its own. `seeds`: octets to
    begin with; `most`: octets of one input; `mutate`: one of `mutators`, where octets changed anyhow are mostly refused
    at once; `words`: that the fuzzer may put in."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    most: int = 4096
    mutate: Callable[[bytes, Random, Callable[[bytes], bytes]], bytes] | None = None
    words: Sequence[bytes] = ()


def unless_malformed(read: Callable[[], T]) -> T | None:
    """What is read, None where it is refused in the one way that is allowed."""
    try:
        return read()
    except Malformed:
        return None


def parts(octets: bytes, number: int = 2) -> tuple[list[bytes], bytes]:
    """Fields out of one input: each with its length in two octets; and the rest."""
    found = []
    for _ in range(number):
        length = int.from_bytes(octets[:2], "big")
        found.append(octets[2 : 2 + length])
        octets = octets[2 + length :]
    return found, octets


def joined(*fields: bytes, rest: bytes = b"") -> bytes:
    """The opposite of `parts`, for seeds."""
    return b"".join(len(field).to_bytes(2, "big") + field for field in fields) + rest


def at_any_cut(octets: bytes, read: Callable[[Sequence[bytes]], T]) -> None:
    """A stream reads the same, however it is cut: once whole, once in two, once octet by octet where it is short. The
    first two octets say where."""
    cut, stream = int.from_bytes(octets[:2], "big"), octets[2:]
    whole = read([stream])
    cut %= len(stream) + 1
    assert read([stream[:cut], stream[cut:]]) == whole, "another cut, another reading"
    if len(stream) <= 256:
        assert read([stream[at : at + 1] for at in range(len(stream))]) == whole, "another reading octet by octet"


def events(feed: Callable[[bytes], Iterator[T]], pieces: Sequence[bytes]) -> list[T | str]:
    """All that a reader gives for some pieces; the refusal that ends it last."""
    found: list[T | str] = []
    try:
        for piece in pieces:
            for event in feed(piece):
                found.append(event)
    except Malformed as problem:
        found.append(str(problem))
    return found
