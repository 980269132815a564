"""Certificate stores over HTTP (RFC 4387) as upstreams, for X.509: by address, and by the hashes of section 2.1."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from yarl import URL

from keyserver.model import Absent, Kind, Outcome, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash, Query, spellings
from keyserver.upstreams.base import Asking
from keyserver.upstreams.certs.url import parse_url
from keyserver.upstreams.certs.verdict import MAX_BODY, verdict
from keyserver.upstreams.http.client import Client
from keyserver.upstreams.http.proxy import check_proxy
from keyserver.upstreams.net import Names
from keyserver.upstreams.verdict import UNASKABLE, together
from keyserver.wire.certs import HASHES, hash_text

METHOD = "certs"
SHA1 = 40  # hex digits


class Certs:
    """One certificate store."""

    def __init__(
        self,
        spec: UpstreamSpec,
        url: str,
        *,
        clock: Callable[[], float],
        proxy: str = "",
        tls_ca_file: str | Path | None = None,
        allow_private: bool = False,
        names: Names | None = None,
    ) -> None:
        """Raises ValueError, with a sentence for the configuration, if this cannot work.

        `clock` gives Unix seconds; `proxy` is an HTTP proxy's URL; `tls_ca_file` replaces the system's certificate
        authorities; `allow_private` lets redirects lead to addresses that are not global. `names` is for tests.
        """
        self.spec = spec
        endpoint = parse_url(url)
        if proxy and not endpoint.tls:
            raise ValueError("no proxy with certs+http: nobody could tell whether its address is private")
        if proxy:
            check_proxy(proxy)
        self._clock = clock
        scheme = "https" if endpoint.tls else "http"
        base = URL.build(scheme=scheme, host=endpoint.host, port=endpoint.port)
        self._base = f"{base.origin()}{endpoint.path}"
        self._client = Client(
            names=names or Names(inside=not endpoint.tls),
            host=endpoint.host,
            allow_private=allow_private,
            proxy=URL(proxy) if proxy else None,
            tls_ca_file=tls_ca_file,
            most=MAX_BODY,
        )

    def target(self, query: Query) -> str:
        """The upstream's name."""
        return self.spec.name

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Ask once (see `Upstream.fetch`); for an address with an internationalised domain once in each spelling:
        values are compared octet by octet (section 2.1)."""
        if search_of(query) is None:
            return Absent("RFC 4387 has no words for that", remember=False, method=METHOD)
        spelled: Sequence[Query] = spellings(query) if isinstance(query, ByAddress) else (query,)
        outcomes = await asyncio.gather(*(self._ask(one, one is query, asking) for one in spelled))
        return replace(together(outcomes), method=METHOD)

    async def _ask(self, query: Query, first: bool, asking: Asking) -> Outcome:
        """Ask in one spelling; `first`: in the one that every store understands."""

        def judge(status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
            outcome = verdict(status, headers, body, self._clock())
            if status in UNASKABLE and isinstance(outcome, Absent) and not first:
                return replace(outcome, remember=True)  # what it cannot be asked it does not hold
            return outcome

        return await self._client.ask(URL(f"{self._base}?{search_of(query)}", encoded=True), asking, judge)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()


def search_of(query: Query) -> str | None:
    """The query string: one attribute and its value, or None for what RFC 4387 has no words for."""
    if query.kind is not Kind.X509:
        return None
    match query:
        case ByAddress():
            return f"uri={quote(query.address, safe='@', errors='replace')}"
        case ByFingerprint(fingerprint=digits) if len(digits) == SHA1:
            return _by_hash("certhash", digits)
        case ByHash(attribute=attribute, digest=digits) if attribute.lower() in HASHES and len(digits) == SHA1:
            return _by_hash(attribute, digits)
    return None


def _by_hash(attribute: str, digits: str) -> str:
    return f"{HASHES[attribute.lower()]}={quote(hash_text(digits), safe='')}"
