"""`/can-encrypt`: whom of many mail can be encrypted to, and why not the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing

from aiohttp import web

from keyserver.admin.api.encrypting import while_there
from keyserver.admin.api.guard import operator, viewer
from keyserver.admin.api.reading import query_of
from keyserver.admin.api.streams import Streams, framed
from keyserver.admin.api.tables import TYPES, row
from keyserver.admin.encrypting import Encrypting, Recipient, summary_of
from keyserver.admin.pages import Templates, wants_part
from keyserver.admin.pages.forms import fields_of, may_act, one_of
from keyserver.admin.pages.refusing import refused
from keyserver.admin.problems import Problem, Unusable
from keyserver.admin.recipients import pasted
from keyserver.display import readable
from keyserver.store.base import StoreError
from keyserver.verdict.deciding import Kinds, Policy

HERE = "/can-encrypt"
MAX_FORM = 8 << 20  # octets: ten thousand addresses as browsers write them into a form
EVERY = 0.3  # seconds between two parts of the page
COLUMNS = ("address", "verdict", "kind", "fingerprint", "source", "origin", "reason")


class Asked:
    """One question as the form has it. Raises Unusable, NotKnown."""

    def __init__(self, encrypting: Encrypting, fields: dict[str, list[str]]) -> None:
        act = one_of(fields, "do") or "ask"
        if act not in ("ask", "again"):
            raise Unusable(f"do is {act[:80]!r}; accepted are ask and again")
        self.policy: Policy = encrypting.policy(one_of(fields, "policy"), one_of(fields, "kind"))
        self.addresses = encrypting.addresses(one for text in fields.get("addresses", ()) for one in pasted(text))
        self.coming = encrypting.noes_again if act == "again" else encrypting.as_they_come
        self.fields = {name: one_of(fields, name) or "" for name in ("policy", "kind")}

    async def in_order(self) -> list[Recipient]:
        """All of them."""
        async with aclosing(self.coming(self.addresses, self.policy)) as coming:
            found = {one.address: one async for one in coming}
        return [found[address] for address in self.addresses]


class EncryptingPage:
    """The handlers."""

    def __init__(self, encrypting: Encrypting, streams: Streams, templates: Templates) -> None:
        self._encrypting = encrypting
        self._streams = streams
        self._templates = templates

    def routes(self) -> list[web.RouteDef]:
        """Where each handler stands."""
        return [
            web.get("/can-encrypt", self.page),
            web.post("/can-encrypt", self.ask),
            web.post("/can-encrypt/export", self.export),
        ]

    @viewer
    async def page(self, request: web.Request) -> web.StreamResponse:
        """`GET /can-encrypt`: the form; for viewers, that they may not ask."""
        query_of(request)
        return self._templates.page("can_encrypt", **self._form(), rows=None)

    @operator
    async def ask(self, request: web.Request) -> web.StreamResponse:
        """`POST /can-encrypt`: `addresses`, `policy`, `kind`, and `do`: `ask`, or `again`, which asks upstreams anew
        where the verdict is no. A page with all verdicts, or where htmx asks its parts as they come."""
        query_of(request)
        fields = await _fields(request)
        if wants_part(request):
            return await self._streams.send(request, self._events(fields))
        try:
            asked = Asked(self._encrypting, fields)
            rows = await while_there(request, asked.in_order())
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, HERE)
        return self._templates.page("can_encrypt", **{**self._form(), **_result(asked, rows)})

    @operator
    async def export(self, request: web.Request) -> web.StreamResponse:
        """`POST /can-encrypt/export`: the verdicts of now on `addresses` as CSV; they may be asked for anew."""
        query_of(request)
        try:
            asked = Asked(self._encrypting, await _fields(request))
            rows = await while_there(request, asked.in_order())
        except (Problem, StoreError) as trouble:
            return refused(self._templates, trouble, HERE, HERE)
        text = row(COLUMNS) + "".join(line for one in rows for line in _csv(one))
        headers = {
            "Content-Type": TYPES["csv"],
            "Content-Disposition": 'attachment; filename="verdicts.csv"',
            "Cache-Control": "no-store",
        }
        return web.Response(body=text.encode("utf-8", "replace"), headers=headers)

    def _form(self) -> dict[str, object]:
        return {
            "may": may_act(),
            "policies": self._encrypting.names,
            "kinds": tuple(kind.value for kind in Kinds),
            "chosen": {"policy": "", "kind": ""},
            "typed": "",
        }

    async def _events(self, fields: dict[str, list[str]]) -> AsyncIterator[bytes]:
        """The frame of the table, rows as they come beside how far it is, at last what can be done with them."""
        part = self._templates.part
        try:
            asked = Asked(self._encrypting, fields)
            found: list[Recipient] = []
            yield framed(part("can_encrypt", "result", **_result(asked, found, swapped=True)))
            async with aclosing(_batches(asked.coming(asked.addresses, asked.policy))) as batches:
                async for batch in batches:
                    found += batch
                    yield framed(part("can_encrypt", "more", rows=batch))
                    yield framed(part("can_encrypt", "status", **_status(asked, found)))
            yield framed(part("can_encrypt", "acts", **_result(asked, found, swapped=True)))
        except (Problem, StoreError) as trouble:
            yield framed(part("can_encrypt", "wrong", text=str(trouble)))


async def _fields(request: web.Request) -> dict[str, list[str]]:
    return await fields_of(request.clone(client_max_size=MAX_FORM))


def _result(asked: Asked, rows: Sequence[Recipient], *, swapped: bool = False) -> dict[str, object]:
    """What stands below the form. swapped: it goes into a page that is open."""
    return {
        "rows": rows,
        "noes": [readable(one.address) for one in rows if one.verdict in ("no", "reject")],
        "typed": "\n".join(map(readable, asked.addresses)),
        "chosen": asked.fields,
        **_status(asked, rows, swapped=swapped),
    }


def _status(asked: Asked, rows: Sequence[Recipient], *, swapped: bool = True) -> dict[str, object]:
    """How far it is."""
    return {"summary": summary_of(rows), "of": len(asked.addresses), "swapped": swapped}


async def _batches(coming: AsyncGenerator[Recipient]) -> AsyncGenerator[list[Recipient]]:
    """What has come, a few times each second at most."""
    loop = asyncio.get_running_loop()
    batch: list[Recipient] = []
    last = -EVERY
    following: asyncio.Future[Recipient | None] = asyncio.ensure_future(anext(coming, None))
    try:
        while True:
            await asyncio.wait({following}, timeout=max(0.0, last + EVERY - loop.time()) if batch else None)
            if following.done():
                one = following.result()
                if one is None:
                    break
                batch.append(one)
                following = asyncio.ensure_future(anext(coming, None))
            if batch and loop.time() >= last + EVERY:
                yield batch
                batch, last = [], loop.time()
        if batch:
            yield batch
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await coming.aclose()


def _csv(one: Recipient) -> list[str]:
    """A line for each certificate, one at least."""
    if not one.certificates:
        return [row((one.address, one.verdict, "", "", "", "", one.reason))]
    return [
        row((one.address, one.verdict, each.kind, each.fingerprint, each.source, each.origin, one.reason))
        for each in one.certificates
    ]
