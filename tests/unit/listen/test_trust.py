"""Whose word counts: the client behind proxies, from the header that was named, and what it may be."""

from __future__ import annotations

import time
from ipaddress import ip_network

import pytest

from keyserver.listen.clients import MANY, MANY_OF_ONE, Clients
from keyserver.listen.descriptors import Descriptors
from keyserver.listen.trust import Trust, address_of

TRUSTED = [ip_network("10.0.0.0/8"), ip_network("127.0.0.0/8"), ip_network("fc00::/7")]
PROXIES = [ip_network("10.0.0.1/32"), ip_network("192.0.2.0/28"), ip_network("2001:db8:1::/64")]


def test_an_address_has_one_form() -> None:
    assert str(address_of("::ffff:192.0.2.1")) == "192.0.2.1"
    assert str(address_of("fe80::1%eth0")) == "fe80::1"
    assert address_of("") is None
    assert address_of("alice") is None


def test_whom_limits_leave_alone() -> None:
    trust = Trust(TRUSTED, PROXIES)
    for address, trusted, proxy in [
        ("10.0.0.2", True, False),
        ("::ffff:10.0.0.2", True, False),
        ("10.0.0.1", False, True),  # in a trusted network, but it speaks for others
        ("192.0.2.7", False, True),
        ("198.51.100.1", False, False),
        ("fd00::1", True, False),
        ("2001:db8:1::5", False, True),
        ("", False, True),  # a Unix socket's, where proxies are named
        ("nonsense", False, False),
    ]:
        assert (trust.trusts(address), trust.proxy(address)) == (trusted, proxy), address
    assert Trust(TRUSTED).trusts("")
    assert not Trust(TRUSTED).proxy("")


XFF = "x-forwarded-for"


@pytest.mark.parametrize(
    ("header", "peer", "values", "client"),
    [
        (XFF, "192.0.2.1", ["203.0.113.9"], "203.0.113.9"),
        (XFF, "192.0.2.1", ["10.9.9.9, 203.0.113.9"], "203.0.113.9"),  # what stands further left is a stranger's word
        (XFF, "192.0.2.1", ["10.9.9.9", "203.0.113.9"], "203.0.113.9"),  # as two lines
        (XFF, "192.0.2.1", ["203.0.113.9, 192.0.2.2,10.0.0.1"], "203.0.113.9"),  # through three proxies
        (XFF, "192.0.2.1", ["10.0.0.1"], "192.0.2.1"),  # none but proxies
        (XFF, "192.0.2.1", [], "192.0.2.1"),
        (XFF, "192.0.2.1", [""], "192.0.2.1"),
        (XFF, "192.0.2.1", ["203.0.113.9, unknown"], "192.0.2.1"),
        (XFF, "192.0.2.1", ["203.0.113.9,"], "192.0.2.1"),
        (XFF, "192.0.2.1", ["203.0.113.9 198.51.100.1"], "192.0.2.1"),
        (XFF, "192.0.2.1", ["203.0.113.9:4711"], "203.0.113.9"),
        (XFF, "192.0.2.1", ["2001:db8::9"], "2001:db8::9"),
        (XFF, "192.0.2.1", ["[2001:db8::9]:4711"], "2001:db8::9"),
        (XFF, "192.0.2.1", ["::ffff:203.0.113.9, ::ffff:10.0.0.1"], "203.0.113.9"),
        (XFF, "192.0.2.1", ["203.0.113.9" + ", 192.0.2.1" * 40], "192.0.2.1"),  # more hops than anybody has
        (XFF, "198.51.100.1", ["10.9.9.9"], "198.51.100.1"),  # no proxy of ours
        (XFF, "", ["203.0.113.9"], "203.0.113.9"),
        ("x-real-ip", "192.0.2.1", ["203.0.113.9"], "203.0.113.9"),
        ("forwarded", "192.0.2.1", ["for=203.0.113.9"], "203.0.113.9"),
        ("forwarded", "192.0.2.1", ['For="[2001:db8::9]:4711";proto=https;by=192.0.2.1'], "2001:db8::9"),
        ("forwarded", "192.0.2.1", ["for=10.9.9.9, proto=http;for=203.0.113.9"], "203.0.113.9"),
        ("forwarded", "192.0.2.1", ["for=203.0.113.9;for=10.9.9.9"], "192.0.2.1"),
        ("forwarded", "192.0.2.1", ["for=_hidden"], "192.0.2.1"),
        ("forwarded", "192.0.2.1", ["for=unknown, for=192.0.2.3"], "192.0.2.1"),
        ("forwarded", "192.0.2.1", ['for="10.9.9.9, for=203.0.113.9'], "203.0.113.9"),  # a stranger's odd quote
        ("forwarded", "192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("forwarded", "192.0.2.1", ["for=" + "x" * 5000], "192.0.2.1"),
    ],
)
def test_the_right_most_hop_that_is_no_proxy_is_the_client(
    header: str, peer: str, values: list[str], client: str
) -> None:
    assert Trust(TRUSTED, PROXIES, header).client(peer, values) == client


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded"])
@pytest.mark.parametrize("piece", ['"', 'for="', "for=a;", ",", "a=b;c=", "1.", "[", ":", '"\\'])
def test_hostile_headers_take_no_time(header: str, piece: str) -> None:
    trust = Trust(TRUSTED, PROXIES, header)
    began = time.perf_counter()
    for _ in range(10):
        assert trust.client("192.0.2.1", [piece * (8000 // len(piece))]) == "192.0.2.1"
    assert time.perf_counter() - began < 0.5


def test_nobody_holds_more_than_half() -> None:
    clients = Clients(4, 20, Trust(TRUSTED, PROXIES))
    assert [clients.enter("198.51.100.1") for _ in range(6)] == [""] * 4 + [MANY_OF_ONE] * 2
    for free in ("10.0.0.2", "192.0.2.1"):  # one of ours, and a proxy
        counts = Clients(4, 20, Trust(TRUSTED, PROXIES))
        assert [counts.enter(free) for _ in range(12)] == [""] * 10 + [MANY_OF_ONE] * 2
        assert [counts.enter(f"203.0.113.{n}") for n in range(12)] == [""] * 10 + [MANY] * 2
        counts.leave(free)
        assert counts.enter(free) == ""
    assert Clients(100, 20, Trust()).enter("198.51.100.1") == ""


@pytest.mark.parametrize(("limit", "reserve"), [(64, 16), (1024, 128), (65536, 256), (20, 5)])
def test_descriptors_are_kept_back(limit: int, reserve: int) -> None:
    descriptors = Descriptors(limit)
    assert descriptors.reserve == reserve
    assert descriptors.ceiling() == limit - reserve
    assert descriptors.ceiling(privileged=True) == limit - reserve // 2
