"""Search terms: what a client asks, normalised and typed.

Hashable frozen values: a query is also the key under which a search is joined and remembered.
The e-mail address rule here is the one strict rule of the product, used for search terms and for what a certificate
proves alike, so that both sides always compare equal.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TypeAlias
from urllib.parse import unquote

import idna

from keyserver.model import Kind, Name

MAX_TERM = 512  # characters; the longest thing worth asking is an address of 320


class BadQuery(ValueError):
    """A search term that cannot be asked; the text says why and what is accepted."""


class ShortKeyId(BadQuery):
    """An 8-digit key ID: anybody can forge one in seconds, so it names nothing."""


@dataclass(frozen=True, slots=True)
class ByFingerprint:
    """A whole fingerprint: 40 (v4; X.509 SHA-1) or 64 (v6; X.509 SHA-256) upper-case hex digits."""

    fingerprint: str
    kind: Kind = Kind.OPENPGP

    @property
    def name(self) -> Name:
        """The name this query looks under."""
        return name_of(self.kind, "fpr", self.fingerprint)

    def __str__(self) -> str:
        return self.fingerprint


@dataclass(frozen=True, slots=True)
class ByKeyId:
    """A 64-bit OpenPGP key ID: 16 upper-case hex digits."""

    key_id: str
    kind: Kind = Kind.OPENPGP

    @property
    def name(self) -> Name:
        """The name this query looks under."""
        return name_of(self.kind, "kid", self.key_id)

    def __str__(self) -> str:
        return self.key_id


@dataclass(frozen=True, slots=True)
class ByAddress:
    """An e-mail address: lower-case NFC local part, lower-case A-label domain."""

    local: str
    domain: str
    kind: Kind = Kind.OPENPGP

    @property
    def address(self) -> str:
        """`local@domain`, normalised."""
        return f"{self.local}@{self.domain}"

    @property
    def name(self) -> Name:
        """The name this query looks under."""
        return name_of(self.kind, "addr", self.address)

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True, slots=True)
class ByHash:
    """An X.509 lookup by a digest of some field (RFC 4387 section 2.1): attribute such as `ihash`, digest in hex."""

    attribute: str
    digest: str
    kind: Kind = Kind.X509

    @property
    def name(self) -> Name:
        """The name this query looks under."""
        return name_of(self.kind, self.attribute, self.digest)

    def __str__(self) -> str:
        return f"{self.attribute}={self.digest}"


@dataclass(frozen=True, slots=True)
class ByText:
    """Anything else: free text, compared without case with whole user IDs."""

    text: str
    kind: Kind = Kind.OPENPGP

    @property
    def name(self) -> Name:
        """The name this query looks under."""
        return name_of(self.kind, "text", self.text)

    def __str__(self) -> str:
        return self.text


Query: TypeAlias = ByFingerprint | ByKeyId | ByAddress | ByHash | ByText

_HEX = re.compile(r"(?:0[xX])?([0-9a-fA-F]+)\Z")
_FINGERPRINT = re.compile(r"(?:(openpgp4fpr)|[^=:@]*fingerprint)\s*[=:]\s*", re.IGNORECASE)  # what programs put before
_BETWEEN_DIGITS = re.compile(r"[\s:.\-]+")
_AROUND = " \t\r\n\v\f\u00a0\u200b\u200e\u200f\u202a\u202c\u2066\u2067\u2068\u2069\ufeff"
"""What address books and web pages leave around a term that is copied out of them."""
_WORD = re.compile(r"<([^<>]*)>|[^\s,;:()<>\[\]]+")
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010FFFF]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.+{_ATOM})*\.*\Z")
_QUOTED = re.compile(r'"((?:[ !#-;=?A-\[\]-~\u0080-\U0010FFFF]|\\[ -;=?A-~])+)"\Z')  # all but @ < >
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_REPLACEMENT = "\ufffd"  # what a decoder could not read: two addresses must not become equal by it


def name_of(kind: Kind, type_: str, value: str) -> Name:
    """The one spelling of a name: `openpgp:addr:alice@example.org`, `openpgp:fpr:<HEX>`, `x509:addr:…`."""
    return f"{kind}:{type_}:{value}"


def address_in(name: Name) -> str | None:
    """The address that a name is; None for other names."""
    address = name.partition(":")[2]
    return address.removeprefix("addr:") if address.startswith("addr:") else None


def from_name(name: Name) -> Query:
    """The query whose `name` this is (as records remember it). Raises ValueError for anything else."""
    kind_text, type_, value = name.split(":", 2)
    kind = Kind(kind_text)
    if type_ == "fpr":
        return ByFingerprint(value, kind)
    if type_ == "kid":
        return ByKeyId(value, kind)
    if type_ == "addr":
        local, domain = value.rsplit("@", 1)
        return ByAddress(local, domain, kind)
    return ByText(value, kind) if type_ == "text" else ByHash(type_, value, kind)


def parse(search: str, kind: Kind = Kind.OPENPGP) -> Query:
    """What a search term asks for. Raises BadQuery (ShortKeyId for 8 hex digits) with a sentence for the client.

    A term with one fingerprint or one address in it is that: `0x` and what programs print around and between the
    digits (`openpgp4fpr:`, `Fingerprint=`, colons) is passed over, as are `mailto:`, a name and angle brackets. A space
    inside an address is read as the `+` that GnuPG and form decoding turn into one. Free text is what has no address,
    or more than one.
    """
    term = search.strip(_AROUND)
    if not term:
        raise BadQuery("the search term is empty; give a fingerprint, a 16-digit key ID or an address")
    if len(term) > MAX_TERM:
        raise BadQuery(f"the search term is longer than {MAX_TERM} characters")
    if identifier := _identifier(term, kind):
        return identifier
    if address := _one_address(term):
        local, domain = address.rsplit("@", 1)
        return ByAddress(local, domain, kind)
    return ByText(" ".join(term.casefold().split()), kind)


def _identifier(term: str, kind: Kind) -> ByFingerprint | ByKeyId | None:
    """The fingerprint or key ID that a term is."""
    if announced := _FINGERPRINT.match(term):
        term = term[announced.end() :]
        if announced[1]:
            term = term.partition("#")[0]  # chat programs write an invitation behind it
    hexed = _HEX.match(_BETWEEN_DIGITS.sub("", term))
    digits = hexed[1].upper() if hexed else ""
    if len(digits) in (40, 64):
        return ByFingerprint(digits, kind)
    if len(digits) == 16:
        return ByKeyId(digits, kind)
    if digits and _HEX.match("".join(term.split())):
        if len(digits) == 8:
            raise ShortKeyId("8-digit key IDs are easily forged and not answered; give the fingerprint")
        if announced or term[:2] in ("0x", "0X"):
            raise BadQuery("a key ID has 16 hex digits, a fingerprint 40 or 64")
    return None


def _one_address(term: str) -> str | None:
    """The only address in a term; None where there is none or where two could be meant."""
    if whole := _address_or_damaged(term):
        return whole
    found: set[str | None] = set()
    for word in _WORD.finditer(term):
        if word[1] is not None:
            if "@" in word[1]:
                found.add(_address_or_damaged(word[1].strip()))
        elif "@" in word[0][1:]:
            found.add(parse_address(word[0].strip("\"'.")))
    return found.pop() if len(found) == 1 else None


def _address_or_damaged(text: str) -> str | None:
    if text[:7].lower() == "mailto:":  # RFC 6068 section 2
        text = unquote(text[7:].partition("?")[0])
    return parse_address(text) or parse_address(re.sub(r"\s", "+", text))


def parse_address(text: str) -> str | None:
    """The normalised form of a bare e-mail address, or None where the strict rule does not admit it.

    A local part of at most 64 octets (UTF-8 allowed, NFC, lower case), `@`, and a domain (`parse_domain`). The local
    part is a dot-atom, in which dots may follow each other or stand at the end, as Japanese carriers issued them, or a
    quoted string (RFC 5321 section 4.1.2) without `@`, `<` and `>`, at which other readers would cut; quotes and
    backslashes that are not needed vanish. No control, format, surrogate or line-separating character anywhere.
    """
    if len(text) > 320 or not ((text.isascii() and text.isprintable()) or _legible(text)):
        return None
    local, at, domain = text.rpartition("@")
    mailbox, host = _local_part(local) if at else None, parse_domain(domain)
    return f"{mailbox}@{host}" if mailbox and host else None


def _legible(text: str) -> bool:
    return _REPLACEMENT not in text and not any(unicodedata.category(c) in _FORBIDDEN for c in text)


def _local_part(text: str) -> str | None:
    quoted = _QUOTED.match(text)
    bare = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    bare = unicodedata.normalize("NFC", unicodedata.normalize("NFC", bare).lower())
    if any(c.isspace() and c != " " for c in bare):
        return None
    if not _LOCAL.match(bare):
        if not quoted:
            return None
        bare = '"' + re.sub(r'(["\\])', r"\\\1", bare) + '"'
    return bare if len(bare.encode()) <= 64 else None


def spellings(query: ByAddress) -> tuple[ByAddress, ...]:
    """The address with its domain in A-labels and, where that differs, in U-labels: user IDs hold either.

    The second is for asking others only; whatever is found under it proves the first."""
    try:
        written = idna.decode(query.domain)
    except (idna.IDNAError, UnicodeError):
        written = query.domain
    return (query,) if written == query.domain else (query, replace(query, domain=written))


def parse_domain(text: str) -> str | None:
    """A domain name in lower case and A-labels, or None. A single label is one: who may speak for it, policy says.

    Labels of ASCII letters, digits, `_` and `-` (neither first nor last) are taken as they are: they are in use,
    whatever IDNA says of an A-label. Others go through UTS #46 and IDNA 2008. The last label is not numeric.
    """
    if not text or len(text) > 253:
        return None
    host = text.lower() if text.isascii() else _a_labels(text)
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.match, labels)) or labels[-1].isdigit():
        return None
    return host


def _a_labels(text: str) -> str:
    """Each label as IDNA has it; empty where it has none."""
    try:
        labels = idna.uts46_remap(text, std3_rules=False, transitional=False).split(".")
        return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels).lower()
    except (idna.IDNAError, UnicodeError):
        return ""
