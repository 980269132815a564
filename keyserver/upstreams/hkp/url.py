"""Where an HKP upstream is: `hkp://host[:port]`, `hkps://host[:port]`. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from keyserver.upstreams.host import read_url

PORTS = {"hkp": 11371, "hkps": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an upstream is. `host` may contain `{domain}`; no `port`: the scheme's, or what SRV records say."""

    scheme: str  # "hkp" or "hkps"
    host: str
    port: int | None = None

    @property
    def template(self) -> bool:
        """Is its host made of the domain of the address asked for?"""
        return "{domain}" in self.host


def parse_url(url: str) -> Endpoint:
    """Read `hkp://host[:port]` or `hkps://host[:port]`. Raises ValueError with a sentence on what is accepted."""
    found = read_url(url, PORTS, "hkp://host[:port] or hkps://host[:port]")
    if found.parts.path not in ("", "/") or found.parts.query or found.parts.fragment:
        raise ValueError("nothing may follow the host and port: HKP always asks /pks/lookup")
    return Endpoint(found.scheme, found.host, found.port)
