"""Framing, keys, signatures: bytes in, values or Malformed out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.openpgp import packets, signatures
from support.openpgp import SALTS, Key, make, mpi, new_key, number, packet

BODIES = st.lists(st.tuples(st.integers(1, 63), st.binary(max_size=10_000)), max_size=6)


@given(BODIES, st.booleans())
def test_walk_reads_what_the_builder_writes(some: list[tuple[int, bytes]], old: bool) -> None:
    octets = b"".join(packet(tag, body, old and tag < 16) for tag, body in some)
    assert [(tag, octets[start:end]) for tag, start, end in packets.walk(octets, 100)] == some


@given(st.sampled_from([2, 6, 13, 14]), st.binary(max_size=10_000), st.sampled_from([4, 6]))
def test_walk_reads_what_we_write(tag: int, body: bytes, version: int) -> None:
    octets = packets.packet(tag, body, version)
    assert [(t, octets[start:end]) for t, start, end in packets.walk(octets, 1)] == [(tag, body)]


@pytest.mark.parametrize("size", [0, 191, 192, 255, 256, 8383, 8384, 65535, 65536, 70_000])
@pytest.mark.parametrize("version", [4, 6])
def test_length_borders(size: int, version: int) -> None:
    octets = packets.packet(2, bytes(size), version)
    assert [(tag, end - start) for tag, start, end in packets.walk(octets, 1)] == [(2, size)]


@given(st.binary(max_size=400))
def test_any_octets_are_walked_or_malformed(octets: bytes) -> None:
    at = 0
    try:
        for _, start, end in packets.walk(octets, 1000):
            assert at < start <= end <= len(octets)
            at = end
    except Malformed:
        return
    assert at == len(octets)


@pytest.mark.parametrize("cut", range(1, 9))
def test_cut_off_anywhere(cut: int) -> None:
    octets = packet(2, bytes(300))
    with pytest.raises(Malformed):
        list(packets.walk(octets[:cut], 10))


def test_what_stood_before_is_yielded() -> None:
    seen = []
    with pytest.raises(Malformed):
        for tag, _, _ in packets.walk(packet(13, b"a") + b"\xcd\xff\xff\xff\xff\xff", 10):
            seen.append(tag)
    assert seen == [13]


def test_too_many_packets() -> None:
    with pytest.raises(Malformed, match="more than 10"):
        list(packets.walk(packet(10, b"PGP") * 11, 10))


KEYS = {
    "ed25519": (22, 256, "ed25519"),
    "cv25519": (18, 256, "cv25519"),
    "ed25519-native": (27, 256, ""),
    "x25519-native": (25, 256, ""),
    "ed448": (28, 448, ""),
    "x448": (26, 448, ""),
    "rsa2048": (1, 2048, ""),
    "dsa2048": (17, 2048, ""),
    "p256": (19, 256, "nistp256"),
    "ecdh-p384": (18, 384, "nistp384"),
    "p521": (19, 521, "nistp521"),
    "secp256k1": (19, 256, "secp256k1"),
    "brainpool256": (19, 256, "brainpoolP256r1"),
    "brainpool384": (19, 384, "brainpoolP384r1"),
    "brainpool512": (19, 512, "brainpoolP512r1"),
}


@pytest.fixture(scope="module")
def keys() -> dict[str, Key]:
    return {name: new_key(name) for name in KEYS}


@pytest.mark.parametrize("name", KEYS)
def test_key_packets(name: str, keys: dict[str, Key]) -> None:
    key = packets.parse_key(keys[name].body)
    assert (key.algorithm, key.bits, key.curve) == KEYS[name]
    assert key.fingerprint == keys[name].fingerprint_octets
    assert key.key_id.hex().upper() == keys[name].key_id


@pytest.mark.parametrize("name", KEYS)
def test_octets_after_or_missing_from_a_key_are_malformed(name: str, keys: dict[str, Key]) -> None:
    body = keys[name].body
    for wrong in (body + b"\0", body[:-1], body[:6]):
        with pytest.raises(Malformed):
            packets.parse_key(wrong)


def test_version_6_key_id_is_the_begin_of_its_fingerprint() -> None:
    made = new_key("ed25519", version=6)
    key = packets.parse_key(made.body)
    assert len(key.fingerprint) == 32
    assert key.key_id == key.fingerprint[:8] == bytes.fromhex(made.key_id)
    wrong = made.body[:6] + number(31, 4) + made.body[10:]
    with pytest.raises(Malformed):
        packets.parse_key(wrong)


@pytest.mark.parametrize("version", [0, 2, 3, 5, 7, 255])
def test_other_key_versions_are_refused(version: int) -> None:
    with pytest.raises(Malformed, match=f"version {version} key"):
        packets.parse_key(bytes([version]) + new_key().body[1:])


def test_numbers_state_their_length_in_bits() -> None:
    n, e = mpi(1 << 1023 | 1), mpi(65537)
    head = b"\x04" + bytes(4) + b"\x01"
    assert packets.parse_key(head + n + e).bits == 1024
    with pytest.raises(Malformed):
        packets.parse_key(head + number(1023, 2) + n[2:] + e)
    with pytest.raises(Malformed):
        packets.parse_key(head + number(1025, 2) + b"\0" + n[2:] + e)


@given(st.binary(max_size=300))
def test_any_octets_are_a_key_or_malformed(body: bytes) -> None:
    for head in (b"", b"\x04", b"\x06", b"\x04\0\0\0\0\x12", b"\x04\0\0\0\0\x01", b"\x06\0\0\0\0\x1b"):
        try:
            packets.parse_key(head + body)
        except Malformed:
            continue


@given(st.binary(max_size=300), st.sampled_from(sorted(SALTS)))
def test_any_octets_are_a_signature_or_malformed(body: bytes, hash_name: str) -> None:
    for head in (
        b"",
        b"\x03\x05",
        b"\x04",
        b"\x06",
        b"\x04\x13\x16\x08\x00\x06\x05\x02",
        b"\x06\x13\x1b\x08\0\0\0\x05",
    ):
        try:
            signature = signatures.parse(head + body)
        except Malformed:
            continue
        assert signature.material <= len(signature.body) + 256


@given(st.data())
def test_a_damaged_signature_is_a_signature_or_malformed(data: st.DataObject) -> None:
    octets = make(["Alice <alice@example.org>"], seed="damage", signing=True).octets
    bodies = [octets[start:end] for tag, start, end in packets.walk(octets, 100) if tag == 2]
    body = bytearray(data.draw(st.sampled_from(bodies)))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        signatures.parse(bytes(body))
    except Malformed:
        return
