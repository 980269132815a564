"""`/api/v1/events`: what changed, as it happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import aclosing

from aiohttp import web

from keyserver.admin.api.guard import viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.api.streams import Streams, event, place
from keyserver.admin.problems import Unusable
from keyserver.events.feed import Feed
from keyserver.events.form import told
from keyserver.store.history import What

MOST = 16  # feeds open at once, of all administrators together

_SENT = tuple(what for what in What if what is not What.RENEWED)


class EventsApi:
    """The handler."""

    def __init__(self, feed: Feed, streams: Streams) -> None:
        self._feed = feed
        self._streams = streams

    def routes(self) -> list[web.RouteDef]:
        """Where it stands."""
        return [web.get("/api/v1/events", self.stream, allow_head=False)]

    @viewer
    async def stream(self, request: web.Request) -> web.StreamResponse:
        """`GET /api/v1/events?what=…`: server-sent events from now on, or from behind `Last-Event-ID`."""
        given = query_of(request, "what")
        wanted = _wanted(given["what"]) if "what" in given else ()
        return await self._streams.send(request, self._events(_last(request), wanted))

    async def _events(self, last: int | None, wanted: Collection[What]) -> AsyncIterator[bytes]:
        after = await self._feed.begin(last)
        yield place(after)  # whoever is cut off before the first event resumes from here
        async with aclosing(self._feed.follow(after, wanted)) as events:
            async for one in events:
                yield event(one.what.value, told(one), one.number)


def _wanted(text: str) -> Collection[What]:
    """Raises Unusable."""
    try:
        wanted = frozenset(What(word.strip()) for word in text.split(","))
    except ValueError:
        wanted = frozenset()
    if not wanted or What.RENEWED in wanted:
        raise Unusable(f"what is {text[:80]!r}; accepted are, with commas between, {', '.join(_SENT)}")
    return wanted


def _last(request: web.Request) -> int | None:
    """Raises Unusable."""
    text = request.headers.get("Last-Event-ID", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Unusable(f"Last-Event-ID is {text[:80]!r}; the id of an event is accepted")
    return int(text)
