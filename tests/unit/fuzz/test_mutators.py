"""What the fuzzer changes gets past the first look of what reads it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from fuzz import mutators
from fuzz.target import joined, parts
from keyserver.openpgp import packets
from keyserver.openpgp.armor import armor, dearmor
from keyserver.wire import ber, milter, socketmap
from support import milter_client
from support.openpgp import make
from support.x509 import authority

TIMES = 60


def longer(part: bytes) -> bytes:
    """In place of the fuzzer's own mutation."""
    return part + b"\x01"


def read_packets(octets: bytes) -> int:
    return len(list(packets.walk(octets, 1000)))


def read_armor(octets: bytes) -> int:
    return len(dearmor(octets)) if octets else 0


def read_elements(octets: bytes) -> int:
    at, count = 0, 0
    while at < len(octets):
        _, _, at = ber.header(octets, at, len(octets))
        count += 1
    return count


def read_frames(octets: bytes) -> int:
    return len(list(milter.Reader().feed(octets)))


def read_netstrings(octets: bytes) -> int:
    reader, count = socketmap.Reader(), 0
    reader.add(octets)
    while reader.next() is not None:
        count += 1
    assert reader.empty
    return count


CERTIFICATE = make(seed="fuzz").octets
CASES: dict[str, tuple[mutators.Mutator, Callable[[bytes], int], bytes]] = {
    "packets": (mutators.openpgp, read_packets, CERTIFICATE),
    "elements": (mutators.elements, read_elements, authority().der),
    "milter": (mutators.milter_frames, read_frames, milter_client.negotiate() + milter_client.frame("E") * 2),
    "netstrings": (mutators.netstrings, read_netstrings, socketmap.netstring(b"a b") + socketmap.netstring(b"c d")),
}


@pytest.mark.parametrize("name", CASES)
def test_lengths_are_right_and_pieces_come_and_go(name: str) -> None:
    mutate, read, octets = CASES[name]
    made = [mutate(octets, Random(seed), longer) for seed in range(TIMES)]
    counts = {read(one) - read(octets) for one in made if one}
    assert len(set(made)) > 4
    assert {0, 1} <= counts <= {-1, 0, 1}
    assert -1 in counts or name == "elements"  # which has one outermost


def test_armor_is_whole_unless_it_is_changed_anyhow() -> None:
    anyhow = armor(CERTIFICATE) + b"\x01"
    made = [mutators.armored(armor(CERTIFICATE), Random(seed), longer) for seed in range(TIMES)]
    assert anyhow in made
    assert len({dearmor(one) for one in made if one and one != anyhow}) > 4


def test_one_field_of_several_is_changed() -> None:
    mutate = mutators.of_fields(mutators.anyhow, mutators.anyhow)
    made = {mutate(joined(b"a", rest=b"b"), Random(seed), longer) for seed in range(TIMES)}
    assert sorted(parts(one, 1) for one in made) == [([b"a"], b"b\x01"), ([b"a\x01"], b"b")]
