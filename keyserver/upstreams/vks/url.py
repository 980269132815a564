"""Where a verifying keyserver is: `vks://host[:port]`. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from keyserver.upstreams.host import read_url

PORTS = {"vks": 443}
_FORM = "vks://host[:port]"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an upstream is, always by HTTPS."""

    host: str
    port: int


def parse_url(url: str) -> Endpoint:
    """Read `vks://host[:port]`. Raises ValueError with a sentence on what is accepted."""
    found = read_url(url, PORTS, _FORM)
    if found.template:
        raise ValueError(f"a verifying keyserver is one host for all domains; accepted is {_FORM}")
    if found.parts.path not in ("", "/") or found.parts.query or found.parts.fragment:
        raise ValueError("nothing may follow the host and port: what is asked is always below /vks/v1")
    return Endpoint(found.host, found.port or PORTS[found.scheme])
