"""DANE: certificates in the DNS (RFC 7929, RFC 8162). What the register knows of it.

`upstream` asks and judges, `transport` carries octets, `message` reads them, `server` says whom we ask."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from keyserver.clocks import Clocks
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.model import Kind, UpstreamSpec
from keyserver.query import ByAddress
from keyserver.upstreams.base import Upstream
from keyserver.upstreams.dane.server import parse_resolver
from keyserver.upstreams.protocol import Mistake, Protocol, said_by


def _make(section: UpstreamSection, spec: UpstreamSpec, clocks: Clocks, threads: ThreadPoolExecutor) -> Upstream:
    from keyserver.upstreams.dane.upstream import Dane  # dnspython takes its time to load

    return Dane(
        spec, parse_resolver(section.resolver), monotonic=clocks.monotonic, tls_ca_file=section.tls_ca_file or ""
    )


def _mistakes(section: UpstreamSection) -> Iterator[Mistake]:
    yield from said_by("resolver", lambda: parse_resolver(section.resolver))


PROTOCOL = Protocol(
    ports={"dane": 0},
    bare=True,
    kinds=frozenset(Kind),
    hears=frozenset({ByAddress}),
    keys=frozenset({"resolver"}),
    required=False,
    learns="the name server asked, and those of the domain, learn the domain and a hash of the local part",
    mistakes=_mistakes,
    make=_make,
)
