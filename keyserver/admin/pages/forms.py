"""Forms that pages post, and where a browser goes afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from aiohttp import web

from keyserver.admin.access import Role
from keyserver.admin.acts import ACTOR
from keyserver.admin.api.reading import SILENCE


def may_act() -> bool:
    """Is whoever asks an operator?"""
    return ACTOR.get().role is Role.OPERATOR


async def fields_of(request: web.Request) -> dict[str, list[str]]:
    """A form's fields, each with all its values; empty ones count as not given, files are none."""
    try:
        async with asyncio.timeout(SILENCE):
            posted = await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    found: dict[str, list[str]] = {}
    for name, value in posted.items():
        if isinstance(value, str) and value:
            found.setdefault(name, []).append(value)
    return found


def one_of(fields: dict[str, list[str]], name: str) -> str | None:
    """The one value of a field; None where it is not given."""
    return fields.get(name, [None])[0]


def address(path: str, parameters: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    """A path of ours with its query, if it has one."""
    query = urlencode(parameters)
    return f"{path}?{query}" if query else path


def on(path: str) -> web.Response:
    """303, to a path of ours."""
    return web.Response(status=303, headers={"Location": path, "Cache-Control": "no-store"})
