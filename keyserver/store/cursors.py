"""A listing's place on its way through hands that we do not trust. Pure.

A cursor is for one listing: its filter and order, the instant at which it began, and the times to live that were
configured then. Whoever forges one learns nothing that a filter would not have told.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from keyserver.store.listing import KEYS, NEVER, Listing, Place

MOST = 4096  # characters of a cursor
_VERSION = 1
_MOST = 2**62  # no number of ours is larger


class BadCursor(ValueError):
    """It is none that this listing gave; the text says why."""


class Outdated(BadCursor):
    """The times to live were changed since; the listing starts anew."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a listing goes on."""

    now: int  # the instant at which it began
    place: Place
    searched: int  # entries so far


def written(listing: Listing, place: Place, searched: int) -> str:
    """As a parameter of a URL."""
    values = [_VERSION, _asked(listing), _terms(listing), listing.now, searched, *place]
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read(cursor: str, listing: Listing) -> Progress:
    """What `written` wrote for this very listing, at whatever instant. Raises BadCursor, Outdated."""
    values, keys = _values(cursor), KEYS[listing.sort]
    if len(values) != 5 + len(keys) or values[:2] != [_VERSION, _asked(listing)]:
        raise BadCursor("cursor is of another listing: its filter and order must be those of the first page")
    if values[2] != _terms(listing):
        raise Outdated("the times to live were changed since: the listing starts anew, without a cursor")
    now, searched, *place = values[3:]
    if not all(_is(value, type_) for value, type_ in zip((now, searched, *place), (int, int, *keys), strict=True)):
        raise BadCursor(_NONE)
    if not (0 <= now <= NEVER and 0 <= searched <= NEVER):
        raise BadCursor(_NONE)
    return Progress(now, tuple(place), searched)


_NONE = "cursor is none that a listing gave"


def _values(cursor: str) -> list[Any]:
    if len(cursor) > MOST or not cursor.isascii():
        raise BadCursor(_NONE)
    try:
        octets = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        values = json.loads(octets.decode())
    except (ValueError, RecursionError):
        raise BadCursor(_NONE) from None
    if not isinstance(values, list):
        raise BadCursor(_NONE)
    return values


def _is(value: object, type_: type) -> bool:
    """Is it of that very type, and nothing that a database would not take?"""
    if type(value) is not type_:
        return False
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return isinstance(value, int) and abs(value) <= _MOST


def _asked(listing: Listing) -> str:
    return _digest([asdict(listing.what), listing.sort, listing.descending])


def _terms(listing: Listing) -> str:
    return _digest(asdict(listing.lifetimes))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
