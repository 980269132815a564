"""Which queries cover all that a filter can match.

Nobody scans: a filter is evaluated over the entries that its exact terms find. `cover` computes those terms as an
index would be used; a filter that has none asks for a listing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeAlias

from keyserver.faces.ldap.match import ANR, compared, resolve_name, spellings
from keyserver.faces.ldap.schema import ADDRESSES, NEVER, REMEMBERED, Attribute, Rule, address_form, find
from keyserver.model import Kind
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText, Query, parse_address
from keyserver.wire.ldap_filter import And, Approx, Equal, Extensible, Filter, Not, Or, Substrings
from keyserver.wire.ldap_text import prepare

Terms: TypeAlias = frozenset[Query] | None
"""Queries one of which every match answers; None: nothing bounds it."""

_NOTHING: frozenset[Query] = frozenset()
_HEX = re.compile(r"(?:0x)?([0-9a-f]+)\Z", re.IGNORECASE)
_IDS = ("gpgfingerprint", "pgpcertid", "uid")
_PREFIX = re.compile(r"\A(?:smtp)?:", re.IGNORECASE)
_BRACKETED = re.compile(r"<([^<>]*)>")
_NAMES = frozenset({"cn", "sn", "givenname", "displayname"})
_WORDS = dict.fromkeys(ADDRESSES | _NAMES, Kind.X509) | {"pgpuserid": Kind.OPENPGP, "gpgmailbox": Kind.OPENPGP}


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
            return _cover_extensible(filter_, wanted, leaf)
        case Equal(name, value) if name.lower() in ANR:
            return _cover(resolve_name(value), wanted, leaf)
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


def _cover_extensible(filter_: Extensible, wanted: bool, leaf: _Leaf) -> Terms:
    """By its value alone where it names no attribute: only what one of ours can be is looked for."""
    compares = compared(filter_)
    if compares is None:
        return _NOTHING
    attributes, _ = compares
    if not wanted:
        return None
    if not filter_.attribute:
        texts = _texts(None, (filter_.value,))
        kinds = [_addresses(texts, kind) for kind in Kind] + [_identifier(key, texts[0]) for key in _IDS if texts]
        return frozenset().union(*(terms for terms in kinds if terms)) or None
    texts = _texts(attributes[0], (filter_.value,))
    terms = _NOTHING if attributes[0].key in NEVER else leaf(attributes[0], texts, True)
    return None if filter_.dn and not terms else terms  # the names of what holds the entries count, too


def _union(terms: Iterable[Terms]) -> Terms:
    queries: set[Query] = set()
    for one in terms:
        if one is None:
            return None
        queries |= one
    return frozenset(queries)


def _fewest(terms: Iterable[Terms]) -> Terms:
    return min((one for one in terms if one is not None), key=len, default=None)


def _texts(attribute: Attribute | None, values: tuple[bytes, ...]) -> list[str]:
    spelt = (one for value in values for one in (spellings(attribute, value) if attribute else (value,)))
    return [text for one in spelt if (text := one.decode("utf-8", "replace"))]


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
    return _addresses(texts, kind) or (_NOTHING if whole and key in ADDRESSES else None)


def _addresses(texts: list[str], kind: Kind) -> frozenset[Query]:
    """The addresses in texts, as they are and as they are compared here."""
    parts = (address.rsplit("@", 1) for text in texts for address in _addresses_in(text))
    return frozenset(ByAddress(local, domain, kind) for local, domain in parts)


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


@lru_cache(REMEMBERED)
def _addresses_in(text: str) -> frozenset[str]:
    """The address that a text is, behind `smtp:` or not, or that stands in its only angle brackets."""
    if "@" not in text and text.isascii():
        return frozenset()
    bracketed = _BRACKETED.findall(text)
    bare = bracketed[0] if len(bracketed) == 1 else _PREFIX.sub("", text.strip()).strip("<>")
    forms = (address_form(bare),) if bare.isascii() else (address_form(bare), parse_address(bare))
    return frozenset(address for address in forms if address)


def _exact_or_free(attribute: Attribute, texts: list[str], whole: bool) -> Terms:
    exact = _exact(attribute, texts, whole)
    return _free(attribute, texts) if exact is None else exact


def _free(attribute: Attribute, texts: list[str]) -> Terms:
    kind = _WORDS.get(attribute.key)
    longest = max((_PREFIX.sub("", prepare(text).strip(" <>")) for text in texts), key=len, default="")
    return frozenset({ByText(longest, kind)}) if kind and longest else None
