"""Every protocol describes itself, and the description is true."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from keyserver.clocks import Clocks
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.config.sections.upstream import UpstreamSection as Section
from keyserver.model import Absent, Kind, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash, ByKeyId, ByText, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.checks import mistakes
from keyserver.upstreams.protocol import Protocol
from keyserver.upstreams.register import BY_SCHEME, PROTOCOLS

QUERIES: tuple[Query, ...] = (
    ByAddress("alice", "example.org"),
    ByFingerprint("A" * 40),
    ByKeyId("A" * 16),
    ByText("alice"),
    ByHash("certHash", "A" * 40),
)


def section(scheme: str) -> UpstreamSection:
    protocol = BY_SCHEME[scheme]
    own = {"resolver": "127.0.0.1:1"} if "resolver" in protocol.keys else {}
    return UpstreamSection(name="u", url=f"{scheme}:" if protocol.bare else f"{scheme}://127.0.0.1:1", **own)  # type: ignore[arg-type]


def test_no_scheme_is_two_protocols_and_none_is_announced_still() -> None:
    assert sum(len(protocol.ports) for protocol in PROTOCOLS) == len(BY_SCHEME)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: "-".join(protocol.ports))
def test_a_description_names_keys_that_exist(protocol: Protocol) -> None:
    assert protocol.keys <= set(Section.model_fields)
    assert protocol.encrypted <= set(protocol.ports)
    assert set(protocol.instead.values()) <= set(protocol.ports)


@pytest.mark.parametrize("scheme", BY_SCHEME)
def test_the_smallest_section_has_no_mistake(scheme: str) -> None:
    assert not list(mistakes(section(scheme)))


@pytest.mark.parametrize("scheme", BY_SCHEME)
async def test_it_hears_what_it_says_and_nothing_else(scheme: str) -> None:
    """Nothing listens there: what is asked fails, and what is never asked is absent and not remembered."""
    protocol = BY_SCHEME[scheme]
    spec = UpstreamSpec("u", kinds=protocol.kinds)
    with ThreadPoolExecutor(1) as threads:
        upstream = protocol.make(section(scheme), spec, Clocks.system(), threads)
        try:
            for query in QUERIES:
                if query.kind not in protocol.kinds:
                    query = replace(query, kind=min(protocol.kinds))
                outcome = await upstream.fetch(query, Asking(left=2.0, via=""))
                heard = not (isinstance(outcome, Absent) and not outcome.remember)
                assert heard == (type(query) in protocol.hears), (query, outcome)
        finally:
            await upstream.close()


def test_the_register_loads_no_library_that_asks() -> None:
    """What every command loads; a DN or a filter to judge is another matter."""
    program = "import sys, keyserver.upstreams.checks; print({'ldap3', 'aiohttp', 'dns'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_kinds_are_of_certificates() -> None:
    assert all(protocol.kinds and protocol.kinds <= set(Kind) for protocol in PROTOCOLS)
