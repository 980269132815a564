"""Filters against entries: what they say of one (three-valued), and which queries cover all that they can match.

Nobody scans: a filter is evaluated over the entries that its exact terms find. `cover` computes those terms as an
index would be used; a filter that has none asks for a listing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from keyserver.faces.ldap_schema import KNOWN, NEVER, Attribute, Rule, find, fold, normal
from keyserver.model import Kind
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText, Query, parse_address
from keyserver.wire.ldap_filter import (
    And,
    Approx,
    AtLeast,
    AtMost,
    Equal,
    Extensible,
    Filter,
    Not,
    Or,
    Present,
    Substrings,
)

MAX_COMPARISONS = 20_000
"""Values compared for one search: some milliseconds. A hundred entries and an honest filter need a tenth of it."""


class TooCostly(Exception):
    """This filter over these entries takes more comparisons than one search may have."""


class Budget:
    """Comparisons that one search has left."""

    def __init__(self) -> None:
        self.left = MAX_COMPARISONS
        self.tests = 0
        """Parts of the filter: what it takes to hold it."""

    def renew(self) -> None:
        """Another search with the same filter begins."""
        self.left = MAX_COMPARISONS

    def spend(self, comparisons: int) -> None:
        """Raises TooCostly when nothing is left."""
        self.left -= comparisons
        if self.left < 0:
            raise TooCostly("the filter takes too many comparisons")


class Matchable(Protocol):
    """What a filter looks at."""

    def normal(self, attribute: Attribute) -> tuple[str, ...]:
        """The attribute's values as they are compared; () when it has none."""

    def has(self, key: str) -> bool:
        """Is the attribute there?"""


Truth: TypeAlias = bool | None
"""None is undefined (RFC 4511 section 4.5.1.7)."""

Test: TypeAlias = Callable[[Matchable], Truth]


def compile_filter(filter_: Filter, budget: Budget) -> Test:
    """What `filter_` says of an entry. The test raises TooCostly."""
    budget.tests += 1
    match filter_:
        case And(parts):
            return _junction([compile_filter(part, budget) for part in parts], False)
        case Or(parts):
            return _junction([compile_filter(part, budget) for part in parts], True)
        case Not(part):
            inner = compile_filter(part, budget)
            return lambda entry: None if (said := inner(entry)) is None else not said
        case Extensible():
            return _undefined
    known = find(filter_.attribute)
    if known is None:
        return _undefined
    attribute = known[0]
    match filter_:
        case Present():
            return lambda entry: entry.has(attribute.key)
        case Substrings():
            return _substrings(attribute, filter_, budget)
        case AtLeast(_, value) | AtMost(_, value):
            return _order(attribute, value, isinstance(filter_, AtLeast), budget)
        case Equal(_, value) | Approx(_, value):
            return _equal(attribute, value, budget)


def _undefined(_: Matchable) -> Truth:
    return None


def _junction(tests: list[Test], decisive: bool) -> Test:
    """And (decided by one false) or or (decided by one true)."""

    def test(entry: Matchable) -> Truth:
        said: Truth = not decisive
        for part in tests:
            one = part(entry)
            if one is decisive:
                return decisive
            if one is None:
                said = None
        return said

    return test


def _equal(attribute: Attribute, value: bytes, budget: Budget) -> Test:
    if attribute.rule is Rule.NONE:
        return _undefined
    wanted = {form for one in spellings(attribute, value) if (form := normal(attribute.rule, one)) is not None}
    if not wanted:
        return _undefined

    # GnuPG asks for a subkey's ID under the name of the primary's
    also = KNOWN["pgpsubkeyid"] if attribute.key == "pgpcertid" else None

    def test(entry: Matchable) -> Truth:
        values = entry.normal(attribute) + (entry.normal(also) if also else ())
        budget.spend(len(values) + 1)
        return not wanted.isdisjoint(values)

    return test


def _order(attribute: Attribute, value: bytes, least: bool, budget: Budget) -> Test:
    form = normal(attribute.rule, value) if attribute.ordered else None
    if form is None:
        return _undefined

    def test(entry: Matchable) -> Truth:
        values = entry.normal(attribute)
        budget.spend(len(values) + 1)
        return any(one >= form if least else one <= form for one in values)

    return test


def _substrings(attribute: Attribute, filter_: Substrings, budget: Budget) -> Test:
    if not attribute.pieces:
        return _undefined
    ends = (filter_.initial or b"", filter_.final or b"")
    try:
        initial = [fold(one.decode()).lstrip() for one in spellings(attribute, ends[0])]
        final = [fold(one.decode()).rstrip() for one in spellings(attribute, ends[1])]
        middle = [[_piece(attribute, one.decode()) for one in spellings(attribute, p)] for p in filter_.any]
    except UnicodeDecodeError:
        return _undefined
    cost = 1 + len(middle)

    def test(entry: Matchable) -> Truth:
        values = entry.normal(attribute)
        budget.spend(1 + cost * len(values))
        return any(_has_pieces(value, initial, middle, final) for value in values)

    return test


def _piece(attribute: Attribute, text: str) -> str:
    if attribute.rule is Rule.ADDRESS and (address := parse_address(text.strip())):
        return address
    return fold(text)


def _has_pieces(value: str, initial: list[str], middle: list[list[str]], final: list[str]) -> bool:
    """Each piece may be spelt in several ways; the first that fits is taken."""
    at = next((len(i) for i in initial if value.startswith(i)), -1)
    end = next((len(value) - len(f) for f in final if value.endswith(f)), -1)
    if at < 0 or end < at:
        return False
    for piece in middle:
        found = next((i + len(p) for p in piece if (i := value.find(p, at, end)) >= 0), -1)
        if found < 0:
            return False
        at = found
    return True


_GNUPG = re.compile(rb"%(2a|28|29|5c|2f)", re.IGNORECASE)
_THUNDERBIRD = re.compile(rb"\\(2a|28|29|5c)", re.IGNORECASE)
_MISSPELT = {"pgpuserid": _GNUPG, "gpgmailbox": _GNUPG} | dict.fromkeys(
    ("mail", "cn", "sn", "givenname", "displayname"), _THUNDERBIRD
)


def spellings(attribute: Attribute, value: bytes) -> tuple[bytes, ...]:
    """A value as it came and, where a client's wrong escapes are in it, as it was meant.

    GnuPG writes exactly five characters as `%2a` and so on; Thunderbird sends RFC 4515's escapes as they stand.
    """
    wrong = _MISSPELT.get(attribute.key)
    meant = wrong.sub(lambda m: bytes((int(m[1], 16),)), value) if wrong else value
    return (value,) if meant == value else (value, meant)


Terms: TypeAlias = frozenset[Query] | None
"""Queries one of which every match answers; None: nothing bounds it."""

_NOTHING: frozenset[Query] = frozenset()
_HEX = re.compile(r"(?:0x)?([0-9a-f]+)\Z", re.IGNORECASE)
_BRACKETED = re.compile(r"<([^<>]*)>")
_NAMES = frozenset({"cn", "sn", "givenname", "displayname"})
_WORDS = {"pgpuserid": Kind.OPENPGP, "gpgmailbox": Kind.OPENPGP, "mail": Kind.X509} | dict.fromkeys(_NAMES, Kind.X509)


def cover(filter_: Filter) -> Terms:
    """The exact terms of a filter: addresses, fingerprints, key IDs. A substring that is a whole address counts."""
    return _cover(filter_, True, _exact)


def cover_text(filter_: Filter) -> Terms:
    """As `cover`, but parts of user IDs and names count too, as free text."""
    return _cover(filter_, True, _exact_or_free)


_Leaf: TypeAlias = Callable[[Attribute, list[str], bool], Terms]


def _cover(filter_: Filter, wanted: bool, leaf: _Leaf) -> Terms:
    """Covers the entries of which `filter_` says `wanted`; by De Morgan where that is false."""
    match filter_:
        case And(parts) | Or(parts):
            terms = [_cover(part, wanted, leaf) for part in parts]
            return _fewest(terms) if isinstance(filter_, And) is wanted else _union(terms)
        case Not(part):
            return _cover(part, not wanted, leaf)
        case Extensible():
            return _NOTHING
    known = find(filter_.attribute)
    if known is None:
        return _NOTHING  # undefined is neither true nor false
    attribute = known[0]
    if not wanted:
        return None
    if attribute.key in NEVER:
        return _NOTHING
    match filter_:
        case Equal(_, value) | Approx(_, value):
            return leaf(attribute, _texts(attribute, (value,)), True)
        case Substrings(_, initial, middle, final):
            return leaf(attribute, _texts(attribute, (initial or b"", *middle, final or b"")), False)
    return None


def _union(terms: Iterable[Terms]) -> Terms:
    queries: set[Query] = set()
    for one in terms:
        if one is None:
            return None
        queries |= one
    return frozenset(queries)


def _fewest(terms: Iterable[Terms]) -> Terms:
    return min((one for one in terms if one is not None), key=len, default=None)


def _texts(attribute: Attribute, values: tuple[bytes, ...]) -> list[str]:
    return [text for value in values for one in spellings(attribute, value) if (text := one.decode("utf-8", "replace"))]


def _exact(attribute: Attribute, texts: list[str], whole: bool) -> Terms:
    """The exact term in an assertion; nothing where no entry of ours can have such a value."""
    key = attribute.key
    if attribute.rule is Rule.NONE:
        return _NOTHING
    if attribute.rule is Rule.HEX:
        return _identifier(key, texts[0].strip() if texts else "") if whole else None
    kind = _WORDS.get(key)
    if kind is None:
        return None
    addresses = {address for text in texts if (address := _address_in(text))}
    if addresses:
        parts = (address.rsplit("@", 1) for address in addresses)
        return frozenset(ByAddress(local, domain, kind) for local, domain in parts)
    return _NOTHING if whole and attribute.rule is Rule.ADDRESS else None


def _identifier(key: str, text: str) -> Terms:
    match_ = _HEX.match(text)
    digits = match_[1].upper() if match_ else ""
    if key in ("gpgfingerprint", "gpgsubfingerprint") and len(digits) in (40, 64):
        return frozenset({ByFingerprint(digits)})
    if key in ("pgpcertid", "pgpsubkeyid") and len(digits) == 16:
        return frozenset({ByKeyId(digits)})
    if key == "uid" and len(digits) == 64:
        return frozenset({ByFingerprint(digits, Kind.X509)})
    return None if key == "pgpkeyid" and len(digits) == 8 else _NOTHING


def _address_in(text: str) -> str | None:
    """The address that a text is, or that stands in its only angle brackets."""
    text = text.strip()
    bracketed = _BRACKETED.findall(text)
    return parse_address(bracketed[0] if len(bracketed) == 1 else text.strip("<>"))


def _exact_or_free(attribute: Attribute, texts: list[str], whole: bool) -> Terms:
    exact = _exact(attribute, texts, whole)
    return _free(attribute, texts) if exact is None else exact


def _free(attribute: Attribute, texts: list[str]) -> Terms:
    kind = _WORDS.get(attribute.key)
    longest = max((fold(text).strip(" <>") for text in texts), key=len, default="")
    return frozenset({ByText(longest, kind)}) if kind and longest else None
