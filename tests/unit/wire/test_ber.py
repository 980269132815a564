"""The BER codec: what it accepts, what it refuses, and that no claim makes it wait, recurse or allocate."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.wire import ber


@pytest.mark.parametrize("cut", range(8))
def test_a_message_is_measured_as_soon_as_its_header_is_here(cut: int) -> None:
    message = b"\x30\x84\x00\x00\x01\x00" + b"\x00" * 256
    size = ber.measure(message[:cut], 0, 65536)
    assert size == (262 if cut >= 6 else None)


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"\x31\x00", "not an LDAP message"),
        (b"GET / HTTP/1.1\r\n", "not an LDAP message"),
        (b"\x30\x80\x02\x01\x01\x00\x00", "definite"),
        (b"\x30\x85\x00\x00\x00\x00\x01", "at most 4 octets"),
        (b"\x30\xff", "at most 4 octets"),
        (b"\x30\x84\x7f\xff\xff\xff", "limit is 65536"),
        (b"\x30\x82\xff\xff", "limit is 65536"),
    ],
)
def test_a_message_that_cannot_be_is_refused_before_it_is_here(octets: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        ber.measure(octets, 0, 65536)


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x04",
        b"\x04\x05abcd",
        b"\x04\x82\x01",
        b"\x04\x80ab\x00\x00",
        b"\x1f\x81\x01\x00",
        b"\x04\x84\xff\xff\xff\xff",
    ],
)
def test_an_element_lies_within_what_holds_it(octets: bytes) -> None:
    with pytest.raises(Malformed):
        ber.header(octets, 0, len(octets))


def test_an_element_may_not_reach_beyond_its_parent() -> None:
    data = b"\x30\x03\x04\x05abcde"
    start, stop = ber.expect(data, 0, len(data), ber.SEQUENCE)
    with pytest.raises(Malformed, match="longer than what holds it"):
        ber.octets(data, start, stop)


@pytest.mark.parametrize(
    "octets", [b"\x02\x00", b"\x02\x05\x00\x00\x00\x00\x01", b"\x02\x01\xff", b"\x02\x04\x80\x00\x00\x00"]
)
def test_numbers_lie_between_0_and_the_largest(octets: bytes) -> None:
    with pytest.raises(Malformed):
        ber.whole(octets, 0, len(octets))


@given(st.integers(0, 2**31 - 1))
def test_numbers_come_back(value: int) -> None:
    octets = ber.number(value)
    assert ber.whole(octets, 0, len(octets)) == (value, len(octets))
    assert len(octets) == 3 or octets[2] or octets[3] & 0x80  # as short as it can be


@pytest.mark.parametrize("length", [0, 1, 127, 128, 255, 256, 65535, 65536, 1 << 20])
def test_elements_come_back(length: int) -> None:
    octets = ber.element(ber.OCTETS, b"x" * length)
    assert ber.octets(octets, 0, len(octets)) == (b"x" * length, len(octets))


def test_truth_has_one_octet() -> None:
    assert ber.flag(True) == b"\x01\x01\xff"
    assert ber.truth(b"\x01", 0, 1) is True  # BER: anything but 00
    with pytest.raises(Malformed):
        ber.truth(b"", 0, 0)
