"""A list's filter, order and place as they stand in its URL, and the links that change them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from keyserver.admin.filters import FILTERS
from keyserver.admin.pages.forms import address
from keyserver.store.listing import Sort

PLACES = ("sort", "order")
PAGING = ("cursor", "back")
PATH = "/cache"
_MOST_BACK = 3000  # characters of the cursors of the pages before; the oldest fall away, and the first page stays near

_LABELS: Mapping[str, str] = {
    "source": "source",
    "upstream": "upstream",
    "domain": "domain",
    "q": "text",
    "kind": "kind",
    "status": "status",
    "from": "cached since",
    "to": "cached before",
    "expires_after": "expires after",
    "expires_before": "expires before",
}
_SWITCHES: Mapping[tuple[str, str], str] = {
    ("held", "1"): "held",
    ("held", "0"): "not held",
    ("approved", "1"): "approved",
    ("approved", "0"): "not approved",
}
_KINDS = {"openpgp": "OpenPGP", "x509": "X.509"}


@dataclass(frozen=True, slots=True)
class Chip:
    """One condition that holds: its words, the list without it, and the list with its opposite."""

    text: str
    without: str
    opposite: str


@dataclass(frozen=True, slots=True)
class Column:
    """One column that the list may go by."""

    name: str
    link: str
    sorted: str  # ascending, descending, or none (as aria-sort has it)


def kept(given: Mapping[str, str]) -> dict[str, str]:
    """The filter and the order, without place and notices."""
    return {name: given[name] for name in (*FILTERS, *PLACES) if name in given}


def link(given: Mapping[str, str], path: str = PATH, **changes: str | None) -> str:
    """The list's address with some parameters changed; None takes one away."""
    values = {**given, **changes}
    return address(path, {name: value for name, value in values.items() if value is not None})


def chips(given: Mapping[str, str]) -> Sequence[Chip]:
    """One for each condition."""
    own = kept(given)
    return [
        Chip(_words(name, own[name]), link(_without(own, name)), link(_opposed(own, name)))
        for name in FILTERS
        if name in own
    ]


def columns(given: Mapping[str, str], sort: Sort, *, descending: bool) -> Mapping[str, Column]:
    """By the word that sorts by each; a second click turns the order round."""
    found: dict[str, Column] = {}
    for one, name in _COLUMNS:
        now = one is sort
        first = "desc" if one is Sort.CACHED else "asc"
        other = ("asc" if descending else "desc") if now else first
        state = ("descending" if descending else "ascending") if now else "none"
        found[one.value] = Column(name, link(kept(given), sort=one.value, order=other), state)
    return found


_COLUMNS = (
    (Sort.ADDRESS, "Identity"),
    (Sort.SOURCE, "Source"),
    (Sort.CACHED, "Cached"),
    (Sort.EXPIRES, "Expires in"),
)


def older(given: Mapping[str, str], following: str | None) -> str:
    """The next page; empty at the end. It remembers the cursors of the pages before it."""
    if following is None:
        return ""
    before = [*_before(given), given.get("cursor", "")]
    while len(".".join(before)) > _MOST_BACK:
        del before[0]
    return link(kept(given), cursor=following, back=".".join(before) or None)


def newer(given: Mapping[str, str]) -> str:
    """The page before; empty on the first."""
    if "cursor" not in given:
        return ""
    before = _before(given)
    cursor = before.pop() if before else ""
    return link(kept(given), cursor=cursor or None, back=".".join(before) or None)


def _before(given: Mapping[str, str]) -> list[str]:
    """Cursors of the pages before, the oldest first; the first page has none."""
    back = given.get("back", "")
    return back.split(".") if back else []


def _words(name: str, value: str) -> str:
    if (name, value) in _SWITCHES:
        return _SWITCHES[name, value]
    denied, plain = name.startswith("not_"), name.removeprefix("not_")
    words = f"{_LABELS.get(plain, plain)}: {_KINDS.get(value, value)}"
    return f"not {words}" if denied else words


def _without(own: Mapping[str, str], name: str) -> dict[str, str]:
    return {other: value for other, value in own.items() if other != name}


def _opposed(own: Mapping[str, str], name: str) -> dict[str, str]:
    """The same with one condition turned round: a name behind `not_`, a switch the other way."""
    rest, value = _without(own, name), own[name]
    if name in ("held", "approved"):
        return {**rest, name: "0" if value == "1" else "1"}
    if name in _PAIRS:
        return {**rest, _PAIRS[name]: value}
    opposite = name.removeprefix("not_") if name.startswith("not_") else f"not_{name}"
    return {**rest, opposite: value}


_PAIRS = {"from": "to", "to": "from", "expires_after": "expires_before", "expires_before": "expires_after"}
