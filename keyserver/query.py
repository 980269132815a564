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
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010FFFF]+"
_LOCAL = re.compile(rf"\.*{_ATOM}(?:\.+{_ATOM})*\.*\Z")
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

    `0x` or `openpgp4fpr:` is optional, spaces, colons, dots and hyphens in hex are tolerated; a term with exactly one
    address in it is that address, and a space inside an address is read as the `+` that GnuPG and form decoding turn
    into one.
    """
    term = search.strip()
    if not term:
        raise BadQuery("the search term is empty; give a fingerprint, a 16-digit key ID or an address")
    if len(term) > MAX_TERM:
        raise BadQuery(f"the search term is longer than {MAX_TERM} characters")
    hexed = _HEX.match(_SEPARATORS.sub("", _FINGERPRINT_URI.sub("", term)))
    if hexed and (digits := hexed[1].upper()):
        if len(digits) in (40, 64):
            return ByFingerprint(digits, kind)
        if len(digits) == 16:
            return ByKeyId(digits, kind)
        if len(digits) == 8:
            raise ShortKeyId("8-digit key IDs are easily forged and not answered; give the fingerprint")
        if term[:2] in ("0x", "0X"):
            raise BadQuery("a key ID has 16 hex digits, a fingerprint 40 or 64")
    if address := _address_in(term):
        local, domain = address.rsplit("@", 1)
        return ByAddress(local, domain, kind)
    return ByText(" ".join(term.casefold().split()), kind)


_SEPARATORS = re.compile(r"[\s:.\-]+")
_FINGERPRINT_URI = re.compile(r"\Aopenpgp4fpr:", re.IGNORECASE)
_MAILTO = re.compile(r"\Amailto:([^?]*)(?:\?.*)?\Z", re.IGNORECASE | re.DOTALL)


def _address_in(term: str) -> str | None:
    """The one address in a search term: all of it, a `mailto:` URI (RFC 6068), what stands in its only angle brackets,
    or its only word that is an address."""
    if uri := _MAILTO.match(term):
        return parse_address(unquote(uri[1]))
    if "<" in term or ">" in term:
        inner = bracketed(term)
        return parse_address(inner if '"' in inner else _SPACES.sub("+", inner.strip())) if inner else None
    if address := parse_address(term if '"' in term else _SPACES.sub("+", term)):
        return address
    found = {address for word in re.split(r"[\s,;()]+", term) if (address := parse_address(word))}
    return found.pop() if len(found) == 1 and term.count("@") == 1 else None


_SPACES = re.compile(r"\s")


def bracketed(text: str) -> str | None:
    """What stands in the only pair of angle brackets of a text; None where there is no such pair, or more brackets."""
    start, end = text.find("<"), text.find(">")
    if text.count("<") != 1 or text.count(">") != 1 or end < start:
        return None
    return text[start + 1 : end]


def parse_address(text: str) -> str | None:
    """The normalised form of a bare e-mail address, or None where the strict rule does not admit it.

    One `@` outside quotes; a local part of at most 64 octets (UTF-8 allowed, NFC, lower case): atoms with dots
    anywhere, as mobile carriers have issued them, or a quoted string (RFC 5321 section 4.1.2), whose quotes vanish
    where they are not needed; a domain as `parse_domain` takes it. No control, format, surrogate or line-separating
    character anywhere.
    """
    if len(text) > 320 or any(unicodedata.category(c) in _FORBIDDEN for c in text):
        return None
    local, at, domain = text.rpartition("@")
    if not at:
        return None
    unquoted = _unquoted(local) if local.startswith('"') else local
    if unquoted is None:
        return None
    unquoted = unicodedata.normalize("NFC", unicodedata.normalize("NFC", unquoted).lower())
    local = unquoted if _LOCAL.match(unquoted) else _quoted(unquoted)
    if text[0] != '"' and local != unquoted:
        return None
    if len(local.encode()) > 64 or not _PRINTED.match(unquoted):
        return None
    host = parse_domain(domain)
    return f"{local}@{host}" if host else None


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\Z')
_ESCAPED = re.compile(r'["\\]')
_PRINTED = re.compile(r"(?:\S| )+\Z")


def _quoted(text: str) -> str:
    """A quoted string that says this."""
    return '"' + _ESCAPED.sub(r"\\\g<0>", text) + '"'


def _unquoted(local: str) -> str | None:
    """What a quoted string says."""
    found = _QUOTED.match(local)
    return re.sub(r"\\(.)", r"\1", found[1]) if found else None


def spellings(query: ByAddress) -> tuple[ByAddress, ...]:
    """The address with its domain in A-labels and, where that differs, in U-labels: user IDs hold either.

    The second is for asking others only; whatever is found under it proves the first."""
    try:
        written = idna.decode(query.domain)
    except (idna.IDNAError, UnicodeError):
        written = query.domain
    return (query,) if written == query.domain else (query, replace(query, domain=written))


def parse_domain(text: str) -> str | None:
    """The lower-case A-label form of a domain name, or None.

    What is ASCII already needs no verdict of IDNA: letters, digits, hyphens and underscores are a host's name, whatever
    an A-label stands for (RFC 1123 section 2.1). The last label is not numeric: that is an address of IP.
    """
    if not text or len(text) > 253:
        return None
    host = text.lower()
    if not host.isascii():
        try:
            host = idna.encode(text, uts46=True, std3_rules=True, transitional=False).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError):
            return None
    labels = host.split(".")
    if len(host) > 253 or labels[-1].isdigit() or not all(map(_LABEL.match, labels)):
        return None
    return host


_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\Z")
