"""One question over HTTP, the same for every protocol: put to the resolver, answered, noted.

A protocol reads its request, asks, and makes a reply of what it gets; everything else stands here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import unquote

from aiohttp import web

from keyserver.faces.context import FaceContext
from keyserver.faces.http.replies import REFUSALS, STATUS, client_of, finish, hops, looped, plain
from keyserver.model import Answer, Answered, View
from keyserver.query import Query
from keyserver.usable import unusable

T = TypeVar("T")

SMALL = 65536  # octets of certificates up to which a reply is made on the loop
MAX_SUBMISSION = 2 << 20  # octets of a submitted body that are read before it is refused
PIECE = 4096  # octets of it that are read before others have their turn
SUBMISSION_TIME = 30.0  # seconds for that


class Question:
    """A request from its first octet read to its reply. `face`: the protocol's name in statistics and logs."""

    def __init__(self, context: FaceContext, face: str, request: web.Request) -> None:
        self._context = context
        self._face = face
        self._request = request
        self._began = context.monotonic()
        self._client = client_of(context, request)
        self._number = context.budget.number

    async def ask(self, query: Query, view: View | None = None) -> Answer:
        """What the resolver says. `view`: another one than this listener's."""
        return await self._context.lookups.lookup(
            query,
            view or self._context.view,
            client=self._client,
            looped=looped(self._request, self._context.instance),
            via=",".join(hops(self._request)),
        )

    def reply(
        self, response: web.Response, query: Query | None, answer: Answer | None, shown: Sequence[Answered] = ()
    ) -> web.Response:
        """The reply with all that it must say, and noted. `answer`: None where nobody was asked; `shown`: the
        certificates in it."""
        if shown and self._context.rules().explain:
            response.headers["X-Key-Source"] = shown[0].source.value
            response.headers["X-Key-Usable"] = "no" if unusable(shown[0].certificate.proof) else "yes"
        if answer is not None:
            response = finish(self._context, self._request, response, answer, self._number)
        seconds = self._context.monotonic() - self._began
        self._context.note(self._face, query, answer, response.status, seconds, self._client)
        return response


def unanswered(answer: Answer) -> web.Response:
    """The reply to a question without a certificate to show."""
    return plain(STATUS[answer.state], REFUSALS[answer.state])


def path_of(request: web.Request) -> str:
    """The path as the client wrote it. Routes also match other spellings of it; what is remembered goes by this one."""
    return request.raw_path.partition("?")[0]


def decoded(part: str) -> str:
    """A part of a path or query without escapes; what is not UTF-8 becomes U+FFFD, which no address may hold.

    `+` stays: it is a space in forms only."""
    return unquote(part, errors="replace")


async def rendered(octets: int, render: Callable[[], T]) -> T:
    """What `render` makes of so many octets of certificates."""
    return render() if octets <= SMALL else await asyncio.to_thread(render)


async def refused(request: web.Request, response: web.Response) -> web.Response:
    """The refusal of a submission, when its body is read: clients write all of it before they listen."""
    size = 0
    whole = False
    try:
        async with asyncio.timeout(SUBMISSION_TIME):
            async for chunk in request.content.iter_chunked(PIECE):
                await asyncio.sleep(0)  # each of its octets may have been a chunk of its own
                size += len(chunk)
                if size > MAX_SUBMISSION:
                    break
            else:
                whole = True
    except TimeoutError:
        pass
    if not whole:
        response.force_close()
    return response
