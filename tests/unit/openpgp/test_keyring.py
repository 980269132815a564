"""Cutting keyrings into certificates: the same at every cut of the input, and never more than the cap in memory."""

import binascii
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.model import Cut, Piece, Skipped
from keyserver.openpgp.armor import armor
from keyserver.openpgp.keyring import Splitter

CAP = 1 << 20
DEBIAN = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def split(data: bytes, step: int = 0, cap: int = CAP) -> list[Piece]:
    splitter = Splitter(cap)
    pieces: list[Piece] = []
    for at in range(0, len(data), step or max(1, len(data))):
        pieces += splitter.feed(data[at : at + step] if step else data)
    return [*pieces, *splitter.end()]


def new(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 192:
        length = bytes([size])
    elif size < 8384:
        length = bytes([((size - 192) >> 8) + 192, (size - 192) & 0xFF])
    else:
        length = b"\xff" + size.to_bytes(4, "big")
    return bytes([0xC0 | tag]) + length + body


def old(tag: int, body: bytes, octets: int) -> bytes:
    return bytes([0x80 | tag << 2 | {1: 0, 2: 1, 4: 2}[octets]]) + len(body).to_bytes(octets, "big") + body


def certificate(n: int, bulk: int = 10) -> bytes:
    return new(6, bytes([4, n]) * 20) + new(13, b"user %d" % n) + new(2, b"s" * bulk) + old(14, b"sub", 1)


CERTIFICATES = [certificate(1), certificate(2, 200), certificate(3, 9000), certificate(4)]
KEYRING = b"".join(CERTIFICATES)


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 64, 1000])
def test_binary_keyring_at_any_cut(step: int) -> None:
    assert split(KEYRING, step) == [Cut(c) for c in CERTIFICATES]


@pytest.mark.parametrize("step", [0, 1, 3, 65, 1000])
def test_armored_blocks_with_text_around_at_any_cut(step: int) -> None:
    text = (
        b"\xef\xbb\xbf"
        + armor(b"".join(CERTIFICATES[:3]))
        + b"<p>and another</p>\r\n<pre>"
        + armor(CERTIFICATES[3], crc=False).replace(b"\n", b" \r\n")
        + b"</pre>"
    )
    assert split(text, step) == [Cut(c) for c in CERTIFICATES]


def test_armor_headers_and_one_long_line() -> None:
    inner = binascii.b2a_base64(KEYRING, newline=False)
    text = (
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nVersion: x\nComment:\n\n%s\n-----END PGP PUBLIC KEY BLOCK-----" % inner
    )
    assert split(text) == split(text, 5) == [Cut(c) for c in CERTIFICATES]


def test_armor_without_an_empty_line_is_read_as_elsewhere() -> None:
    text = armor(KEYRING).replace(b"\n\n", b"\n")
    assert split(text) == split(text, 1) == [Cut(c) for c in CERTIFICATES]


def test_every_length_form_and_partial_bodies() -> None:
    packets = old(6, b"k" * 300, 2) + old(13, b"u" * 70000, 4) + bytes([0xC2, 0xE3]) + b"12345678" + b"\x03abc"
    packets += bytes([0xC2, 0xFF]) + (5).to_bytes(4, "big") + b"hello"
    assert split(packets + CERTIFICATES[0]) == [Cut(packets), Cut(CERTIFICATES[0])]
    assert split(packets + CERTIFICATES[0], 1) == [Cut(packets), Cut(CERTIFICATES[0])]


def test_a_certificate_over_the_cap_is_skipped_and_the_next_one_read() -> None:
    big = certificate(9, 50_000)
    pieces = split(CERTIFICATES[0] + big + CERTIFICATES[1], 777, cap=20_000)
    assert pieces == [Cut(CERTIFICATES[0]), Skipped("a certificate larger than 20000 octets"), Cut(CERTIFICATES[1])]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello, this is no keyring", "neither"),
        (new(13, b"a user ID first"), "no certificate"),
        (KEYRING[:-2], "within a packet"),
        (b"\x1f\x8b\x08" + bytes(40), "neither"),
        (bytes(8) + b"KBXf" + bytes(40), "keybox"),
        (old(6, b"x", 1) + b"\x9b" + bytes(50), "indeterminate"),
        (armor(KEYRING)[:-60], "END line"),
        (armor(KEYRING).replace(b"PUBLIC", b"PRIVATE"), "no public key"),
        (armor(KEYRING).replace(b"\n\n", b"\nVersion: x\n"), "empty line"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n????\n-----END PGP PUBLIC KEY BLOCK-----\n", "base64"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nxsA\n-----END PGP PUBLIC KEY BLOCK-----\n", "cut short"),
    ],
)
def test_what_cannot_be_read_is_said_once(data: bytes, reason: str) -> None:
    for step in (0, 1):
        skipped = [p for p in split(data, step) if isinstance(p, Skipped)]
        assert len(skipped) == 1
        assert reason in skipped[0].reason


def test_a_bad_block_does_not_spoil_the_next() -> None:
    bad = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n\x01\x02\n-----END PGP PUBLIC KEY BLOCK-----\n"
    cut = armor(CERTIFICATES[1])[:-50]
    pieces = split(bad + cut + b"\n" + armor(CERTIFICATES[0]))
    assert [type(p) for p in pieces] == [Skipped, Skipped, Cut]
    assert pieces[-1] == Cut(CERTIFICATES[0])


def test_nothing_fed_is_nothing_found() -> None:
    assert split(b"") == []


@given(st.binary(max_size=400), st.integers(1, 50))
@settings(max_examples=300)
def test_hostile_octets_never_raise_and_cuts_do_not_matter(data: bytes, step: int) -> None:
    assert split(data, step) == split(data)
    assert all(len(p.octets) <= 100 for p in split(KEYRING[:5] + data, step, cap=100) if isinstance(p, Cut))


def test_memory_stays_bounded_for_an_endless_certificate() -> None:
    def flood() -> Iterator[bytes]:
        yield new(6, b"k" * 100)
        for _ in range(640):
            yield new(2, b"s" * 100_000)

    splitter = Splitter(200_000)
    tracemalloc.start()
    try:
        pieces = [p for chunk in flood() for p in splitter.feed(chunk)] + list(splitter.end())
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert [type(p) for p in pieces] == [Skipped]


def test_debians_archive_keyring_has_as_many_certificates_as_gpg_says(tmp_path: Path) -> None:
    if not DEBIAN.exists():
        pytest.fail("the package debian-archive-keyring is missing")
    data = DEBIAN.read_bytes()
    listing = subprocess.run(
        ["gpg", "--homedir", str(tmp_path), "--with-colons", "--show-keys", str(DEBIAN)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    pieces = split(data, 4096)
    assert len(pieces) == sum(line.startswith("pub:") for line in listing.splitlines()) > 3
    assert b"".join(p.octets for p in pieces if isinstance(p, Cut)) == data
