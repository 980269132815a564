"""`POST /api/v1/can-encrypt`: the verdict for each of many recipients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing
from typing import TypeVar

from aiohttp import web

from keyserver.admin.api.guard import operator
from keyserver.admin.api.reading import Unsupported, chunks_of, json_of, query_of
from keyserver.admin.api.streams import LINES, Streams, line
from keyserver.admin.encrypting import Encrypting, summary_of
from keyserver.admin.problems import Unusable
from keyserver.admin.recipients import decoded, from_csv
from keyserver.verdict.deciding import Policy

MAX_LIST = 4 << 20  # octets of a list
LOOK = 1.0  # seconds between two looks whether the client is still there

T = TypeVar("T")


class EncryptingApi:
    """The handler."""

    def __init__(self, encrypting: Encrypting, streams: Streams) -> None:
        self._encrypting = encrypting
        self._streams = streams

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.post("/api/v1/can-encrypt", self.ask)]

    @operator
    async def ask(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/can-encrypt[?policy=&kind=]` with a JSON list or CSV: JSON in the order of the list, or (accept
        `application/x-ndjson`) a line for each as it comes."""
        given = query_of(request, "policy", "kind")
        policy = self._encrypting.policy(given.get("policy"), given.get("kind"))
        addresses = self._encrypting.addresses(await _list_of(request))
        if LINES.type in request.headers.get("Accept", ""):
            return await self._streams.send(request, self._lines(addresses, policy), LINES)
        found = await while_there(request, self._encrypting.in_order(addresses, policy))
        return json_of({"verdicts": found, "summary": summary_of(found)})

    async def _lines(self, addresses: Sequence[str], policy: Policy) -> AsyncIterator[bytes]:
        async with aclosing(self._encrypting.as_they_come(addresses, policy)) as coming:
            async for one in coming:
                yield line(one)


async def while_there(request: web.Request, work: Awaitable[T]) -> T:
    """What work gives. Raises ConnectionResetError when the client leaves; nobody works on then."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK)
            if request.transport is None:
                raise ConnectionResetError("the client is gone")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _list_of(request: web.Request) -> list[str]:
    """The addresses in a body. Raises Unusable, Unsupported."""
    type_ = request.content_type
    if type_ not in ("application/json", "text/csv"):
        raise Unsupported(f"Content-Type is {type_[:80]!r}; application/json and text/csv are accepted")
    octets = bytearray()
    async for chunk in chunks_of(request):
        octets += chunk
        if len(octets) > MAX_LIST:
            raise Unusable(f"the list has more than {MAX_LIST} octets")
    if type_ == "text/csv":
        return from_csv(decoded(bytes(octets)))
    try:
        found = json.loads(octets)
    except (ValueError, RecursionError):
        raise Unusable("the body is not JSON") from None
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise Unusable('the body must be a JSON list of addresses, such as ["alice@example.org"]')
    return found
