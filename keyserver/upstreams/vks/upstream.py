"""Verifying keyservers, by the interface of keys.openpgp.org (its `about/api`): `GET /vks/v1/by-…`.

An address is asked for once: such a server keeps domains in A-labels and reads them in either spelling (hagrid's
`Email`), and every question counts against its limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from yarl import URL

from keyserver.model import Absent, Kind, Outcome, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.http.client import Client
from keyserver.upstreams.http.proxy import check_proxy
from keyserver.upstreams.net import Names
from keyserver.upstreams.verdict import verdict
from keyserver.upstreams.vks.url import parse_url

METHOD = "vks"


class Vks:
    """One verifying keyserver."""

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
        if proxy:
            check_proxy(proxy)
        self._clock = clock
        self._base = URL.build(scheme="https", host=endpoint.host, port=endpoint.port, path="/vks/v1")
        self._client = Client(
            names=names or Names(),
            host=endpoint.host,
            allow_private=allow_private,
            proxy=URL(proxy) if proxy else None,
            tls_ca_file=tls_ca_file,
        )

    def target(self, query: Query) -> str:
        """The upstream's name."""
        return self.spec.name

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Ask once (see `Upstream.fetch`)."""
        path = path_of(query)
        if path is None:
            return Absent("VKS has no words for that", remember=False, method=METHOD)
        outcome = await self._client.ask(URL(f"{self._base}{path}", encoded=True), asking, self._judge)
        return replace(outcome, method=METHOD)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _judge(self, status: int, headers: Mapping[str, str], body: bytes) -> Outcome:
        return verdict(status, headers, body, self._clock())


def path_of(query: Query) -> str | None:
    """What follows `/vks/v1`, or None for what VKS has no words for."""
    if query.kind is not Kind.OPENPGP:
        return None
    match query:
        case ByAddress():
            return f"/by-email/{quote(query.address, safe='', errors='replace')}"
        case ByFingerprint(fingerprint=digits):
            return f"/by-fingerprint/{digits}"
        case ByKeyId(key_id=digits):
            return f"/by-keyid/{digits}"
    return None
