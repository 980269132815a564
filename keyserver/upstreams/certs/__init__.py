"""Certificate stores over HTTP (RFC 4387): what the register knows of them. `upstream` asks, `url` reads where,
`verdict` says what an answer means."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from keyserver.clocks import Clocks
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.model import Kind, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash
from keyserver.upstreams.base import Upstream
from keyserver.upstreams.certs.url import PORTS, parse_url
from keyserver.upstreams.http.proxy import proxy_mistakes
from keyserver.upstreams.protocol import Mistake, Protocol, said_by


def _make(section: UpstreamSection, spec: UpstreamSpec, clocks: Clocks, threads: ThreadPoolExecutor) -> Upstream:
    from keyserver.upstreams.certs.upstream import Certs

    return Certs(
        spec,
        section.url,
        clock=clocks.now,
        proxy=section.proxy,
        tls_ca_file=section.tls_ca_file or "",
        allow_private=section.allow_private,
    )


def _mistakes(section: UpstreamSection) -> Iterator[Mistake]:
    yield from said_by("url", lambda: parse_url(section.url))
    if section.proxy and section.scheme == "certs+http":
        yield "proxy", "accepted only for certs: behind a proxy nobody could tell whether its address is private"
    else:
        yield from proxy_mistakes(section)


PROTOCOL = Protocol(
    ports=PORTS,
    encrypted=frozenset({"certs"}),
    kinds=frozenset({Kind.X509}),
    hears=frozenset({ByAddress, ByFingerprint, ByHash}),
    keys=frozenset({"proxy"}),
    path="[/path]",
    mistakes=_mistakes,
    make=_make,
)
