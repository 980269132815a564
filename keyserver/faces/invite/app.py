"""The owner's word: confirm an invitation, or take the consent back. Nothing else is on this listener.

Programs follow links in mail before people do: GET and HEAD read, only the button's POST changes anything. The secret
in a path appears in no log and no error.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler

from keyserver.faces.http.pages import HtmlPage
from keyserver.faces.invite.pages import CHANGED, TROUBLE, UNKNOWN, OwnersPages
from keyserver.hygiene import Hygiene
from keyserver.invite import tokens
from keyserver.invite.tokens import CONFIRM, WITHDRAW, Token
from keyserver.model import Kind
from keyserver.resolver.select import merged_all
from keyserver.store.base import Store, StoreError
from keyserver.store.invitations import Invitation, Refused, Stage
from keyserver.store.inviting import irrevocable, named, unconfirmable
from keyserver.usable import unusable

MAX_BODY = 1024  # octets of a request's; the button sends none

_LOG = logging.getLogger("keyserver.invite")


class Deed(StrEnum):
    """What an owner has done, as the audit has it."""

    CONFIRM = "consent"
    WITHDRAW = "withdraw consent"


Note = Callable[[Deed, Invitation, web.Request], Awaitable[None]]
"""Told of each after it is done; it raises nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Owners:
    """What the pages stand on. clock: Unix seconds; sender: where administrators are reached, or nothing."""

    store: Store
    hygiene: Mapping[Kind, Hygiene]
    clock: Callable[[], int]
    sender: Callable[[], str]
    note: Note


def make_pages(owners: Owners) -> web.Application:
    """The application."""
    handlers = _Handlers(owners, OwnersPages())
    app = web.Application(middlewares=[handlers.manners], client_max_size=MAX_BODY)
    app.router.add_get("/", handlers.start)
    for path, show, act in (
        (f"/{CONFIRM}/{{token}}", handlers.show_confirm, handlers.confirm),
        (f"/{WITHDRAW}/{{token}}", handlers.show_withdraw, handlers.withdraw),
    ):
        app.router.add_get(path, show)
        app.router.add_post(path, act)
    return app


class _Handlers:
    def __init__(self, owners: Owners, pages: OwnersPages) -> None:
        self._owners = owners
        self._pages = pages

    @web.middleware
    async def manners(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """What holds for every reply, errors too."""
        try:
            response = await handler(request)
        except web.HTTPMethodNotAllowed as refusal:
            response = self._page(self._pages.text("Not possible", "This address is for browsers."), 405)
            response.headers["Allow"] = ", ".join(sorted(refusal.allowed_methods))
        except web.HTTPException:
            response = self._unknown()
        except StoreError as trouble:
            _LOG.error("an owner's page could not be answered: %s", trouble)
            response = self._page(self._pages.text("Please try again later", TROUBLE), 503)
            response.headers["Retry-After"] = "60"
        except ConnectionError:
            raise  # the client is gone: nobody is there to be told
        except Exception:
            _LOG.exception("unhandled error at an owner's page")
            response = self._page(self._pages.text("Please try again later", TROUBLE), 500)
        if request.version < HttpVersion11:
            response.force_close()
        return response

    async def start(self, request: web.Request) -> web.StreamResponse:
        """`GET /`."""
        return self._page(self._pages.start(self._owners.sender()))

    async def show_confirm(self, request: web.Request) -> web.StreamResponse:
        """`GET /confirm/TOKEN`."""
        token = _token(request)
        invitation = await self._owners.store.invitations.by_confirm(token.digest) if token else None
        if token is None or invitation is None:
            return self._unknown()
        if invitation.stage is Stage.CONFIRMED:
            return self._page(self._pages.confirmed(invitation, _withdrawal(token), before=True))
        if refusal := await self._closed(invitation):
            return refusal
        return self._page(self._pages.confirm(invitation))

    async def confirm(self, request: web.Request) -> web.StreamResponse:
        """`POST /confirm/TOKEN`."""
        token = _token(request)
        found = await self._owners.store.invitations.by_confirm(token.digest) if token else None
        if token is None or found is None:
            return self._unknown()
        if found.stage is not Stage.CONFIRMED and (refusal := await self._closed(found)):
            return refusal
        done = await self._owners.store.invitations.confirm(token.digest, self._owners.clock())
        if done is Refused.USED:
            return self._page(self._pages.confirmed(found, _withdrawal(token), before=True), 410)
        if isinstance(done, Refused):
            return self._refused(done)
        await self._owners.note(Deed.CONFIRM, done, request)
        return self._page(self._pages.confirmed(done, _withdrawal(token), before=False))

    async def show_withdraw(self, request: web.Request) -> web.StreamResponse:
        """`GET /withdraw/TOKEN`."""
        token = _token(request)
        invitation = await self._owners.store.invitations.by_withdraw(token.digest) if token else None
        if invitation is None:
            return self._unknown()
        if why := irrevocable(invitation):
            return self._refused(why)
        return self._page(self._pages.withdraw(invitation))

    async def withdraw(self, request: web.Request) -> web.StreamResponse:
        """`POST /withdraw/TOKEN`."""
        token = _token(request)
        if token is None:
            return self._unknown()
        done = await self._owners.store.invitations.withdraw(token.digest, self._owners.clock())
        if isinstance(done, Refused):
            return self._refused(done)
        await self._owners.note(Deed.WITHDRAW, done, request)
        return self._page(self._pages.withdrawn())

    async def _closed(self, invitation: Invitation) -> web.Response | None:
        """Why its link does nothing any more; None where it does.

        All that is known of the certificate, revocations too, must show the address now, and that it can encrypt."""
        now, store, fingerprint = self._owners.clock(), self._owners.store, invitation.fingerprint
        if why := unconfirmable(invitation, now):
            return self._refused(why)
        if fingerprint in await store.blocked():
            return self._refused(Refused.BLOCKED)
        snapshot = await store.certificate(fingerprint)
        about = (invitation.source, invitation.origin)
        merged = merged_all(snapshot, fingerprint, self._owners.hygiene, now)
        if merged is None or not any((entry.source, entry.origin) == about for entry in snapshot.entries):
            return self._refused(Refused.GONE)
        if named(invitation) not in merged.proof.weak or unusable(merged.proof):
            return self._page(self._pages.text("Nothing to do here", CHANGED), 410)
        return None

    def _unknown(self) -> web.Response:
        return self._page(self._pages.text("Nothing found", UNKNOWN), 404)

    def _refused(self, why: Refused) -> web.Response:
        if why is Refused.UNKNOWN:
            return self._unknown()
        return self._page(self._pages.refused(why), 410)

    def _page(self, page: HtmlPage, status: int = 200) -> web.Response:
        headers = {
            "Content-Security-Policy": page.policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
            "X-Robots-Tag": "noindex",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Server": "keyserver",
        }
        return web.Response(status=status, text=page.html, content_type="text/html", headers=headers)


def _token(request: web.Request) -> Token | None:
    """The secret in the path; None for anything of another shape, which nobody asks the store about."""
    return tokens.read(request.match_info["token"])


def _withdrawal(confirm: Token) -> str:
    return f"/{WITHDRAW}/{confirm.withdrawal}"
