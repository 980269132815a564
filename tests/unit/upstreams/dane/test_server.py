"""Whom DANE upstreams may ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyserver.upstreams.dane.server import NameServer, parse_resolver


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("127.0.0.1", NameServer("127.0.0.1", 53)),
        ("127.0.0.53:5353", NameServer("127.0.0.53", 5353)),
        ("::1", NameServer("::1", 53)),
        ("[::1]", NameServer("::1", 53)),
        ("[::1]:5353", NameServer("::1", 5353)),
        ("tls:9.9.9.9#dns.quad9.net", NameServer("9.9.9.9", 853, "dns.quad9.net")),
        ("tls:9.9.9.9:8853#DNS.quad9.net.", NameServer("9.9.9.9", 8853, "dns.quad9.net")),
        ("tls:2620:fe::fe#dns.quad9.net", NameServer("2620:fe::fe", 853, "dns.quad9.net")),
        ("tls:[2620:fe::fe]:853#dns.quad9.net", NameServer("2620:fe::fe", 853, "dns.quad9.net")),
    ],
)
def test_accepted(text: str, server: NameServer) -> None:
    assert parse_resolver(text) == server


@pytest.mark.parametrize(
    "text",
    [
        "9.9.9.9",
        "192.168.1.1:53",
        "::ffff:9.9.9.9",
        "fe80::1%lo",
        "localhost",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:+53",
        "::1:99999",
        "tls:9.9.9.9",
        "tls:9.9.9.9#",
        "tls:9.9.9.9#9.9.9.9",
        "tls:9.9.9.9#not a name",
        "tls:dns.quad9.net#dns.quad9.net",
        "tls:#dns.quad9.net",
        "https://9.9.9.9/dns-query",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"accepted is a loopback address|the port must be"):
        parse_resolver(text)


@pytest.mark.parametrize(
    ("lines", "server"),
    [
        ("# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53\n", NameServer("127.0.0.53", 53)),
        ("nameserver\t::1 # ours\nnameserver 9.9.9.9\n", NameServer("::1", 53)),
        ("search example.org\n", NameServer("127.0.0.1", 53)),
    ],
)
def test_the_systems_own_where_it_is_on_this_machine(tmp_path: Path, lines: str, server: NameServer) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(lines)
    assert parse_resolver("", file) == server


@pytest.mark.parametrize("lines", ["nameserver 192.168.1.1\nnameserver 127.0.0.1\n", "nameserver router\n"])
def test_not_the_systems_own_where_it_could_be_anybody(tmp_path: Path, lines: str) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(lines)
    with pytest.raises(ValueError, match="could be anybody; accepted is a loopback address"):
        parse_resolver("", file)


def test_a_system_without_a_configuration_asks_this_machine(tmp_path: Path) -> None:
    assert parse_resolver("", tmp_path / "missing") == NameServer("127.0.0.1", 53)
