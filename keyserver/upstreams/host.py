"""URLs of upstreams as the configuration writes them, read once for all protocols. No I/O."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import SplitResult, urlsplit

from keyserver.query import parse_domain

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\Z")
_NUMBER = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)\Z")  # a last label that the C library takes for part of an IPv4 address
_TEMPLATE = re.compile(r"(?:[^{}]+\.)?\{domain\}(?:\.[^{}]+)?")
_INSIDE = tuple(
    # loopback, private (RFC 1918, RFC 4193) and link-local (RFC 3927, RFC 4291)
    ipaddress.ip_network(n)
    for n in [
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    ]
)


@dataclass(frozen=True, slots=True)
class Url:
    """A URL with a host that can be asked. `host` is lower-case ASCII, and may contain `{domain}`."""

    host: str
    port: int | None  # None: the URL has none
    parts: SplitResult

    @property
    def scheme(self) -> str:
        return self.parts.scheme

    @property
    def template(self) -> bool:
        """Is its host made of the domain of the address asked for?"""
        return "{domain}" in self.host


def read_url(url: str, schemes: Collection[str], form: str) -> Url:
    """Read `scheme://host[:port]` and what follows it, which is the protocol's to judge.

    form: how such a URL is written. Raises ValueError with a sentence on what is accepted."""
    try:
        parts = urlsplit(url.strip())
        port, name = parts.port, parts.hostname or ""
    except ValueError as error:
        raise ValueError(f"not a URL ({error}); accepted is {form}") from None
    if parts.scheme not in schemes:
        raise ValueError(f"the scheme {parts.scheme!r} does not fit; accepted is {form}")
    if "@" in parts.netloc:
        raise ValueError("no credentials are allowed here; accepted is a URL without credentials")
    if port == 0:
        raise ValueError("the port must be 1 to 65535")
    if not name:
        raise ValueError(f"the URL names no host; accepted is {form} with a host name or an address")
    return Url(_host(name), port, parts)


def _host(name: str) -> str:
    if (address := literal(name)) is not None:
        return str(address)
    if re.search("[{}]", name):
        if not _TEMPLATE.fullmatch(name) or not is_name(name.replace("{domain}", "a.a")):
            raise ValueError(f"the host {name!r} may have one {{domain}}, as whole labels, such as keys.{{domain}}")
        return name
    host = name.removesuffix(".") if is_name(name.removesuffix(".")) else parse_domain(name)
    if host is None:
        raise ValueError(f"{name!r} is neither a host name nor an address")
    return host


def literal(host: str) -> Address | None:
    """The address that a host is written as, brackets allowed, or None for a name."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    return None


def is_inside(address: Address) -> bool:
    """Whether an address is loopback or in a private network: what is sent there in the clear stays inside."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return any((mapped or address) in network for network in _INSIDE)


def is_name(host: str) -> bool:
    """Whether this is an ordinary lower-case host name of LDH labels (A-labels included) and no disguised address."""
    labels = host.split(".")
    return len(host) <= 253 and all(_LABEL.match(label) for label in labels) and not _NUMBER.match(labels[-1])
