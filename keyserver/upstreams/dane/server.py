"""Whom DANE upstreams ask: the one name server whose word on DNSSEC counts. No network.

Whoever sits between us and a name server can set the AD bit (RFC 4035 section 4.9.3); so it must be on this machine, or
behind TLS with its name checked (RFC 7858, RFC 8310 section 5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from keyserver.upstreams.host import Address, is_name, literal

PORT = 53
TLS_PORT = 853  # RFC 7858 section 3.1
RESOLV_CONF = Path("/etc/resolv.conf")
ACCEPTED = (
    'accepted is a loopback address such as "127.0.0.1", "127.0.0.1:5353" or "[::1]:53", or DNS over TLS with the '
    'name of the certificate, such as "tls:9.9.9.9#dns.quad9.net" or "tls:[2620:fe::fe]:853#dns.quad9.net"'
)


@dataclass(frozen=True, slots=True)
class NameServer:
    """Where it is. `name`: of its TLS certificate; empty: asked without TLS, on this machine."""

    address: str
    port: int
    name: str = ""


def parse_resolver(text: str, resolv_conf: Path = RESOLV_CONF) -> NameServer:
    """Read the key `resolver`; empty: the system's first name server. Raises ValueError with a sentence on what is
    accepted."""
    if not text:
        return _system(resolv_conf)
    if text.startswith("tls:"):
        place, _, name = text[4:].partition("#")
        name = name.lower().removesuffix(".")
        if not is_name(name):
            raise ValueError(f"DNS over TLS needs the name in the server's certificate; {ACCEPTED}")
        address, port = _place(place, TLS_PORT)
        return NameServer(str(address), port, name)
    address, port = _place(text, PORT)
    if not address.is_loopback:
        raise ValueError(f"whoever is on the way to {address} could say that it has checked DNSSEC; {ACCEPTED}")
    return NameServer(str(address), port)


def _place(text: str, default: int) -> tuple[Address, int]:
    """`address`, `address:port`; an IPv6 address before a port stands in brackets."""
    if (address := literal(text)) is not None:
        return address, default
    host, _, port = text.rpartition(":")
    address = literal(host)
    if address is None or (address.version == 6 and host[0] != "[") or not re.fullmatch("[0-9]{1,5}", port):
        raise ValueError(ACCEPTED)
    if not 0 < int(port) < 65536:
        raise ValueError("the port must be 1 to 65535")
    return address, int(port)


def _system(resolv_conf: Path) -> NameServer:
    """The system's first name server, as the C library finds it (resolv.conf(5))."""
    try:
        lines = resolv_conf.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    first = next(
        (words[1] for line in lines if (words := line.split())[:1] == ["nameserver"] and words[1:]), "127.0.0.1"
    )
    if (address := literal(first)) is None or not address.is_loopback:
        raise ValueError(f"the system's name server is {first[:60]}, which could be anybody; {ACCEPTED}")
    return NameServer(str(address), PORT)
