"""Armor both ways (RFC 9580 section 6), and what of it the field sends."""

import base64
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.openpgp import armor, dearmor
from vectors.build import armored, make, make_certificate

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


def test_cost_is_linear() -> None:
    octets = os.urandom(4 << 20)
    start = time.process_time()
    assert dearmor(armor(octets)) == (octets,)
    assert dearmor(b"-----BEGIN PGP PUBLIC KEY BLOC" * 50_000 + armor(b"\x98")) == (b"\x98",)
    assert time.process_time() - start < 2  # a table in Python needs 0.8 s for the checksum alone; quadratic: minutes


def test_armored_certificate_is_what_gpg_writes() -> None:
    made = make()
    assert armor(made.octets).decode() == made.armored
