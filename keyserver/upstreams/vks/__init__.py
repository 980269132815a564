"""Verifying keyservers (VKS): what the register knows of them. `upstream` asks, `url` reads where."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from keyserver.clocks import Clocks
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.model import Kind, Rate, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByKeyId
from keyserver.upstreams.base import Upstream
from keyserver.upstreams.http.proxy import proxy_mistakes
from keyserver.upstreams.protocol import Mistake, Protocol, said_by
from keyserver.upstreams.vks.url import PORTS, parse_url


def _make(section: UpstreamSection, spec: UpstreamSpec, clocks: Clocks, threads: ThreadPoolExecutor) -> Upstream:
    from keyserver.upstreams.vks.upstream import Vks

    return Vks(
        spec,
        section.url,
        clock=clocks.now,
        proxy=section.proxy,
        tls_ca_file=section.tls_ca_file or "",
        allow_private=section.allow_private,
    )


def _mistakes(section: UpstreamSection) -> Iterator[Mistake]:
    yield from said_by("url", lambda: parse_url(section.url))
    yield from proxy_mistakes(section)


PROTOCOL = Protocol(
    ports=PORTS,
    encrypted=frozenset({"vks"}),
    kinds=frozenset({Kind.OPENPGP}),
    hears=frozenset({ByAddress, ByFingerprint, ByKeyId}),
    keys=frozenset({"proxy"}),
    required=False,
    rate=Rate(1, 60),  # what keys.openpgp.org publishes: addresses, and everything else
    id_rate=Rate(5, 1),
    nameless=False,
    mistakes=_mistakes,
    make=_make,
)
