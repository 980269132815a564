"""The pages' own files: read once, compressed once, under names that change with their content."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

from keyserver.admin.api.guard import anyone
from keyserver.admin.pages import HEADERS

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file. `name`: under which it is served."""

    name: str
    type: str
    octets: bytes
    compressed: bytes


class Assets:
    """All of them."""

    def __init__(self) -> None:
        folder = files("keyserver.admin.pages").joinpath("static")
        found = [(entry.name, entry.read_bytes()) for entry in folder.iterdir()]
        made = {name: _asset(name, octets) for name, octets in found if _suffix(name) in _TYPES}
        self.places: Mapping[str, str] = {name: f"/static/{asset.name}" for name, asset in made.items()}
        """Where each is, by its file's name."""
        self._assets = {asset.name: asset for asset in made.values()}

    def routes(self) -> list[web.RouteDef]:
        """Where they stand."""
        return [web.get("/static/{name}", self.serve)]

    @anyone
    async def serve(self, request: web.Request) -> web.StreamResponse:
        """`GET /static/{name}`."""
        asset = self._assets.get(request.match_info["name"])
        if asset is None:
            raise web.HTTPNotFound
        headers = {**HEADERS, "Cache-Control": _FOREVER, "Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=asset.octets, content_type=asset.type, charset="utf-8", headers=headers)
        headers["Content-Encoding"] = "gzip"
        return web.Response(body=asset.compressed, content_type=asset.type, charset="utf-8", headers=headers)


def _suffix(name: str) -> str:
    return f".{name.rpartition('.')[2]}"


def _asset(name: str, octets: bytes) -> Asset:
    suffix = _suffix(name)
    digest = hashlib.sha256(octets).hexdigest()[:16]
    return Asset(
        f"{name.removesuffix(suffix)}-{digest}{suffix}", _TYPES[suffix], octets, gzip.compress(octets, mtime=0)
    )
