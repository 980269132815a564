"""Web Key Directories (draft-koch-openpgp-webkey-service-21): each address is asked of its own domain's web host.

Hosts are made from what strangers ask for, so all that holds for templates holds here: `http` guards them and keeps
every bound. A host that never sent a certificate and shows a page has no directory: web sites do that for any path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cachetools import FIFOCache
from yarl import URL

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, UpstreamSpec
from keyserver.query import ByAddress, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.http.client import Client
from keyserver.upstreams.net import (
    GONE_KEPT,
    MAX_GONE,
    SPECIAL_USE,
    Names,
    NoSuchHost,
    Resolved,
    recall,
    template_host,
)
from keyserver.upstreams.verdict import GOOD, PAGE, UNASKABLE, verdict
from keyserver.wire import wkd

MAX_BODY = 256 << 10  # octets of an answer, as in gpg (g10/call-dirmngr.c) and Mailvelope
PORT = 443


class Wkd:
    """The Web Key Directories of all domains."""

    def __init__(
        self,
        spec: UpstreamSpec,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        tls_ca_file: str | Path | None = None,
        allow_private: bool = False,
        names: Names | None = None,
        special_use: frozenset[str] = SPECIAL_USE,
        port: int | None = None,
    ) -> None:
        """Raises ValueError, with a sentence for the configuration, if this cannot work.

        `clock` gives Unix seconds; `tls_ca_file` replaces the system's certificate authorities; `allow_private` admits
        hosts with addresses that are not global. The rest is for tests.
        """
        self.spec = spec
        self._clock = clock
        self._monotonic = monotonic
        self._special_use = special_use
        self._port = port or PORT
        self._names = names or Names()
        self._unnamed: FIFOCache[str, tuple[bool, float]] = FIFOCache(MAX_GONE)  # hosts without an address
        self._without: FIFOCache[str, tuple[Absent, float]] = FIFOCache(MAX_GONE)  # domains without a directory
        self._spoke = Resolved()  # domains whose host has sent a certificate
        self._client = Client(
            names=Names(self._resolve), allow_private=allow_private, tls_ca_file=tls_ca_file, most=MAX_BODY
        )

    def target(self, query: Query) -> str:
        """`name/domain`, or the name alone for what no directory is asked."""
        domain = self._domain(query)
        return f"{self.spec.name}/{domain}" if domain else self.spec.name

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Ask once (see `Upstream.fetch`): by the advanced method, or by the direct one where that has no host (§3.1).

        A host that is there and fails, or has nothing, is not gone around."""
        if not isinstance(query, ByAddress) or query.kind is not Kind.OPENPGP:
            return Absent("Web Key Directories are asked for addresses and OpenPGP only", remember=False)
        if (domain := self._domain(query)) is None:
            return Absent("the address has no public domain that could have a directory")
        if (without := recall(self._without, domain, self._monotonic())) is not None:
            return without
        end = asyncio.get_running_loop().time() + asking.left
        advanced = template_host(f"{wkd.HOST}.{{domain}}", domain, self._special_use)
        if advanced is not None and not self._is_unnamed(advanced):
            outcome = await self._ask("advanced", advanced, wkd.advanced(domain, query.local), domain, asking)
            if not self._is_unnamed(advanced):
                return outcome
        asking = replace(asking, left=end - asyncio.get_running_loop().time())
        return await self._ask("direct", domain, wkd.direct(query.local), domain, asking)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def _ask(self, method: str, host: str, target: str, domain: str, asking: Asking) -> Outcome:
        """Ask one host, and remember what is true of every address of its domain."""
        answers: list[int] = []

        def judge(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
            answers.append(status)
            return said(status, headers, body, self._clock())

        outcome = await self._client.ask(URL(f"https://{host}:{self._port}{target}", encoded=True), asking, judge)
        if outcome == PAGE:
            if domain in self._spoke or await asking.answered():
                # some show a page for whatever they do not have: no reason not to ask for what they have
                outcome = replace(PAGE, fault=Fault.LOCAL)
            else:
                outcome = Absent("its web host shows a page, and never sent a certificate")
        outcome = replace(outcome, method=f"wkd {method} {host}")
        if isinstance(outcome, Found):
            self._spoke.add(domain)
        elif isinstance(outcome, Absent) and not answers and (host == domain or not self._is_unnamed(host)):
            self._without[domain] = (outcome, self._monotonic() + GONE_KEPT)
        return outcome

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        """The addresses of a host, as `Names` gives them; notes which have none."""
        try:
            return await self._names.resolve(host, port)
        except NoSuchHost:
            self._unnamed[host.removesuffix(".")] = (True, self._monotonic() + GONE_KEPT)
            raise

    def _is_unnamed(self, host: str) -> bool:
        return recall(self._unnamed, host, self._monotonic()) is not None

    def _domain(self, query: Query) -> str | None:
        """The domain of an address, if it is a public one."""
        return template_host("{domain}", query.domain, self._special_use) if isinstance(query, ByAddress) else None


def said(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Outcome:
    """What the answer of a web host means. Pure.

    Words such as "not found" count for less than at keyservers, whatever the status: any web page may hold them."""
    outcome = verdict(status, headers, body, now)
    if not isinstance(outcome, Absent) or status in (*GOOD, *UNASKABLE):
        return outcome
    if status in (404, 410):
        return replace(outcome, remember=True)  # web sites send `no-store` with their error pages
    return Failed(f"it answered {status}")
