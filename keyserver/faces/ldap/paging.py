"""Paged results (RFC 2696). A cookie is good for the same search on its connection; the search is done again, which
costs less than holding its entries for a client that may not come back."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass

from keyserver.faces.ldap.tree import SearchReply
from keyserver.model import Malformed
from keyserver.wire import ldap as wire
from keyserver.wire.ldap import Code, Control, SearchRequest

PAGED_SEARCHES = 8  # for which a connection's cookies are remembered
COOKIE = 16  # octets


@dataclass(frozen=True, slots=True)
class _PagedSearch:
    """Where a paged search goes on."""

    search: SearchRequest
    offset: int


class Pages:
    """The paged searches of one connection."""

    def __init__(self) -> None:
        self._searches: dict[bytes, _PagedSearch] = {}  # by their cookies

    def __len__(self) -> int:
        return len(self._searches)

    def cut(self, control: Control, search: SearchRequest, reply: SearchReply) -> tuple[SearchReply, Control]:
        """The page of a reply that a control asks for, and the control that goes with it."""
        try:
            size, cookie = wire.read_page(control)
        except Malformed as problem:
            return SearchReply((), Code.PROTOCOL_ERROR, f"paged results: {problem}"), wire.page_control(0, b"")
        offset = 0
        if cookie:
            known = (c for c in list(self._searches) if hmac.compare_digest(c, cookie))
            page = next((self._searches.pop(c) for c in known), None)
            if page is None or page.search != search:
                text = "paged results: the cookie does not belong to this search"
                return SearchReply((), Code.UNWILLING, text), wire.page_control(0, b"")
            offset = page.offset
        total, left = len(reply.entries), reply.entries[offset:]
        if size == 0 or len(left) <= size:
            last = reply if size or not cookie else SearchReply((), Code.SUCCESS)
            return SearchReply(left if size or not cookie else (), last.code, last.text), wire.page_control(total, b"")
        fresh = secrets.token_bytes(COOKIE)
        self._searches[fresh] = _PagedSearch(search, offset + size)
        while len(self._searches) > PAGED_SEARCHES:
            del self._searches[next(iter(self._searches))]
        return SearchReply(left[:size], Code.SUCCESS), wire.page_control(total, fresh)
