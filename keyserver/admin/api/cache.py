"""`/api/v1/cache`: listings, one certificate, and what may be done with it."""

from __future__ import annotations

from typing import cast

from aiohttp import web

from keyserver.admin.api.entries import entry_lines, listing_of
from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import (
    Unsupported,
    body_of,
    chunks_of,
    id_of,
    identities_wanted,
    json_of,
    query_of,
    whole,
)
from keyserver.admin.api.tables import TYPES, format_of, written
from keyserver.admin.filters import FILTERS, selection
from keyserver.admin.plain import plain
from keyserver.admin.problems import Unusable
from keyserver.admin.service import Service
from keyserver.model import Kind


class CacheApi:
    """The handlers."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/api/v1/cache", self.list, allow_head=False),
            web.get("/api/v1/cache/export", self.export, allow_head=False),
            web.post("/api/v1/cache/import", self.import_),
            web.post("/api/v1/cache/purge", self.purge),
            web.get("/api/v1/cache/{id}", self.show),
            web.post("/api/v1/cache/{id}/approve", self.approve),
            web.post("/api/v1/cache/{id}/refresh", self.refresh),
            web.post("/api/v1/cache/{id}/keep", self.keep),
            web.post("/api/v1/cache/{id}/block", self.block),
            web.post("/api/v1/cache/{id}/unblock", self.unblock),
        ]

    @viewer
    async def list(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/cache`, with any of `FILTERS`, `sort`, `order`, `limit`, `cursor`, `format`: csv or jsonl gives
        all that match."""
        given = query_of(request, *FILTERS, "sort", "order", "limit", "cursor", "format")
        what, sort, descending = listing_of(given)
        format_ = format_of(given)
        if format_ == "json":
            limit, cursor = whole(given.get("limit", "100"), "limit"), given.get("cursor")
            return json_of(await self._service.list(what, limit, cursor, sort, descending=descending))
        lines = entry_lines(self._service, what, sort, format_, descending=descending)
        return await written(request, lines, TYPES[format_])

    @viewer
    async def show(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/cache/{id}`: one certificate and its entries, of one source with `?source=`."""
        given = query_of(request, "source")
        wanted = selection(given.get("source")).source
        shown = cast("dict[str, object]", plain(await self._service.show(id_of(request))))
        if wanted is not None:
            rows = cast("list[dict[str, object]]", shown["entries"])
            shown["entries"] = [row for row in rows if row["source"] == wanted.value]
        return json_of(shown)

    @operator
    async def approve(self, request: web.Request) -> web.StreamResponse:
        """`POST …/approve`, with any of `address`, `source`, `upstream` as JSON or `?address=&source=&upstream=`."""
        accepted: dict[str, type] = {"address": str, "source": str, "upstream": str}
        body = await body_of(request, accepted) if request.can_read_body else {}
        given = query_of(request, *accepted) | {name: str(value) for name, value in body.items() if value}
        what = selection(given.get("source"), given.get("upstream"))
        done = await self._service.approve(id_of(request), given.get("address"), what.source, what.upstream)
        return json_of(done)

    @operator
    async def refresh(self, request: web.Request) -> web.StreamResponse:
        """`POST …/refresh`: answers when the upstreams have."""
        return json_of(await self._service.refresh(id_of(request)))

    @operator
    async def keep(self, request: web.Request) -> web.StreamResponse:
        """`POST …/keep`."""
        done = await self._service.keep(id_of(request))
        return json_of({"fingerprint": done.fingerprint, "kept": True})

    @operator
    async def block(self, request: web.Request) -> web.StreamResponse:
        """`POST …/block`, with `{"reason": "…"}` or without a body."""
        body = await body_of(request, {"reason": str}) if request.can_read_body else {}
        done = await self._service.block(id_of(request), str(body.get("reason", ""))[:500])
        return json_of({"fingerprint": done.fingerprint, "blocked": True})

    @operator
    async def unblock(self, request: web.Request) -> web.StreamResponse:
        """`POST …/unblock`."""
        done = await self._service.unblock(id_of(request))
        return json_of({"fingerprint": done.fingerprint, "blocked": False})

    @operator
    async def purge(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/cache/purge`: JSON with exactly one of expired, source, upstream, domain, all."""
        accepted = {"expired": bool, "all": bool, "source": str, "upstream": str, "domain": str}
        body = await body_of(request, accepted)
        chosen = {name: value for name, value in body.items() if value is not False}
        if len(chosen) != 1:
            raise Unusable(f"exactly one of {', '.join(accepted)} is accepted")
        name, value = chosen.popitem()
        if name == "expired":
            purged = await self._service.purge_expired()
        elif name == "all":
            purged = await self._service.purge_all()
        elif not value:
            raise Unusable(f"{name} is empty")
        else:
            purged = await self._service.purge(selection(**{name: str(value)}))
        return json_of({"purged": purged})

    @viewer
    async def export(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/cache/export?source=&upstream=&domain=&q=&kind=`: armor, or with `kind=x509` PEM."""
        identities_wanted()
        given = query_of(request, "source", "upstream", "domain", "q", "kind")
        what = selection(
            given.get("source"), given.get("upstream"), given.get("domain"), given.get("q"), given.get("kind")
        )
        type_ = "application/x-pem-file" if what.kind is Kind.X509 else "application/pgp-keys"
        return await written(request, self._service.export(what), type_)

    @operator
    async def import_(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/cache/import`: a keyring (or PEM) of any size, read as it comes; answers with counts."""
        if request.content_type not in ("application/pgp-keys", "application/octet-stream"):
            raise Unsupported("Content-Type must be application/pgp-keys or application/octet-stream")
        return json_of(await self._service.import_keyring(chunks_of(request)))
