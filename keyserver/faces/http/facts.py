"""What a reply depends on, handed from an ordinary handler to whoever may answer the same request from memory."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from keyserver.faces.cache import Ground
from keyserver.model import Name


@dataclass(frozen=True, slots=True)
class Facts(Ground):
    """Every fact behind one reply. `max-age` is what is left until `until`, at most 300."""

    since: int  # Unix seconds: `Age` counts from here
    positive: bool  # a certificate, not a remembered "absent"
    query: Name = ""  # the name that was asked for, so that prefetch hears of it; empty: nobody is told


def offer(request: web.Request, facts: Facts) -> None:
    """Say that the reply to this request may be given again while `facts` hold.

    The transport of an HTTP connection takes the offer; behind any other transport nothing happens."""
    transport = request.transport
    take = transport.get_extra_info("hot_answers") if transport is not None else None
    if take is not None:
        take(facts)
