"""The verdict over HTTP, for rspamd, Exim and scripts: `GET /verdict?address=…&policy=…`.

One word in a line of plain text, for who accepts `application/json` the whole verdict. The word comes from memory as
lookups do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from keyserver.faces.context import FaceContext
from keyserver.faces.face import Face, Opening
from keyserver.faces.http.app import make_runner, manners
from keyserver.faces.http.connection import HttpConnection, HttpLimits
from keyserver.faces.http.exchange import Behind
from keyserver.faces.http.facts import Facts, offer
from keyserver.faces.http.hot import HotAnswers
from keyserver.faces.http.replies import MAX_AGE, plain
from keyserver.faces.http.server import HttpServer
from keyserver.faces.verdict.asking import NOT_ALLOWED, Asking, asked
from keyserver.verdict.deciding import Policy, Verdict, Word
from keyserver.wire.http_hot import Answering, Block, classify

JSON = "application/json"
NO_ADDRESS = "Bad request: give one address, as in /verdict?address=alice@example.org."
TWO_POLICIES = "Bad request: give one policy."
NO_POLICY = "Not found: there is no policy of this name."

_ACCEPTS_JSON = re.compile(rb"^accept:[^\r]*application/json", re.IGNORECASE | re.MULTILINE)


class VerdictServer(HttpServer):
    """An HTTP server for those who may ask for verdicts."""

    def __init__(self, server: Callable[[], Behind], hot: HotAnswers, asking: Asking, **options: Any) -> None:
        super().__init__(server, hot, face=asking.face, **options)
        self._asking = asking

    def enter(self, connection: HttpConnection, client: str, transport: asyncio.BaseTransport) -> str:
        """A connection of this client begins; else why it may not."""
        if not self._asking.may(client):
            self.refuse(NOT_ALLOWED)
            return NOT_ALLOWED
        return super().enter(connection, client, transport)

    def classify(self, block: bytes) -> Block:
        """Memory holds the word alone."""
        if not _ACCEPTS_JSON.search(block):
            return super().classify(block)
        verdict = classify(block, self._own)
        return replace(verdict, answering=Answering.HANDLER) if verdict.answering is Answering.MEMORY else verdict

    def report(self) -> None:
        """Tell the hits since the last time, and prefetch what was asked for."""
        super().report()
        context = self._asking.context
        context.lookups.note_asked(self.hot.asked(), context.clock())


class VerdictPage:
    """The handler of one listener."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """`GET /verdict`."""
        context: FaceContext = self._asking.context
        addresses, names = request.query.getall("address", []), request.query.getall("policy", [])
        if len(addresses) != 1 or not addresses[0].strip():
            return plain(400, NO_ADDRESS)
        if len(names) > 1:
            return plain(400, TWO_POLICIES)
        policies = context.rules().policies
        named = policies.get(names[0] if names else next(iter(policies), ""))
        if named is None:
            return plain(404, NO_POLICY)
        number = context.budget.number
        verdict = await self._asking.ask(addresses[0], named.policy)
        if JSON in request.headers.get("Accept", "").lower():
            return web.json_response(described(verdict, named.policy), headers={"Cache-Control": "no-store"})
        return self._word(request, verdict, number)

    def _word(self, request: web.Request, verdict: Verdict, number: int) -> web.Response:
        response = plain(200, str(verdict.word))
        now = self._asking.context.clock()
        if verdict.keep and verdict.word is not Word.UNKNOWN and verdict.until > now:
            response.headers["Cache-Control"] = f"max-age={min(MAX_AGE, verdict.until - now)}"
            if request.method == "GET":
                name = next(iter(asked(verdict)), "")
                offer(request, Facts(verdict.names, verdict.until, number, 0, verdict.word is Word.YES, name))
        return response


def described(verdict: Verdict, policy: Policy) -> dict[str, object]:
    """The verdict as JSON has it. Times are Unix seconds."""
    return {
        "address": verdict.address,
        "policy": policy.name,
        "verdict": verdict.word,
        "reason": verdict.reason,
        "text": verdict.text,
        "certificates": [asdict(certificate) for certificate in verdict.certificates],
        "missing": list(verdict.missing),
    }


@web.middleware
async def _for_programs(request: web.Request, handler: Handler) -> web.StreamResponse:
    """No page of another site may read what a browser on this machine would be told."""
    response = await handler(request)
    response.headers.pop("Access-Control-Allow-Origin", None)
    return response


async def _open(opening: Opening) -> VerdictServer:
    """The face, without a listener yet."""
    config, context = opening.config, opening.context
    unix = config.verdict.listen is not None and config.verdict.listen.unix is not None
    asking = Asking(VERDICT.name, context, opening.verdicts, opening.note_verdict, unix)
    app = web.Application(middlewares=[_for_programs, manners])
    app.router.add_get("/verdict", VerdictPage(asking).answer)
    runner = make_runner(app)
    await runner.setup()
    opening.closing.push_async_callback(runner.cleanup)
    assert runner.server is not None
    return VerdictServer(
        runner.server,
        HotAnswers(context.budget),
        asking,
        limits=HttpLimits(config.limits.connections_per_client, context.trust),
        own=context.instance,
        tell=opening.tell,
        tls=opening.tls(config.verdict.tls_certificate, config.verdict.tls_key_file),
    )


VERDICT = Face("verdict", "http", _open)
