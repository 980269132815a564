"""The PROXY protocol as HAProxy's document has it, and what lies in its form."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.wire import proxy


def v2(command: int = 0x21, family: int = 0x11, rest: bytes = b"", length: int | None = None) -> bytes:
    return proxy.SIGNATURE + struct.pack(">BBH", command, family, len(rest) if length is None else length) + rest


def four(client: str, to: str = "192.0.2.80") -> bytes:
    return ip_address(client).packed + ip_address(to).packed + struct.pack(">HH", 4711, 443)


def read(octets: bytes) -> str | None:
    """As the reader of a socket does it."""
    if proxy.version(octets[: proxy.LEAST]) == 1:
        return proxy.read_line(octets)
    head = octets[: proxy.FIXED]
    assert len(octets) == proxy.FIXED + proxy.rest_length(head)
    return proxy.read_rest(head, octets[proxy.FIXED :])


TLV = b"\x04" + struct.pack(">H", 300) + bytes(300)


@pytest.mark.parametrize(
    ("octets", "client"),
    [
        (b"PROXY TCP4 203.0.113.9 192.0.2.80 4711 443\r\n", "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 2001:db8::80 4711 443\r\n", "2001:db8::9"),
        (b"PROXY TCP6 " + b"ffff:f...f:ffff ".replace(b"f...f", b"ffff:ffff:ffff:ffff:ffff:ffff") * 2
         + b"65535 65535\r\n", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff::1 whatever\r\n", None),
        (v2(rest=four("203.0.113.9")), "203.0.113.9"),
        (v2(rest=four("203.0.113.9") + TLV), "203.0.113.9"),
        (v2(family=0x21, rest=four("2001:db8::9", "2001:db8::80") + TLV), "2001:db8::9"),
        (v2(command=0x20), None),
        (v2(command=0x20, rest=four("203.0.113.9")), None),
        (v2(family=0x00, rest=TLV), None),
        (v2(family=0x31, rest=bytes(216)), None),
    ],
)  # fmt: skip
def test_who_the_client_is(octets: bytes, client: str | None) -> None:
    assert read(octets) == client


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.80 4711\r\n",
        b"PROXY TCP4 203.0.113.9  192.0.2.80 4711 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.80 4711 65536\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.80 04711 443\r\n",
        b"PROXY TCP4 203.0.113.999 192.0.2.80 4711 443\r\n",
        b"PROXY TCP4 2001:db8::9 192.0.2.80 4711 443\r\n",
        b"PROXY TCP6 203.0.113.9 192.0.2.80 4711 443\r\n",
        b"PROXY TCP4 203.0.113.9 192.0.2.80 4711 443\n",
        b"PROXY UDP4 203.0.113.9 192.0.2.80 4711 443\r\n",
        b"proxy TCP4 203.0.113.9 192.0.2.80 4711 443\r\n",
        b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
        b"PROXY UNKNOWNX\r\n",
        v2(command=0x11, rest=four("203.0.113.9")),
        v2(command=0x22, rest=four("203.0.113.9")),
        v2(family=0x12, rest=four("203.0.113.9")),
        v2(family=0x21, rest=four("203.0.113.9")),
        v2(rest=four("203.0.113.9")[:11]),
        v2(family=0x41),
        v2(rest=bytes(proxy.MAX_REST + 1)),
    ],
)
def test_what_is_none(octets: bytes) -> None:
    with pytest.raises(Malformed):
        read(octets)


@given(st.binary(min_size=15, max_size=120), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", proxy.SIGNATURE]))
def test_nothing_but_malformed_comes_of_octets(octets: bytes, before: bytes) -> None:
    whole = before + octets
    try:
        if proxy.version(whole[: proxy.LEAST]) == 1:
            proxy.read_line(whole)
        else:
            proxy.rest_length(whole[: proxy.FIXED])
            proxy.read_rest(whole[: proxy.FIXED], whole[proxy.FIXED :])
    except Malformed:
        pass
