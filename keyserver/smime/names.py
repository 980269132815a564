"""Names in certificates: distinguished names, alternative names, and the addresses that are read from both."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from keyserver.model import Malformed
from keyserver.query import parse_address
from keyserver.smime import ber

COMMON_NAME, SURNAME, GIVEN_NAME, EMAIL_ADDRESS = "2.5.4.3", "2.5.4.4", "2.5.4.42", "1.2.840.113549.1.9.1"
SMTP_UTF8_MAILBOX = "1.3.6.1.5.5.7.8.9"
OTHER_NAME, RFC822_NAME, DIRECTORY_NAME = 0xA0, 0x81, 0xA4  # tags of GeneralName (RFC 5280 section 4.2.1.6)
NO_ADDRESS = "\ufffd"
BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_UTF8 = 0x0C
_UNICODE = {_UTF8: "utf-8", 0x1C: "utf-32-be", 0x1E: "utf-16-be"}
_LATIN = frozenset({0x12, 0x13, 0x14, 0x16, 0x1A, 0x1B})  # whatever their standards allow, issuers write Latin-1
_SHORT = {
    COMMON_NAME: "CN",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.6": "C",
    "2.5.4.9": "STREET",
    "0.9.2342.19200300.100.1.25": "DC",
    "0.9.2342.19200300.100.1.1": "UID",
}  # RFC 4514 section 3
_ESCAPED = {ord(c): f"\\{c}" for c in '\\"+,;<>'}


class Attribute(NamedTuple):
    """One attribute of a distinguished name. `text` is None where it cannot be read as text."""

    type: str
    text: str | None
    value: ber.Element

    @property
    def shown(self) -> str | None:
        """The text, where it can be shown to people: nothing in it hides or turns what stands beside it."""
        return None if self.text is None or deceives(self.text) else self.text


DistinguishedName: TypeAlias = tuple[tuple[Attribute, ...], ...]


def distinguished(name: ber.Element) -> DistinguishedName:
    """A distinguished name, RDN by RDN. Raises ValueError."""
    return tuple(tuple(map(_attribute, ber.opened(rdn, ber.SET))) for rdn in ber.opened(name, ber.SEQUENCE))


def written(name: DistinguishedName) -> str:
    """The string form (RFC 4514); what cannot be shown as text stands as its octets in hex."""
    return ",".join("+".join(map(_pair, rdn)) for rdn in reversed(name))


def deceives(text: str) -> bool:
    """Does it hold control characters or such as change the direction of writing?"""
    return any(c in BIDI_CONTROLS or c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" for c in text)


def alternative(value: bytes) -> Iterator[ber.Element]:
    """The names in a subject alternative name extension, as far as it can be read."""
    with suppress(Malformed):
        outer = ber.first(value)
        if outer.tag == ber.SEQUENCE:
            yield from ber.walk(outer.content)


def mail_of(name: ber.Element) -> str | None:
    """What an rfc822Name or SmtpUTF8Mailbox (RFC 9598 section 3) says, be it an address or not.

    None for other kinds of names, NO_ADDRESS where it is certainly none.
    """
    if name.tag == RFC822_NAME:
        text = name.content.decode("utf-8", "replace")
        return text if text.isascii() or deceives(text) else NO_ADDRESS
    if name.tag == OTHER_NAME and other_type(name) == SMTP_UTF8_MAILBOX:
        try:
            _, wrapped = ber.parts(name.content)
            (mailbox,) = ber.parts(wrapped.content)
            return mailbox.content.decode() if mailbox.tag == _UTF8 else NO_ADDRESS
        except ValueError:
            return NO_ADDRESS
    return None


def other_type(name: ber.Element) -> str | None:
    """The type of an otherName, None where it cannot be read."""
    try:
        return ber.dotted(ber.first(name.content))
    except Malformed:
        return None


def mail_in(subject: DistinguishedName) -> tuple[str, ...]:
    """What the subject's emailAddress attributes say, be it addresses or not."""
    found = [a for rdn in subject for a in rdn if a.type == EMAIL_ADDRESS]
    return tuple(a.text if a.text is not None and (_sure(a) or deceives(a.text)) else NO_ADDRESS for a in found)


def addresses(alternative: Iterable[str], subject: Iterable[str]) -> tuple[str, ...]:
    """The addresses that a certificate proves, normalised: those among its alternative names.

    Those in the subject count beside them where nothing contradicts (RFC 8550 section 3): alternative names that hold
    an address contradict every other one; names of hosts, URIs and what is no address contradict nothing.
    """
    found = [a for a in map(parse_address, alternative) if a] or [a for a in map(parse_address, subject) if a]
    return tuple(dict.fromkeys(found))


def _attribute(pair: ber.Element) -> Attribute:
    type_, value = ber.opened(pair, ber.SEQUENCE)[:2]
    return Attribute(ber.dotted(type_), _text(value), value)


def _text(value: ber.Element) -> str | None:
    if value.tag in _LATIN:
        return value.content.decode("latin-1")
    try:
        return value.content.decode(_UNICODE[value.tag])
    except (KeyError, UnicodeDecodeError):
        return None


def _sure(attribute: Attribute) -> bool:
    """Is it certain which characters are meant?"""
    return attribute.value.tag in _UNICODE or (attribute.text or "").isascii()


def _pair(attribute: Attribute) -> str:
    name = _SHORT.get(attribute.type, attribute.type)
    text = attribute.shown
    if text is None:
        return f"{name}=#{attribute.value.octets.hex()}"
    text = text.translate(_ESCAPED)
    if text[:1] in ("#", " "):
        text = "\\" + text
    return f"{name}={text[:-1]}\\ " if text.endswith(" ") and text != "\\ " else f"{name}={text}"
