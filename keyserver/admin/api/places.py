"""Under which names the admin listener is reached, and whether what is typed there is safe on its way. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from keyserver.listen.trust import address_of, loopback, plain

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@\s]+)(?::([0-9]{1,5}))?")
_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Reached:
    """How one request reached us."""

    host: str  # its `Host`, as it came
    here: str  # address of our end of the connection; empty for a Unix socket
    tls: bool


@dataclass(frozen=True, slots=True)
class Places:
    """hosts: names and addresses beside those that the listener has by itself, lower case and spelled by `plain`;
    public_url: the page's address as browsers know it, where a proxy stands between."""

    hosts: frozenset[str] = frozenset()
    public_url: str = ""

    def ours(self, reached: Reached) -> bool:
        """Is this a name of ours? Where it is not, somebody's name may have been turned to our address (DNS rebinding).

        The names of this machine for itself can be nobody else's, whatever port a tunnel gives them."""
        split = _split(reached.host)
        if split is None:
            return False
        name, _port = split
        address = address_of(name)
        return (
            plain(name) in self.hosts
            or _own(name)
            or (address is not None and address == address_of(reached.here))
            or self._public(reached.host)
        )

    def origin(self, reached: Reached) -> str:
        """Our origin (RFC 6454) as the browser at the other end knows it."""
        if self._public(reached.host):
            return _origin(self.public_url)
        return _origin(f"http{'s' if reached.tls else ''}://{reached.host}")

    def protected(self, reached: Reached) -> bool:
        """Can nobody on the way read what is typed? By TLS, here or at the proxy that `public_url` speaks of, or since
        it does not leave the machine (or comes out of a tunnel)."""
        if reached.tls or (self._public(reached.host) and self.public_url.lower().startswith("https:")):
            return True
        split = _split(reached.host)
        inside = not reached.here or loopback(reached.here)
        return split is not None and _own(split[0]) and (inside or self._public(reached.host))

    def _public(self, host: str) -> bool:
        return bool(self.public_url) and _origin(f"{urlsplit(self.public_url).scheme}://{host}") == _origin(
            self.public_url
        )


def _split(host: str) -> tuple[str, str] | None:
    """Name and port of a `Host`, the name in lower case, without brackets and final dot."""
    found = _HOST.fullmatch(host)
    return (found[1].strip("[]").rstrip(".").lower(), found[2] or "") if found else None


def _own(name: str) -> bool:
    return name == "localhost" or loopback(name)


def _origin(url: str) -> str:
    """`scheme://name[:port]` in one spelling; empty where it is none."""
    scheme, _, rest = url.lower().partition("://")
    split = _split(rest.rstrip("/"))
    if split is None:
        return ""
    name, port = split
    shown = f"[{ipaddress.IPv6Address(name)}]" if ":" in name else name
    return f"{scheme}://{shown}" + (f":{port}" if port and port != _PORTS.get(scheme) else "")


def same_origin(given: str, ours: str) -> bool:
    """Does an `Origin` header say that a request comes from our own page?"""
    return bool(ours) and _origin(given) == ours
