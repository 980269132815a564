"""Where a certificate store is: `certs://host[:port][/path]`, `certs+http://…` inside one's own network. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

from keyserver.upstreams.host import is_inside, literal, read_url

PORTS = {"certs": 443, "certs+http": 80}
PATH = "/certificates/search.cgi"  # as in the examples of RFC 4387 section 2.1
_FORM = "certs://host[:port][/path] or certs+http://host[:port][/path]"
_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+\Z")  # RFC 3986 section 3.3


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a store is: HTTPS with `tls`, else plain HTTP at loopback and private addresses."""

    tls: bool
    host: str
    port: int
    path: str


def parse_url(url: str) -> Endpoint:
    """Read `certs://host[:port][/path]` or `certs+http://…`. Raises ValueError with a sentence on what is accepted."""
    found = read_url(url, PORTS, _FORM)
    if found.template:
        raise ValueError(f"a certificate store is one host for all domains; accepted is {_FORM}")
    if found.parts.query or found.parts.fragment:
        raise ValueError("only a path may follow the host and port: what is asked comes behind it")
    path = found.parts.path if found.parts.path.strip("/") else PATH
    if not _PATH.match(path):
        raise ValueError(f"the path {path!r} has characters that a URL writes as %XX")
    if found.scheme == "certs+http" and (address := literal(found.host)) is not None and not is_inside(address):
        raise ValueError("plain HTTP is for loopback and private networks; accepted is certs:// for other addresses")
    return Endpoint(found.scheme == "certs", found.host, found.port or PORTS[found.scheme], path)
