"""Filters against entries: what they say of one (true, false or undefined)."""

from __future__ import annotations

from collections.abc import Callable, KeysView
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from keyserver.faces.ldap.schema import KNOWN, NEVER, Attribute, Rule, address_form, find, normal, proxy_form
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
from keyserver.wire.ldap_text import prepare

MAX_COMPARISONS = 20_000
"""Values compared for one search: some milliseconds. A hundred entries and an honest filter need a tenth of it."""

PRODUCT = 2048
"""Characters of a value times those of what is looked for in it that are as much as one more comparison."""


class TooCostly(Exception):
    """This filter over these entries takes more comparisons than one search may have."""


class MatchBudget:
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

    def values(self, key: str) -> tuple[bytes, ...]:
        """The attribute's values as they are."""

    def has(self, key: str) -> bool:
        """Is the attribute there?"""

    @property
    def keys(self) -> KeysView[str]:
        """Of all attributes that are there."""

    @property
    def named(self) -> frozenset[tuple[str, str]]:
        """Key and value, as they are compared, of every part of its distinguished name."""


Truth: TypeAlias = bool | None
"""None is undefined (RFC 4511 section 4.5.1.7)."""

Test: TypeAlias = Callable[[Matchable], Truth]


def compile_filter(filter_: Filter, budget: MatchBudget) -> Test:
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
            return _extensible(filter_, budget)
        case Equal(name, value) if name.lower() in ANR:
            return compile_filter(resolve_name(value), budget)
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


def _equal(attribute: Attribute, value: bytes, budget: MatchBudget) -> Test:
    if attribute.rule is Rule.NONE:
        return _undefined
    wanted = _forms(attribute, value)
    if not wanted:
        return _undefined

    # GnuPG asks for a subkey's ID under the name of the primary's
    also = KNOWN["pgpsubkeyid"] if attribute.key == "pgpcertid" else None

    def test(entry: Matchable) -> Truth:
        values = entry.normal(attribute) + (entry.normal(also) if also else ())
        budget.spend(len(values) + 1)
        return not wanted.isdisjoint(values)

    return test


def _forms(attribute: Attribute, value: bytes) -> set[str]:
    """What a value may be meant as; nothing where it cannot be one of this attribute."""
    return {form for one in spellings(attribute, value) if (form := normal(attribute.rule, one)) is not None}


ANR = frozenset({"anr", "1.2.840.113556.1.4.1208"})
"""Active Directory's ambiguous name resolution: whatever begins so."""


def resolve_name(value: bytes) -> Filter:
    """The filter that it stands for (MS-ADTS section 3.1.1.3.1.3.2)."""
    return Or(tuple(Substrings(name, value, (), None) for name in ("mail", "cn", "displayName", "givenName", "sn")))


@dataclass(frozen=True, slots=True)
class MatchingRule:
    """How an extensible match compares (RFC 4517 section 4.2), and attributes of which rules it can compare."""

    usable: frozenset[Rule]
    case: bool = False  # counts


_TEXTS = frozenset({Rule.TEXT, Rule.HEX, Rule.ADDRESS, Rule.PROXY})
_EACH_ITS_OWN = MatchingRule(frozenset(Rule) - {Rule.NONE})
_MATCHING_RULES = {
    "caseignorematch 2.5.13.2 caseignoreia5match 1.3.6.1.4.1.1466.109.114.2": MatchingRule(_TEXTS),
    "caseexactmatch 2.5.13.5 caseexactia5match 1.3.6.1.4.1.1466.109.114.1": MatchingRule(_TEXTS, case=True),
    "objectidentifiermatch 2.5.13.0": MatchingRule(frozenset({Rule.CLASS})),
    "generalizedtimematch 2.5.13.27": MatchingRule(frozenset({Rule.TIME})),
    "distinguishednamematch 2.5.13.1": MatchingRule(frozenset({Rule.CATEGORY})),
    # of bits, of either bit, along a chain (MS-ADTS section 3.1.1.3.4.4): asked of what is in no entry of ours
    "1.2.840.113556.1.4.803 1.2.840.113556.1.4.804 1.2.840.113556.1.4.1941": MatchingRule(frozenset()),
}
_RULES = {name: rule for names, rule in _MATCHING_RULES.items() for name in names.split()}
"""Matching rules by name and OID, in lower case."""


def compared(filter_: Extensible) -> tuple[tuple[Attribute, ...], MatchingRule] | None:
    """Which attributes an extensible match compares, and how; None where it is undefined (RFC 4511 section 4.5.1.7.7):
    a rule or attribute that is not known here, or the one not for the other, or neither of them."""
    rule = _RULES.get(filter_.rule.lower()) if filter_.rule else _EACH_ITS_OWN
    if rule is None or not (filter_.rule or filter_.attribute):
        return None
    if not filter_.attribute:
        every = tuple(a for a in KNOWN.values() if a.rule in rule.usable and a.key not in NEVER)
        return (every, rule) if every else None
    known = find(filter_.attribute)
    if known is None or not (known[0].rule in rule.usable or (not rule.usable and known[0].key in NEVER)):
        return None
    return (known[0],), rule


def _extensible(filter_: Extensible, budget: MatchBudget) -> Test:
    compares = compared(filter_)
    if compares is None:
        return _undefined
    attributes, rule = compares
    by_rule = {a.rule: _forms(a, filter_.value) for a in {a.rule: a for a in attributes}.values()}
    wanted = {a.key: by_rule[a.rule] for a in attributes if by_rule[a.rule]}
    if not wanted:
        return _undefined
    named = {(key, form) for key, forms in wanted.items() for form in forms} if filter_.dn else set()
    exact = _exact(filter_.value) if rule.case else ""

    def test(entry: Matchable) -> Truth:
        for key in entry.keys & wanted.keys():
            values = entry.normal(KNOWN[key])
            budget.spend(1 + len(values))
            if not wanted[key].isdisjoint(values):
                if not rule.case:
                    return True
                budget.spend(10 * len(values))
                if any(_exact(value) == exact for value in entry.values(key)):
                    return True
        budget.spend(1)
        return not named.isdisjoint(entry.named) if named else False

    return test


def _exact(value: bytes) -> str:
    return prepare(value.decode("utf-8", "replace"), case=True).strip(" ")


def _order(attribute: Attribute, value: bytes, least: bool, budget: MatchBudget) -> Test:
    form = normal(attribute.rule, value) if attribute.ordered else None
    if form is None:
        return _undefined

    def test(entry: Matchable) -> Truth:
        values = entry.normal(attribute)
        budget.spend(len(values) + 1)
        return any(one >= form if least else one <= form for one in values)

    return test


def _substrings(attribute: Attribute, filter_: Substrings, budget: MatchBudget) -> Test:
    if not attribute.pieces:
        return _undefined
    try:
        initial = [p.lstrip(" ") or p for p in _pieces(attribute, filter_.initial or b"")]
        final = [p.rstrip(" ") for p in _pieces(attribute, filter_.final or b"")]
        middle = [_pieces(attribute, piece) for piece in filter_.any]
    except UnicodeDecodeError:
        return _undefined
    cost = 1 + len(middle)
    length = sum(len(spelt[0]) for spelt in (initial, final, *middle))

    def test(entry: Matchable) -> Truth:
        values = entry.normal(attribute)
        budget.spend(1 + cost * len(values) + length * sum(map(len, values)) // PRODUCT)
        return any(_has_pieces(value, initial, middle, final) for value in values)

    return test


def _pieces(attribute: Attribute, value: bytes) -> list[str]:
    """What a piece may be meant as. Raises UnicodeDecodeError."""
    return [_piece(attribute, one.decode()) for one in spellings(attribute, value)]


def _piece(attribute: Attribute, text: str) -> str:
    form = None
    if "@" in text and attribute.rule in (Rule.ADDRESS, Rule.PROXY):
        form = address_form(text) or (proxy_form(text) if attribute.rule is Rule.PROXY else None)
    return form or prepare(text)


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


def _escapes(mark: bytes, characters: bytes) -> list[tuple[bytes, bytes]]:
    """(what is written, what is meant); the mark itself comes last, or what it makes would be read once more."""
    written = [(b"%s%02x" % (mark, c), bytes((c,))) for c in characters]
    return written + [(escape[:-1] + escape[-1:].upper(), meant) for escape, meant in written if escape[-1:].isalpha()]


_GNUPG = (b"%", _escapes(b"%", b"*()\\/"))
_THUNDERBIRD = (b"\\", _escapes(b"\\", b"*()") + _escapes(b"\\", b"\\"))
_MISSPELT = {"pgpuserid": _GNUPG, "gpgmailbox": _GNUPG} | dict.fromkeys(
    ("mail", "cn", "sn", "givenname", "displayname"), _THUNDERBIRD
)


def spellings(attribute: Attribute, value: bytes) -> tuple[bytes, ...]:
    """A value as it came and, where a client's wrong escapes are in it, as it was meant.

    GnuPG writes exactly five characters as `%2a` and so on; Thunderbird sends RFC 4515's escapes as they stand.
    """
    mark, escapes = _MISSPELT.get(attribute.key, (b"", []))
    if not mark or mark not in value:
        return (value,)
    meant = value
    for escape, character in escapes:
        meant = meant.replace(escape, character)
    return (value,) if meant == value else (value, meant)
