"""HKP and HKPS keyservers, asked by HTTP: by v1 (draft-shaw-openpgp-hkp-00), and by v2 where that is wanted.

`http` carries the question and keeps the bounds, `verdict` says what the answer means, `v2` is what differs there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from yarl import URL

from keyserver.model import Absent, Failed, Fault, Kind, Outcome, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText, Query, spellings
from keyserver.upstreams.base import Asking
from keyserver.upstreams.hkp.url import PORTS, Endpoint, parse_url
from keyserver.upstreams.hkp.v2 import Version2
from keyserver.upstreams.http.client import Client
from keyserver.upstreams.http.proxy import check_proxy
from keyserver.upstreams.net import SPECIAL_USE, Names, template_host
from keyserver.upstreams.verdict import UNASKABLE, together, verdict

SERVICES = {"hkp": "_pgpkey-http._tcp", "hkps": "_pgpkey-https._tcp"}  # as GnuPG looks for them


def lookups(endpoint: Endpoint, host: str) -> URL:
    """The HTTP URL of a host's lookups."""
    return URL.build(
        scheme="https" if endpoint.scheme == "hkps" else "http",
        host=host,
        port=endpoint.port or PORTS[endpoint.scheme],
        path="/pks/lookup",
    )


class Hkp:
    """One HKP or HKPS upstream: a keyserver, or with `{domain}` each domain's own."""

    def __init__(
        self,
        spec: UpstreamSpec,
        url: str,
        *,
        clock: Callable[[], float],
        version: str = "1",
        proxy: str = "",
        tls_ca_file: str | Path | None = None,
        allow_private: bool = False,
        names: Names | None = None,
        special_use: frozenset[str] = SPECIAL_USE,
    ) -> None:
        """Raises ValueError, with a sentence for the configuration, if this cannot work.

        `clock` gives Unix seconds; `version` of HKP is "1", "2", or "auto": v2 where the server speaks it; `proxy` is
        an HTTP proxy's URL; `tls_ca_file` replaces the system's certificate authorities; `allow_private` lets a
        template's hosts have addresses that are not global. The rest is for tests.
        """
        self.spec = spec
        self._endpoint = endpoint = parse_url(url)
        if proxy:
            check_proxy(proxy, template=endpoint.template)
        self._special_use = special_use
        self._clock = clock
        self._client = Client(
            names=names or Names(),
            host="" if endpoint.template else endpoint.host,
            allow_private=allow_private,
            proxy=URL(proxy) if proxy else None,
            tls_ca_file=tls_ca_file,
            service="" if endpoint.port else SERVICES[endpoint.scheme],
        )
        self._v2 = Version2(self._client, sure=version == "2", clock=clock) if version != "1" else None

    def target(self, query: Query) -> str:
        """The upstream's name; for a template `name/host`, or the name alone where it makes no host."""
        host = self._host(query) if self._endpoint.template else None
        return f"{self.spec.name}/{host}" if host else self.spec.name

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Ask once (see `Upstream.fetch`); for an address with an internationalised domain once in each spelling."""
        if search_of(query) is None:
            return Absent("HKP has no words for that", remember=False)
        host = self._host(query)
        if host is None and not isinstance(query, ByAddress):
            return Absent("it is asked for addresses only", remember=False)
        if host is None:
            return Absent("the address has no public domain that could have a keyserver")

        spelled: Sequence[Query] = spellings(query) if isinstance(query, ByAddress) else (query,)
        return together(await asyncio.gather(*(self._ask(host, one, one is query, asking) for one in spelled)))

    async def _ask(self, host: str, query: Query, first: bool, asking: Asking) -> Outcome:
        """Ask in one spelling; `first`: in the one that every server understands."""

        def judge(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
            outcome = verdict(status, headers, body, self._clock())
            if status == 500 and isinstance(query, ByText) and isinstance(outcome, Failed):
                # SKS says nothing but 500 to a word with too many hits: no asker may open its circuit with that
                return replace(outcome, fault=Fault.LOCAL)
            if status in UNASKABLE and isinstance(outcome, Absent) and not first:
                return replace(outcome, remember=True)  # what it cannot be asked it does not hold
            return outcome

        at = lookups(self._endpoint, host)
        if self._v2 is not None:
            until = asyncio.get_running_loop().time() + asking.left
            if (outcome := await self._v2.ask(at.origin(), query, asking, judge)) is not None:
                return outcome
            asking = replace(asking, left=until - asyncio.get_running_loop().time())
        return await self._client.ask(URL(f"{at}?{search_of(query)}", encoded=True), asking, judge)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _host(self, query: Query) -> str | None:
        if not self._endpoint.template:
            return self._endpoint.host
        if not isinstance(query, ByAddress):
            return None
        return template_host(self._endpoint.host, query.domain, self._special_use)


def search_of(query: Query) -> str | None:
    """The query string, in the order of the widespread clients, or None for what HKP has no words for."""
    ask = "op=get&options=mr&search="
    if query.kind is not Kind.OPENPGP:
        return None
    match query:
        case ByFingerprint(fingerprint=digits) | ByKeyId(key_id=digits):
            return f"{ask}0x{digits}"
        case ByAddress():
            return f"{ask}{quote(query.address, safe='', errors='replace')}&exact=on"
        case ByText():
            return f"{ask}{quote(query.text, safe='', errors='replace')}"
    return None
