"""Acts for all that a filter shows: `DELETE /api/v1/cache` and `POST /api/v1/cache/{act}`."""

from __future__ import annotations

from aiohttp import web

from keyserver.admin.api.deletes import act_of
from keyserver.admin.api.guard import operator
from keyserver.admin.api.reading import json_of, query_of
from keyserver.admin.bulk import Act, Bulk, Outcome
from keyserver.admin.filters import FILTERS, filter_of
from keyserver.admin.problems import Unusable
from keyserver.store.listing import Filter

_ACTS = (Act.APPROVE, Act.REFRESH, Act.KEEP, Act.BLOCK)


class BulkApi:
    """The handlers. Each takes any of `FILTERS`, one at least, and goes over so many entries that it ends soon; `more`
    says that others match."""

    def __init__(self, bulk: Bulk) -> None:
        self._bulk = bulk

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.delete("/api/v1/cache", self.delete),
            *(web.post(f"/api/v1/cache/{act}", self.act) for act in _ACTS),
        ]

    @operator
    async def delete(self, request: web.Request) -> web.StreamResponse:
        """`DELETE /api/v1/cache?…[&undo=]`."""
        given = query_of(request, *FILTERS, "undo")
        undo = act_of(given)
        what = _chosen(given)
        outcome = await self._bulk.all_that_match(Act.DELETE if undo else Act.PURGE, what, undo)
        return json_of(
            {"deleted": outcome.done, "undo": outcome.undo, "undo_until": outcome.undo_until, "more": outcome.more}
        )

    @operator
    async def act(self, request: web.Request) -> web.StreamResponse:
        """`POST /api/v1/cache/{act}?…`."""
        what = _chosen(query_of(request, *FILTERS))
        outcome: Outcome = await self._bulk.all_that_match(Act(request.path.rpartition("/")[2]), what)
        return json_of({"done": outcome.done, "failed": outcome.failed, "more": outcome.more})


def _chosen(given: dict[str, str]) -> Filter:
    what = filter_of(given)
    if what == Filter():
        raise Unusable(f"nothing selected: say which entries, by any of {', '.join(FILTERS)}")
    return what
