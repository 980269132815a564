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
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010FFFF]+"
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*\Z")
_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def name_of(kind: Kind, type_: str, value: str) -> Name:
    """The one spelling of a name: `openpgp:addr:alice@example.org`, `openpgp:fpr:<HEX>`, `x509:addr:…`."""
    return f"{kind}:{type_}:{value}"


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

    `0x` is optional, spaces in hex are tolerated, an address may stand in angle brackets, and a space inside an
    address is read as the `+` that GnuPG and form decoding turn into one.
    """
    term = search.strip()
    if not term:
        raise BadQuery("the search term is empty; give a fingerprint, a 16-digit key ID or an address")
    if len(term) > MAX_TERM:
        raise BadQuery(f"the search term is longer than {MAX_TERM} characters")
    hexed = _HEX.match(re.sub(r"\s+", "", term))
    if hexed and (digits := hexed[1].upper()):
        if len(digits) in (40, 64):
            return ByFingerprint(digits, kind)
        if len(digits) == 16:
            return ByKeyId(digits, kind)
        if len(digits) == 8:
            raise ShortKeyId("8-digit key IDs are easily forged and not answered; give the fingerprint")
        if term[:2] in ("0x", "0X"):
            raise BadQuery("a key ID has 16 hex digits, a fingerprint 40 or 64")
    bare = term[1:-1].strip() if term.startswith("<") and term.endswith(">") else term
    if address := parse_address(re.sub(r"\s", "+", bare)):
        local, domain = address.rsplit("@", 1)
        return ByAddress(local, domain, kind)
    return ByText(" ".join(term.casefold().split()), kind)


def parse_address(text: str) -> str | None:
    """The normalised form of a bare e-mail address, or None where the strict rule does not admit it.

    One `@`; an unquoted dot-atom (UTF-8 allowed, NFC, lower case) of at most 64 octets; a domain through IDNA
    (UTS #46, STD3 rules) with a dot in it, whose last label is not numeric. No control, format, surrogate or
    line-separating character anywhere.
    """
    if len(text) > 320 or any(unicodedata.category(c) in _FORBIDDEN for c in text):
        return None
    local, at, domain = text.partition("@")
    if not at or "@" in domain or not _LOCAL.match(local):
        return None
    local = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).lower())
    if len(local.encode()) > 64 or any(c.isspace() for c in local):
        return None
    host = parse_domain(domain)
    return f"{local}@{host}" if host else None


def spellings(query: ByAddress) -> tuple[ByAddress, ...]:
    """The address with its domain in A-labels and, where that differs, in U-labels: user IDs hold either.

    The second is for asking others only; whatever is found under it proves the first."""
    try:
        written = idna.decode(query.domain)
    except (idna.IDNAError, UnicodeError):
        written = query.domain
    return (query,) if written == query.domain else (query, replace(query, domain=written))


def parse_domain(text: str) -> str | None:
    """The lower-case A-label form of a domain name with at least two labels, or None."""
    if not text or len(text) > 253:
        return None
    try:
        host = idna.encode(text, uts46=True, std3_rules=True, transitional=False).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        return None
    labels = host.split(".")
    if len(labels) < 2 or not all(labels) or labels[-1].isdigit() or len(host) > 253:
        return None
    return host
