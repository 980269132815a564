"""Name constraints of a CA over all that a certificate is found by (RFC 5280 section 4.2.1.10, RFC 9598 section 6).

The chain library checks rfc822Names alone; an address may stand in an SmtpUTF8Mailbox or in the subject as well. One
namespace, one check. Whatever cannot be decided counts against the certificate.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import TypeAlias

import idna

from keyserver.query import parse_address
from keyserver.smime import ber, names
from keyserver.smime.reading import NAME_CONSTRAINTS, Reading

_PERMITTED, _EXCLUDED = 0xA0, 0xA1
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87  # checked by the chain library, and no address is read from them
_FROM_ZERO = ber.element(0x80, b"\x00")  # the only `minimum` there may be, which is the default

_Form: TypeAlias = tuple[int, str | None]  # of a GeneralName: its tag, and the type of an otherName
_MAIL = ((names.RFC822_NAME, None), (names.OTHER_NAME, names.SMTP_UTF8_MAILBOX))
_DIRECTORY = (names.DIRECTORY_NAME, None)
_Rdns: TypeAlias = list[frozenset[tuple[str, str | bytes]]]


def allow(authority: Reading, leaf: Reading) -> bool:
    """May this CA speak for every address, and the subject, of this certificate?

    Of each form that it constrains, a permitted subtree must cover each name and no excluded one may.
    """
    try:
        return all(_allow(value, leaf) for value in authority.values(NAME_CONSTRAINTS))
    except ValueError:  # something is broken, here or there
        return False


def _allow(value: bytes, leaf: Reading) -> bool:
    permitted: dict[_Form, list[ber.Element]] = {}
    excluded: dict[_Form, list[ber.Element]] = {}
    for group in ber.inside(value, ber.SEQUENCE):
        if group.tag not in (_PERMITTED, _EXCLUDED):
            return False
        for subtree in ber.parts(group.content):
            base, *rest = ber.opened(subtree, ber.SEQUENCE)
            if any(part.octets != _FROM_ZERO for part in rest):
                return False
            kept = permitted if group.tag == _PERMITTED else excluded
            kept.setdefault(_form(base), []).append(base)
    return all(_form_allows(f, permitted.get(f, []), excluded.get(f, []), leaf) for f in permitted.keys() | excluded)


def _form_allows(form: _Form, permitted: list[ber.Element], excluded: list[ber.Element], leaf: Reading) -> bool:
    if form in _MAIL:
        return _within(leaf.addresses, permitted, excluded, _covers_address)
    if form == _DIRECTORY:
        called = [ber.first(n.content) for n in leaf.alternative_names if _form(n) == form]
        subjects = [_rdns(name) for name in (leaf.subject, *called) if name.content]
        return _within(subjects, permitted, excluded, _covers_subject)
    return form[0] in (_DNS_NAME, _IP_ADDRESS) or all(_form(name) != form for name in leaf.alternative_names)


def _within(
    found: Iterable[object],
    permitted: list[ber.Element],
    excluded: list[ber.Element],
    covers: Callable[[ber.Element, object], bool | None],
) -> bool:
    """`covers` answers None where it cannot tell: then nothing is permitted, and everything excluded."""
    return all(
        (not permitted or any(covers(base, name) for base in permitted))
        and all(covers(base, name) is False for base in excluded)
        for name in found
    )


def _covers_address(base: ber.Element, address: object) -> bool | None:
    """A mailbox, all of a host, or with a leading dot all below a domain; hosts are compared as A-labels."""
    subtree, (_, _, host) = names.mail_of(base) or "", str(address).rpartition("@")
    if "@" in subtree:
        mailbox = parse_address(subtree)
        return None if mailbox is None else mailbox == address
    below = subtree.startswith(".")
    domain = _labels(subtree[1:] if below else subtree)
    if not domain:
        return None
    return host.endswith("." + domain) if below else host == domain


def _labels(host: str) -> str | None:
    """A host name or domain as lower-case A-labels; None for what is none."""
    try:
        labels = [
            s.lower() if s.isascii() else idna.encode(s, uts46=True).decode() for s in host.rstrip(".").split(".")
        ]
    except (idna.IDNAError, UnicodeError):
        return None
    return ".".join(labels) if all(labels) else None


def _covers_subject(base: ber.Element, subject: object) -> bool | None:
    """A directory name covers those that begin with it (RFC 5280 section 7.1)."""
    subtree = _rdns(ber.first(base.content))
    return isinstance(subject, list) and subject[: len(subtree)] == subtree


def _rdns(name: ber.Element) -> _Rdns:
    """A distinguished name for comparing: text without its case, its spacing and its way of being composed."""
    return [frozenset((a.type, _folded(a)) for a in rdn) for rdn in names.distinguished(name)]


def _folded(attribute: names.Attribute) -> str | bytes:
    if attribute.text is None:
        return attribute.value.octets
    return " ".join(unicodedata.normalize("NFKC", attribute.text).casefold().split())


def _form(name: ber.Element) -> _Form:
    return name.tag, names.other_type(name) if name.tag == names.OTHER_NAME else None
