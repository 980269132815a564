"""HKP and HKPS: what the register knows of them. `upstream` asks, `v2` by the newer protocol, `url` reads where."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from keyserver.clocks import Clocks
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.model import Kind, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText
from keyserver.upstreams.base import Upstream
from keyserver.upstreams.hkp.url import PORTS, parse_url
from keyserver.upstreams.http.proxy import proxy_mistakes
from keyserver.upstreams.protocol import Mistake, Protocol, said_by


def _make(section: UpstreamSection, spec: UpstreamSpec, clocks: Clocks, threads: ThreadPoolExecutor) -> Upstream:
    from keyserver.upstreams.hkp.upstream import Hkp

    return Hkp(
        spec,
        section.url,
        clock=clocks.now,
        version=section.hkp_version,
        proxy=section.proxy,
        tls_ca_file=section.tls_ca_file or "",
        allow_private=section.allow_private,
    )


def _mistakes(section: UpstreamSection) -> Iterator[Mistake]:
    yield from said_by("url", lambda: parse_url(section.url))
    yield from proxy_mistakes(section)


PROTOCOL = Protocol(
    ports=PORTS,
    encrypted=frozenset({"hkps"}),
    kinds=frozenset({Kind.OPENPGP}),
    hears=frozenset({ByAddress, ByFingerprint, ByKeyId, ByText}),
    keys=frozenset({"proxy", "hkp_version"}),
    instead={"http": "hkp", "https": "hkps"},
    mistakes=_mistakes,
    make=_make,
)
