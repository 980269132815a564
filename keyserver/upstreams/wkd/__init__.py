"""Web Key Directories: what the register knows of them. `upstream` asks, `wire.wkd` writes what."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from keyserver.clocks import Clocks
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.model import Kind, UpstreamSpec
from keyserver.query import ByAddress
from keyserver.upstreams.base import Upstream
from keyserver.upstreams.protocol import Protocol


def _make(section: UpstreamSection, spec: UpstreamSpec, clocks: Clocks, threads: ThreadPoolExecutor) -> Upstream:
    from keyserver.upstreams.wkd.upstream import Wkd

    return Wkd(
        spec,
        clock=clocks.now,
        monotonic=clocks.monotonic,
        tls_ca_file=section.tls_ca_file or "",
        allow_private=section.allow_private,
    )


PROTOCOL = Protocol(
    ports={"wkd": 443},
    bare=True,
    priority=5,
    encrypted=frozenset({"wkd"}),
    kinds=frozenset({Kind.OPENPGP}),
    hears=frozenset({ByAddress}),
    by_owner=True,
    learns="the web host of its own domain hears it, and name servers hear the domain",
    make=_make,
)
