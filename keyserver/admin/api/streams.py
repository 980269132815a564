"""Answers that last, as server-sent events or lines of JSON: bounded in number, ended when nobody may read them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import web

from keyserver.admin.api.guard import STANDING
from keyserver.admin.api.problems import problem
from keyserver.admin.api.reading import visible
from keyserver.admin.problems import Problem
from keyserver.store.base import StoreError

MOST = 32  # streams open at once, of all administrators together
BEAT = 10.0  # seconds between comments where nothing happens: a connection that is gone shows by that
ASKED = 2.0  # seconds between two looks whether whoever reads still may
STUCK = 20.0  # seconds after which whoever reads nothing of what was written is given up
_END = object()
_LINE = re.compile(r"\r\n|\r|\n")


def event(name: str, value: object, number: int | None = None) -> bytes:
    """A named event with JSON, as whoever acts may see it; number: by which a client says where it was."""
    return framed(json.dumps(visible(value), ensure_ascii=False), name, number)


def place(number: int) -> bytes:
    """No event: from where a client resumes that is cut off before the next one."""
    return f"id: {number}\n\n".encode()


def framed(data: str, name: str = "", number: int | None = None) -> bytes:
    """One event (HTML Living Standard §9.2.5); no line of the data can end it or begin another field."""
    lines = [f"id: {number}"] if number is not None else []
    lines += [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in _LINE.split(data)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


def line(value: object) -> bytes:
    """One line of NDJSON, as whoever acts may see it."""
    return json.dumps(visible(value), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


@dataclass(frozen=True, slots=True)
class Form:
    """How a stream is written. beat: what means nothing; trouble: tells why it ends early."""

    type: str
    beat: bytes
    trouble: Callable[[str], bytes]


EVENTS = Form("text/event-stream", b":\n\n", lambda why: event("error", {"detail": why}))
LINES = Form("application/x-ndjson", b"", lambda why: line({"error": why}))


class Streams:
    """All that are open."""

    def __init__(self, most: int = MOST, beat: float = BEAT, asked: float = ASKED, stuck: float = STUCK) -> None:
        """`beat`, `asked`, `stuck`: seconds, as the constants."""
        self._most = most
        self._beat = beat
        self._asked = asked
        self._stuck = stuck
        self._open: set[asyncio.Task[object]] = set()

    async def send(self, request: web.Request, events: AsyncIterator[bytes], form: Form = EVENTS) -> web.StreamResponse:
        """Events until there are no more, the client is gone, or its token is revoked.

        What goes wrong before the first event is raised; later it is told by `form`."""
        if len(self._open) >= self._most:
            await _close(events)
            response = problem(503, "Too many streams", f"{self._most} are open; close one")
            response.headers["Retry-After"] = "5"
            return response
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            return await self._send(request, events, form)
        finally:
            self._open.discard(task)
            await _close(events)

    async def close(self, _app: object = None) -> None:
        """End them all."""
        for task in tuple(self._open):
            task.cancel()

    async def _send(self, request: web.Request, events: AsyncIterator[bytes], form: Form) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": form.type, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        following = asyncio.ensure_future(anext(events, _END))
        loop = asyncio.get_running_loop()
        beaten = looked = loop.time()
        try:
            await asyncio.wait({following}, timeout=self._asked)
            if following.done():
                following.result()
            with suppress(ConnectionError):
                await response.prepare(request)
                while True:
                    if following.done():
                        octets = _result(following, form)
                        if octets is None:
                            break
                        await self._write(request, response, octets)
                        following = asyncio.ensure_future(anext(events, _END))
                    await asyncio.wait({following}, timeout=self._asked)
                    if request.transport is None:  # the client is gone
                        break
                    now = loop.time()
                    if now - looked >= self._asked:
                        looked = now
                        if not await request[STANDING].still():
                            break
                    if now - beaten >= self._beat:
                        beaten = now
                        await self._write(request, response, form.beat)
                await response.write_eof()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        return response

    async def _write(self, request: web.Request, response: web.StreamResponse, octets: bytes) -> None:
        """Raises ConnectionError where nobody reads it."""
        try:
            async with asyncio.timeout(self._stuck):
                await response.write(octets)
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionAbortedError from None


def _result(following: asyncio.Future[object], form: Form) -> bytes | None:
    """The next event; None after the last."""
    try:
        found = following.result()
    except (Problem, StoreError) as trouble:
        return form.trouble(str(trouble))
    return found if isinstance(found, bytes) else None


async def _close(events: AsyncIterator[bytes]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()
