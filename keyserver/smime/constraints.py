"""Name constraints of a CA over every address in a certificate (RFC 5280 section 4.2.1.10, RFC 9598 section 6).

The chain library checks rfc822Names alone; an address may stand in an SmtpUTF8Mailbox or in the subject as well. One
namespace, one check; it covers the subject's addresses also where alternative names outrank them, as clients find
certificates by those, too. Whatever cannot be decided counts against the certificate.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import idna

from keyserver.query import parse_address
from keyserver.smime import ber, names
from keyserver.smime.reading import NAME_CONSTRAINTS, Reading

MAX_SUBTREES = 512  # of one CA
_PERMITTED, _EXCLUDED = 0xA0, 0xA1
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87  # checked by the chain library, and no address is read from them
_FROM_ZERO = ber.element(0x80, b"\x00")  # the only `minimum` there may be, which is the default

_Form: TypeAlias = tuple[int, str | None]  # of a GeneralName: its tag, and the type of an otherName
_Rdns: TypeAlias = tuple[frozenset[tuple[str, str | bytes]], ...]
_MAIL = ((names.RFC822_NAME, None), (names.OTHER_NAME, names.SMTP_UTF8_MAILBOX))
_DIRECTORY = (names.DIRECTORY_NAME, None)
_LABEL = re.compile("[a-z0-9_-]+")


def allow(authority: Reading, leaf: Reading) -> bool:
    """May this CA speak for every address in this certificate, and for its subject?

    Of each form that it constrains, a permitted subtree must cover each name and no excluded one may.
    """
    try:
        return all(_allow(value, leaf) for value in authority.values(NAME_CONSTRAINTS))
    except ValueError:  # something is broken, here or there
        return False


def _allow(value: bytes, leaf: Reading) -> bool:
    found: dict[_Form, dict[int, list[ber.Element]]] = {}
    for group in ber.inside(value, ber.SEQUENCE):
        subtrees = ber.parts(group.content)
        if group.tag not in (_PERMITTED, _EXCLUDED) or len(subtrees) > MAX_SUBTREES:
            return False
        for subtree in subtrees:
            base, *rest = ber.opened(subtree, ber.SEQUENCE)
            if any(part.octets != _FROM_ZERO for part in rest):
                return False
            found.setdefault(_form(base), {}).setdefault(group.tag, []).append(base)
    return all(_form_allows(form, k.get(_PERMITTED, []), k.get(_EXCLUDED, []), leaf) for form, k in found.items())


def _form_allows(form: _Form, permitted: list[ber.Element], excluded: list[ber.Element], leaf: Reading) -> bool:
    if form in _MAIL:
        within, without = _Mailboxes(permitted), _Mailboxes(excluded)
        claimed = [parse_address(text) or "" for text in (*leaf.alternative_mail, *leaf.subject_mail)]
        if "" in claimed or without.unclear or any(map(without.cover, claimed)):
            return False
        return not permitted or all(map(within.cover, claimed))
    if form == _DIRECTORY:
        called = [ber.first(name.content) for name in leaf.alternative_names if _form(name) == form]
        subjects = [_rdns(name) for name in (leaf.subject, *called) if name.content]
        inside, outside = _bases(permitted), _bases(excluded)
        if any(_below(subject, outside) for subject in subjects):
            return False
        return not inside or all(_below(subject, inside) for subject in subjects)
    return form[0] in (_DNS_NAME, _IP_ADDRESS) or all(_form(name) != form for name in leaf.alternative_names)


class _Mailboxes:
    """Subtrees of addresses: mailboxes, all of a host, or with a leading dot all below a domain, in A-labels."""

    def __init__(self, bases: Sequence[ber.Element]) -> None:
        self.unclear = False  # one of them cannot be compared: it permits nothing, and excludes everything
        self._kept: set[str] = set()
        for base in bases:
            subtree = names.mail_of(base) or ""
            kept = parse_address(subtree) if "@" in subtree else _labels(subtree)
            self.unclear |= kept is None
            self._kept.add(kept or "")

    def cover(self, address: str) -> bool:
        """Is this address, normalised, in one of them?"""
        host = address.rpartition("@")[2]
        labels = host.split(".")
        above = ("." + ".".join(labels[n:]) for n in range(1, len(labels)))
        return not self._kept.isdisjoint((address, host, *above))


def _labels(host: str) -> str | None:
    """A host name, or a domain with its leading dot, as lower-case A-labels; None for what is neither."""
    dot, rest = ("." if host.startswith(".") else ""), host.removeprefix(".").rstrip(".")
    try:
        labels = [s.lower() if s.isascii() else idna.encode(s, uts46=True).decode() for s in rest.split(".")]
    except (idna.IDNAError, UnicodeError):
        return None
    return dot + ".".join(labels) if all(map(_LABEL.fullmatch, labels)) else None


def _bases(elements: Iterable[ber.Element]) -> set[_Rdns]:
    return {_rdns(ber.first(element.content)) for element in elements}


def _below(subject: _Rdns, bases: set[_Rdns]) -> bool:
    """A directory name covers those that begin with it (RFC 5280 section 7.1)."""
    return any(subject[:length] in bases for length in range(len(subject) + 1))


def _rdns(name: ber.Element) -> _Rdns:
    """A distinguished name for comparing: text without its case, its spacing and its way of being composed."""
    return tuple(frozenset((a.type, _folded(a)) for a in rdn) for rdn in names.distinguished(name))


def _folded(attribute: names.Attribute) -> str | bytes:
    if attribute.text is None:
        return attribute.value.octets
    return " ".join(unicodedata.normalize("NFKC", attribute.text).casefold().split())


def _form(name: ber.Element) -> _Form:
    return name.tag, names.other_type(name) if name.tag == names.OTHER_NAME else None
