"""What fuzzing has found stays mended, and the targets of `scripts/fuzz` hold for what they begin with."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fuzz.register import TARGETS
from fuzz.target import joined, parts

VECTORS = Path(__file__).parents[2] / "vectors" / "fuzz"
A_FEW = 2


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_what_was_found_and_what_it_begins_with(name: str) -> None:
    target = TARGETS[name]
    seeds = list(itertools.islice(target.seeds(), A_FEW))
    assert seeds
    found = [file.read_bytes() for file in sorted((VECTORS / name).glob("*"))]
    for octets in (b"", b"\0", *found, *seeds, *(seed[: len(seed) // 2] for seed in seeds)):
        target.run(octets)


def test_fields_are_taken_apart_as_they_were_joined() -> None:
    assert parts(joined(b"a", b"", rest=b"xyz")) == ([b"a", b""], b"xyz")
    assert parts(b"\0\7ab", 1) == ([b"ab"], b"")
