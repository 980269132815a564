"""A listing's filter and order as somebody types them: parameters of a URL, options of a command. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import TypeVar

from keyserver.admin.problems import Unusable
from keyserver.model import Kind, Selection, Source
from keyserver.policy import MAILFLOW_TTL, Terms
from keyserver.query import parse_domain
from keyserver.store.listing import Filter, Lifetimes, Sort, Status
from keyserver.store.listing import Listing as Wanted

MOST_TEXT = 512  # characters of a text that is looked for

E = TypeVar("E", bound=StrEnum)

_NAMED = ("source", "upstream", "domain", "q", "kind")
_LAST = 1 << 40  # Unix seconds; no clock of ours comes so far

FILTERS = (
    *_NAMED,
    "status",
    *(f"not_{name}" for name in (*_NAMED, "status")),
    "held",
    "approved",
    "from",
    "to",
    "expires_after",
    "expires_before",
)
"""The parameters of a filter. Everything that is given must hold; a name behind `not_` must not."""

SORTS = tuple(sort for sort in Sort if sort is not Sort.FINGERPRINT)


def filter_of(given: Mapping[str, str]) -> Filter:
    """What `FILTERS` name. Raises Unusable.

    `from` <= cached < `to`, `expires_after` <= expires < `expires_before`: Unix seconds or a date and time (UTC where
    it says nothing else)."""
    return Filter(
        wanted=selection(*(given.get(name) for name in _NAMED)),
        unwanted=selection(*(given.get(f"not_{name}") for name in _NAMED)),
        status=_one_of(Status, given, "status"),
        not_status=_one_of(Status, given, "not_status"),
        held=_switch(given, "held"),
        approved=_switch(given, "approved"),
        cached_from=instant(given, "from"),
        cached_before=instant(given, "to"),
        expires_from=instant(given, "expires_after"),
        expires_before=instant(given, "expires_before"),
    )


def selection(
    source: str | None = None,
    upstream: str | None = None,
    domain: str | None = None,
    text: str | None = None,
    kind: str | None = None,
) -> Selection:
    """Which entries are meant, from what somebody typed. Raises Unusable. An upstream alone means its own entries."""
    if source is not None and source not in list(Source):
        raise Unusable(f"source is {source!r}; accepted are {', '.join(Source)}")
    if kind is not None and kind not in list(Kind):
        raise Unusable(f"kind is {kind!r}; accepted are {', '.join(Kind)}")
    if domain is not None:
        host = parse_domain(domain)
        if host is None:
            raise Unusable(f"domain is {domain!r}; accepted is a domain name such as example.org")
        domain = host
    text = text.strip() if text else None
    if text and len(text) > MOST_TEXT:
        raise Unusable(f"q has {len(text)} characters; {MOST_TEXT} are accepted")
    return Selection(
        Source(source) if source else None, upstream or None, domain, text or None, Kind(kind) if kind else None
    )


def wanted_of(
    what: Filter, now: int, terms: Terms, sort: Sort = Sort.FINGERPRINT, *, descending: bool = False
) -> Wanted:
    """What is to be listed, as of now."""
    own = {name: terms.ttl_of(name) for name in terms.upstreams}
    return Wanted(what, now, Lifetimes(terms.ttl, MAILFLOW_TTL, own, terms.serve_stale), sort, descending)


def order_of(given: Mapping[str, str]) -> tuple[Sort, bool]:
    """`sort` and `order`: by what, and whether the greatest comes first. Raises Unusable."""
    sort = given.get("sort", str(Sort.CACHED))
    if sort not in SORTS:
        raise Unusable(f"sort is {sort!r}; accepted are {', '.join(SORTS)}")
    newest_first = "desc" if sort == Sort.CACHED else "asc"
    order = given.get("order", newest_first)
    if order not in ("asc", "desc"):
        raise Unusable(f"order is {order!r}; accepted are asc, desc")
    return Sort(sort), order == "desc"


def _one_of(words: type[E], given: Mapping[str, str], name: str) -> E | None:
    value = given.get(name)
    if value is None:
        return None
    if value not in list(words):
        raise Unusable(f"{name} is {value!r}; accepted are {', '.join(words)}")
    return words(value)


def _switch(given: Mapping[str, str], name: str) -> bool | None:
    value = given.get(name)
    if value not in (None, "0", "1"):
        raise Unusable(f"{name} is {value!r}; 0 and 1 are accepted")
    return None if value is None else value == "1"


def instant(given: Mapping[str, str], name: str, zone: tzinfo | None = UTC) -> int | None:
    """A parameter that is a point in time, in Unix seconds. Raises Unusable. zone: of a time that says nothing of its
    own; None: this machine's."""
    value = given.get(name)
    if value is None:
        return None
    try:
        if value.isascii() and value.isdigit():
            instant = int(value[:20])
        else:
            read = datetime.fromisoformat(value)
            instant = int((read if read.tzinfo else read.replace(tzinfo=zone)).timestamp())
    except (ValueError, OverflowError):
        instant = -1
    if not 0 <= instant < _LAST:
        raise Unusable(f"{name} is {value!r}; accepted are Unix seconds or a date and time such as 2026-11-28T08:00Z")
    return instant
