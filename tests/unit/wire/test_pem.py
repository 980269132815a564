"""Streams of X.509 certificates, cut anywhere."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Cut, Piece, Skipped
from keyserver.wire.pem import Blocks, is_x509
from support.memory import octets_held


def block(label: str, octets: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(octets).decode()}-----END {label}-----\n".encode()


STREAM = (
    b"Bag Attributes\n  friendlyName: alice\n"
    + block("CERTIFICATE", b"\x30one")
    + block("PRIVATE KEY", b"\x30secret")
    + b"-----BEGIN CERTIFICATE-----\r\nMHR3\r\nbw==\r\n-----END CERTIFICATE-----\r\n"
    + block("PKCS7", b"\x30bundle" * 50)
)


def cut(stream: bytes, *sizes: int, cap: int = 4096) -> list[Piece]:
    blocks, found = Blocks(cap), []
    for size in sizes:
        found += blocks.feed(stream[:size])
        stream = stream[size:]
    found += blocks.feed(stream)
    return [*found, *blocks.end()]


@pytest.mark.parametrize("size", range(0, len(STREAM), 7))
def test_the_same_at_every_cut(size: int) -> None:
    assert cut(STREAM, size) == [
        Cut(b"\x30one"), Skipped("a private key: not stored"), Cut(b"\x30two"), Cut(b"\x30bundle" * 50)
    ]  # fmt: skip


def test_der_is_one_value() -> None:
    assert cut(b"\x30\x03abc", 1) == [Cut(b"\x30\x03abc")]
    assert cut(b"\x30" * 5000) == [Skipped("larger than any certificate")]


def test_what_is_too_large_or_cut_off() -> None:
    big = block("CERTIFICATE", bytes(8000))
    assert cut(big + block("CERTIFICATE", b"\x30x"), 5000)[-1] == Cut(b"\x30x")
    assert Skipped("larger than any certificate") in cut(big, 5000)
    assert cut(block("CERTIFICATE", b"\x30x")[:-20]) == [Skipped("the last block is cut off")]


def test_a_block_that_is_cut_off_does_not_cost_the_next() -> None:
    stream = block("CERTIFICATE", b"\x30one" * 30)[:-40] + b"\n" + block("CERTIFICATE", b"\x30two")
    for size in range(len(stream)):
        assert cut(stream, size) == [Skipped("a PEM block without its END line"), Cut(b"\x30two")]


def test_what_a_stream_is() -> None:
    assert is_x509(STREAM)
    assert is_x509(b"\x30\x82")
    assert not is_x509(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n")
    assert not is_x509(b"\x99\x01")


@given(st.lists(st.binary(max_size=200) | st.sampled_from([b"-----BEGIN ", b"-----END ", b"-----", b"CERTIFICATE"])))
def test_never_raises_and_stays_small(chunks: list[bytes]) -> None:
    blocks = Blocks(64)
    for chunk in chunks:
        list(blocks.feed(chunk))
        assert octets_held(blocks) <= 64 + 400
    list(blocks.end())


def test_what_is_held_is_seen() -> None:
    """Else the bound above could not fail."""
    blocks = Blocks(64)
    list(blocks.feed(b"-----BEGIN CERTIFICATE"))
    assert octets_held(blocks) == 22
