"""Netstrings as Postfix sends them, and as nobody should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.wire.socketmap import MOST, NOTFOUND, Reader, netstring, ok, perm, read, temp


def drain(reader: Reader) -> list[bytes]:
    found = []
    while (one := reader.next()) is not None:
        found.append(one)
    return found


@given(st.lists(st.binary(max_size=200), max_size=6), st.data())
def test_requests_come_out_as_they_went_in_whatever_the_pieces(requests: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(map(netstring, requests))
    reader, found = Reader(), []
    while octets:
        cut = data.draw(st.integers(1, len(octets)))
        reader.add(octets[:cut])
        octets = octets[cut:]
        found += drain(reader)
    assert found == requests
    assert reader.empty


def test_a_part_of_a_request_waits() -> None:
    reader = Reader()
    for piece in (b"1", b"0", b":", b"encrypt", b" a@"):
        reader.add(piece)
        assert reader.next() is None
        assert not reader.empty
    with pytest.raises(Malformed):
        reader.add(b"x")
        reader.next()


def test_the_longest_request() -> None:
    reader = Reader()
    reader.add(netstring(b"a" * MOST))
    assert drain(reader) == [b"a" * MOST]
    reader.add(b"%d:" % (MOST + 1))
    with pytest.raises(Malformed):
        reader.next()


@pytest.mark.parametrize(
    "octets",
    [
        *(b"x", b":", b":,", b"-1:,", b"+1:a,", b" 1:a,", b"1 :a,", b"01:a,", b"00:,", b"1:ab", b"1:a;", b"0:x"),
        *(b"123456", b"99999", b"99999:", b"1x", b"\x00", b"\xff\xff", b"\xb2:ab,", b"1\n:a,", b"\r\n"),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_netstring(octets: bytes) -> None:
    reader = Reader()
    reader.add(netstring(b"first") + octets)
    assert reader.next() == b"first"
    with pytest.raises(Malformed):
        reader.next()


def test_a_request_is_a_map_and_a_key() -> None:
    assert read(b'encrypt "a b"@example.org') == ("encrypt", '"a b"@example.org')
    assert read(b"encrypt") == ("encrypt", "")
    assert read(b"encrypt \xff@example.org") == ("encrypt", "\ufffd@example.org")


def test_replies() -> None:
    assert NOTFOUND == b"9:NOTFOUND ,"
    assert ok("smtp:[gateway.example]:25") == b"28:OK smtp:[gateway.example]:25,"
    assert temp("two\r\nlin\u00e9s, \x7f") == b"18:TEMP two??lin?s, ?,"
    assert perm("x" * 1000) == b"205:PERM " + b"x" * 200 + b","
