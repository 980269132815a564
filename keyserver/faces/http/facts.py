"""What a reply depends on, handed from an ordinary handler to whoever may answer the same request from memory."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from keyserver.model import Name


@dataclass(frozen=True, slots=True)
class Facts:
    """Every fact behind one reply."""

    names: frozenset[Name]  # a change of any of them takes the reply away
    since: int  # Unix seconds: `Age` counts from here
    until: int  # the first instant at which anything turns; `max-age` is what is left, at most 300
    number: int  # `Changes.number` before the store was read
    positive: bool  # a certificate, not a remembered "absent"
    query: Name = ""  # the name that was asked for, so that prefetch hears of it; empty: nobody is told


def offer(request: web.Request, facts: Facts) -> None:
    """Say that the reply to this request may be given again while `facts` hold.

    The front door's transport takes the offer; behind any other transport nothing happens."""
    transport = request.transport
    take = transport.get_extra_info("hot_answers") if transport is not None else None
    if take is not None:
        take(facts)
