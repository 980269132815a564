"""Armor both ways (RFC 9580 section 6), and what of it the field sends."""

import base64
import itertools
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.openpgp import armor, dearmor
from keyserver.openpgp.armor import Armored, Event, Over, Reader, read_armor
from support.openpgp import armored, make, make_certificate

BEGIN, END = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
OCTETS = b"\x98" + bytes(range(200))
DATA = base64.b64encode(OCTETS)
LINES = b"\n".join(DATA[i : i + 64] for i in range(0, len(DATA), 64))


@given(st.binary(min_size=1, max_size=3000))
def test_there_and_back(octets: bytes) -> None:
    assert dearmor(armor(octets)) == (octets,)
    assert dearmor(armor(octets, crc=False)) == (octets,)


@given(st.binary(min_size=1, max_size=700))
def test_checksum_is_the_one_of_the_plain_algorithm(octets: bytes) -> None:
    assert armor(octets) == armored(octets).encode()


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_text_is_octets_or_malformed(before: bytes, inside: bytes) -> None:
    try:
        blocks = dearmor(before + BEGIN + inside + END)
    except Malformed:
        return
    assert blocks


def test_shape() -> None:
    lines = armor(OCTETS).split(b"\n")
    assert lines[:2] == [BEGIN, b""]
    assert lines[-2:] == [END, b""]
    assert {len(line) for line in lines[2:-4]} == {64}
    assert lines[-3].startswith(b"=")
    assert not any(line.startswith(b"=") for line in armor(OCTETS, crc=False).split(b"\n"))


TOLERATED = {
    "lf": BEGIN + b"\n\n" + LINES + b"\n" + END,
    "crlf": (BEGIN + b"\n\n" + LINES + b"\n=AAAA\n" + END + b"\n").replace(b"\n", b"\r\n"),
    "wrong checksum": BEGIN + b"\n\n" + LINES + b"\n=AAAA\n" + END,
    "headers": BEGIN + b"\nVersion: x 1.0\nComment: a\nand more of it\n\n" + LINES + b"\n" + END,
    "no empty line": BEGIN + b"\n" + LINES + b"\n" + END,
    "unwrapped": BEGIN + b"\n\n" + DATA + b"\n" + END,
    "odd wrapping": BEGIN + b"\n\n" + DATA[:1] + b"\n" + DATA[1:-1] + b"\n" + DATA[-1:] + b"\n" + END,
    "trailing spaces": BEGIN + b"  \n \n" + LINES.replace(b"\n", b" \t\n") + b"  \n" + END,
    "html": b"<!doctype html><html><body><h1>key</h1><pre>\n" + BEGIN + b"\n\n" + LINES + b"\n" + END + b"\n</pre>",
    "text around": b"Hello,\n\nhere it is: \n" + BEGIN + b"\n\n" + LINES + b"\n" + END + b"\nbye\n",
    "byte order mark": b"\xef\xbb\xbf" + BEGIN + b"\n\n" + LINES + b"\n" + END,
}


@pytest.mark.parametrize("name", TOLERATED)
def test_tolerated(name: str) -> None:
    assert dearmor(TOLERATED[name]) == (OCTETS,)


def test_several_blocks() -> None:
    first, second = make_certificate(), make_certificate()
    assert dearmor(armor(first) + b"and\n" + armor(second)) == (first, second)


def test_binary_as_it_is() -> None:
    octets = make_certificate()
    assert dearmor(octets) == (octets,)


MALFORMED = {
    "empty": b"",
    "text": b"No results found",
    "html": b"<html><body>No keys found</body></html>",
    "no end": BEGIN + b"\n\n" + LINES,
    "no base64": BEGIN + b"\n\n" + LINES.replace(b"A", b"!") + b"\n" + END,
    "cut off": BEGIN + b"\n\n" + LINES[:-3] + b"\n" + END,
    "nothing inside": BEGIN + b"\n\n\n" + END,
    "more behind the checksum": BEGIN + b"\n\n" + LINES + b"\n=AAAA\n" + LINES + b"\n" + END,
    "one end for two": BEGIN + b"\n\n" + LINES + b"\n" + BEGIN + b"\n\n" + LINES + b"\n" + END,
    "private": armor(OCTETS) + armor(OCTETS).replace(b"PUBLIC", b"PRIVATE"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    with pytest.raises(Malformed):
        dearmor(MALFORMED[name])


DAMAGED = {
    "cut off": (armor(OCTETS)[:-60], "END line"),
    "no base64": (armor(OCTETS).replace(DATA[:4], b"!" * 4), "not base64"),
    "padding within": (BEGIN + b"\n\nmA==\nmAAA\n" + END, "not base64"),
    "base64 cut short": (BEGIN + b"\n\n" + LINES[:-3] + b"\n" + END, "cut short"),
    "empty": (BEGIN + b"\n\n" + END, "empty"),
    "headers without an empty line": (BEGIN + b"\nVersion: x\n" + LINES + b"\n" + END, "empty line"),
    "goes on": (BEGIN + b"\n\n" + LINES + b"\n=AAAA\n" + LINES + b"\n" + END, "checksum"),
    "another END line": (armor(OCTETS).replace(END, END.replace(b"PUBLIC KEY BLOCK", b"MESSAGE")), "END line"),
    "private": (armor(OCTETS).replace(b"PUBLIC", b"PRIVATE"), "private key"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_costs_one_block_and_is_told(name: str) -> None:
    bad, reason = DAMAGED[name]
    one, two = make_certificate(seed="one"), make_certificate(seed="two")
    for text in (armor(one) + bad + b"\n" + armor(two), bad + armor(one) + armor(two)):
        found = read_armor(text)
        assert found.blocks == (one, two)
        assert len(found.damaged) == 1 and reason in found.damaged[0]


def test_other_blocks_are_neither_keys_nor_damage() -> None:
    other = b"-----BEGIN PGP SIGNATURE-----\n\nwsB=\n-----END PGP SIGNATURE-----\n"
    assert read_armor(other + armor(OCTETS) + other) == Armored((OCTETS,))
    assert read_armor(other) == read_armor(b"hello") == read_armor(b"") == Armored()


def test_a_key_inside_clearsigned_text() -> None:
    escaped = armor(OCTETS).replace(b"\n-----", b"\n- -----")
    text = b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nMy key:\n- " + escaped
    text += b"-----BEGIN PGP SIGNATURE-----\n\nwsB=\n-----END PGP SIGNATURE-----\n"
    assert read_armor(text) == read_armor(text.replace(b"\n", b"\r\n")) == Armored((OCTETS,))


def test_prose_may_begin_with_any_letter() -> None:
    text = "\u00dcber meinen Schl\u00fcssel:\n".encode() + armor(OCTETS)
    assert read_armor(text).blocks == (text,)
    assert read_armor(text, binary=False) == Armored((OCTETS,))


def test_damage_beyond_counting_is_not_all_kept() -> None:
    text = BEGIN * 1000 + armor(OCTETS) + b"".join(bad + b"\n" for bad, _ in DAMAGED.values()) * 50
    found = read_armor(text)
    assert found.blocks == (OCTETS,) and 3 < len(found.damaged) <= 8
    start = time.process_time()
    for flood in (BEGIN, b"-----BEGIN PGP MESSAGE-----", BEGIN + b"\n\nmQ==\n" + END):
        found = read_armor(armor(OCTETS) + flood * 400_000)
        assert found.blocks[0] == OCTETS and len(found.blocks) <= 10_000 and "10000" in found.damaged[0]
    assert time.process_time() - start < 1


def events(text: bytes, step: int) -> list[Event]:
    """What the reader tells of a text in pieces, octets that follow each other joined."""
    reader = Reader()
    told: list[Event] = []
    for at in [*range(0, len(text), step), None]:
        for event in reader.end() if at is None else reader.feed(text[at : at + step]):
            if isinstance(event, bytes) and told and isinstance(told[-1], bytes):
                told[-1] += event
            else:
                told.append(event)
    return told


PARTS = [
    BEGIN,
    END,
    b"\n",
    b"\r\n",
    b"\r",
    b"- ",
    b"-",
    b"=",
    b"=AAAA",
    LINES[:40],
    b"mQ",
    b"Version: x",
    b" ",
    b"\n\n",
]
PARTS += [armor(OCTETS), b"-----BEGIN PGP PRIVATE KEY BLOCK-----", b"\x00\xff"]


@given(st.lists(st.sampled_from(PARTS), max_size=25).map(b"".join), st.integers(1, 200))
def test_where_the_text_is_cut_makes_no_difference(text: bytes, step: int) -> None:
    told = events(text, step)
    # of a damaged block, more or less may have been handed out before the damage was seen
    assert [e for e in told if isinstance(e, Over)] == [e for e in events(text, len(text) + 1) if isinstance(e, Over)]
    assert read_armor(text, binary=False) == _folded(told)


def _folded(told: list[Event]) -> Armored:
    blocks = tuple(a for a, b in itertools.pairwise(told) if isinstance(a, bytes) and b == Over())
    return Armored(blocks, tuple(dict.fromkeys(_told(e) for e in told if _told(e)))[:8])


def _told(event: Event) -> str:
    if isinstance(event, bytes) or (b"PRIVATE" not in event.label and event.label != Over().label):
        return ""
    return "a private key block, which nobody should send to a keyserver" if b"PRIV" in event.label else event.problem


def test_cost_is_linear() -> None:
    octets = os.urandom(4 << 20)
    start = time.process_time()
    assert dearmor(armor(octets)) == (octets,)
    assert dearmor(b"-----BEGIN PGP PUBLIC KEY BLOC" * 50_000 + armor(b"\x98")) == (b"\x98",)
    assert len(events(BEGIN + b"\n\n" + LINES[:64] * 1000, 1)) == 2
    assert time.process_time() - start < 2  # a table in Python needs 0.8 s for the checksum alone; quadratic: minutes


def test_armored_certificate_is_what_gpg_writes() -> None:
    made = make()
    assert armor(made.octets).decode() == made.armored
