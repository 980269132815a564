"""`/cache`: the key cache as a table, found by filters that stand in the URL, and what can be done to many at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from keyserver.admin.acts import ACTOR
from keyserver.admin.api.entries import listing_of
from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.bulk import MOST, MOST_ASKED, Act, Outcome, Picked
from keyserver.admin.filters import FILTERS, filter_of
from keyserver.admin.operations import Operations
from keyserver.admin.pages import HEADERS, Templates
from keyserver.admin.pages.filtering import PAGING, PLACES, chips, columns, kept, link, newer, older
from keyserver.admin.pages.forms import fields_of, may_act, on
from keyserver.admin.pages.notices import PARAMETERS, Notice, after, notices
from keyserver.admin.pages.refusing import refused
from keyserver.admin.problems import Problem, Unusable
from keyserver.admin.resources import EntryResource
from keyserver.admin.service import Listing
from keyserver.model import Kind, Source
from keyserver.store.base import StoreError
from keyserver.store.listing import Status

ROWS = 50  # of one page
HERE = "/cache"
_DONE: Mapping[Act, str] = {
    Act.DELETE: "deleted",
    Act.REFRESH: "refreshed",
    Act.APPROVE: "approved",
    Act.KEEP: "kept",
    Act.BLOCK: "blocked",
    Act.PURGE: "purged",
}
_PARAMETERS = (*FILTERS, *PLACES, *PAGING, *PARAMETERS)
_EXPORT = "export"
_SHOWN = 5  # of those that an act is for, where it asks first


class CachePage:
    """The handlers."""

    def __init__(self, operations: Operations, templates: Templates) -> None:
        self._service = operations.service
        self._undoing = operations.undoing
        self._bulk = operations.bulk
        self._clock = operations.clock
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands; before `/cache/{id}`."""
        return [web.get("/cache", self.page), web.post("/cache/act", self.act)]

    @viewer
    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /cache`, with any of `FILTERS`, `sort`, `order`, `cursor`: the table, and for htmx that part alone."""
        given = query_of(request, *_PARAMETERS)
        try:
            what, sort, descending = listing_of(given)
            listing = await self._service.list(what, ROWS, given.get("cursor"), sort, descending=descending)
            said = await self._notices(given)
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, HERE)
        response = self._templates.fragment(
            request,
            "cache",
            "list",
            given=kept(given),
            rows=[_row(entry) for entry in listing.entries],
            full=len(listing.entries) == ROWS,
            listing=_without_entries(listing),
            chips=chips(given),
            columns=columns(given, sort, descending=descending),
            older=older(given, listing.next),
            newer=newer(given),
            first=link(kept(given)),
            action=link({**kept(given), **{n: given[n] for n in PAGING if n in given}}, "/cache/act"),
            exports=_exports(given),
            upstreams=[status.name for status in self._service.upstreams()],
            sources=list(Source),
            statuses=list(Status),
            kinds=list(Kind),
            may=may_act(),
            masked=ACTOR.get().hash_ is not None,
            notices=said,
        )
        response.headers["HX-Push-Url"] = link(kept(given))
        return response

    @operator
    async def act(self, request: web.Request) -> web.StreamResponse:
        """`POST /cache/act?…`, the list's own parameters: `do` to each `id`, or with `all=1` to all that match. What
        cannot be undone, and what is for all, is asked first (`sure=1`)."""
        given, back = query_of(request, *_PARAMETERS), HERE
        try:
            back = link({name: value for name, value in given.items() if name not in PARAMETERS})
            fields = await fields_of(request)
            do, every = fields.get("do", [""])[0], fields.get("all") == ["1"]
            picked = [one for one in map(Picked.read, fields.get("id", [])) if one is not None]
            if not every and not picked:
                return on(after(back, "none", 0))
            if do == _EXPORT:
                return await self._export(request, given, picked, every=every)
            if do not in list(Act):
                raise Unusable(f"do is {do[:40]!r}; accepted are {', '.join(Act)}, {_EXPORT}")
            act = Act(do)
            if fields.get("sure") != ["1"] and (every or act in (Act.PURGE, Act.BLOCK)):
                return await self._ask_first(act, given, picked, back, every=every)
            whole = self._bulk.all_that_match(act, filter_of(given)) if every else self._bulk.these(act, picked)
            return on(_after(act, back, await whole))
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, back)

    async def _ask_first(
        self, act: Act, given: Mapping[str, str], picked: Sequence[Picked], back: str, *, every: bool
    ) -> web.Response:
        number, exact = len(picked), True
        if every:
            listing = await self._service.list(filter_of(given), _SHOWN)
            number, exact = listing.count or len(listing.entries), listing.count_exact
            rows = [(entry.identities[:1], entry.fingerprint) for entry in listing.entries]
        else:
            rows = [(await self._named(one), one.fingerprint) for one in picked[:_SHOWN]]
        return self._templates.page(
            "confirm",
            act=act.value,
            chips=chips(given) if every else (),
            every=every,
            number=number,
            exact=exact,
            rows=[{"identities": identities, "fingerprint": fingerprint} for identities, fingerprint in rows],
            ids=[] if every else [one.id for one in picked],
            action=link(given, "/cache/act"),
            back=back,
            most=MOST_ASKED if act is Act.REFRESH else MOST,
        )

    async def _named(self, one: Picked) -> tuple[str, ...]:
        try:
            return tuple(u.text for u in (await self._service.show(one.fingerprint)).user_ids[:1])
        except Problem:
            return ()

    async def _export(
        self, request: web.Request, given: Mapping[str, str], picked: Sequence[Picked], *, every: bool
    ) -> web.StreamResponse:
        """Armor and PEM, one certificate after the other."""
        if every:
            picked, more = await self._bulk.matching(filter_of(given))
            if more:
                raise Unusable(f"more than {MOST} match: narrow the filter, or use keyserver cache export")
        headers = {**HEADERS, "Content-Disposition": 'attachment; filename="certificates.asc"'}
        response = web.StreamResponse(headers={**headers, "Content-Type": "application/pgp-keys"})
        await response.prepare(request)
        async for _, octets in self._bulk.files(picked):
            await response.write(octets)
        await response.write_eof()
        return response

    async def _notices(self, given: Mapping[str, str]) -> Sequence[Notice]:
        if "done" not in given:
            return ()
        return notices(given, await self._undoing.waiting() if may_act() else (), self._clock())


def _after(act: Act, back: str, outcome: Outcome) -> str:
    return after(back, _DONE[act], outcome.done, outcome.failed + outcome.more, outcome.undo)


def _row(entry: EntryResource) -> Mapping[str, object]:
    """An entry as a row: with what its form needs, and its first identity alone."""
    x509 = entry.kind == Kind.X509
    short = entry.fingerprint[:16] if x509 or len(entry.fingerprint) == 64 else entry.fingerprint[-16:]
    return {
        "id": Picked.of(entry).id,
        "fingerprint": entry.fingerprint,
        "short": short,
        "kind": entry.kind,
        "identities": entry.identities[:1],
        "more": len(entry.identities) - 1,
        "source": entry.source,
        "origin": entry.origin,
        "cached_at": entry.cached_at,
        "expires_at": entry.expires_at,
        "status": entry.status,
        "answered": entry.answered,
        "reason": entry.reason,
        "approved": entry.approved,
    }


def _without_entries(listing: Listing) -> Mapping[str, object]:
    return {
        "count": listing.count,
        "count_exact": listing.count_exact,
        "searched": listing.searched,
        "of": listing.of,
        "more": listing.next is not None,
        "as_of": listing.as_of,
    }


def _exports(given: Mapping[str, str]) -> Mapping[str, str]:
    """Tables of exactly what the filter shows."""
    return {name: link(kept(given), "/api/v1/cache", format=format_) for name, format_ in _TABLES}


_TABLES = (("CSV", "csv"), ("JSON lines", "jsonl"))
