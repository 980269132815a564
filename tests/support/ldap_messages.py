"""The client's half of LDAP for tests and benchmark: requests and filters as octets (RFC 4511 section 4)."""

from __future__ import annotations

from keyserver.wire.ber import ENUMERATED, OCTETS, SEQUENCE, element, flag, number
from keyserver.wire.ldap import BIND, EXTENDED, SEARCH, Scope, SearchRequest
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

GPG_ATTRIBUTES = (
    *("pgpKey", "pgpcertid", "pgpuserid", "pgpkeyid", "pgprevoked", "pgpdisabled", "pgpkeycreatetime"),
    *("modifyTimestamp", "pgpkeysize", "pgpkeytype", "gpgfingerprint"),
)
"""What gpg asks for."""


def gpg_get(fingerprint: str, base: str, time_limit: int = 15) -> SearchRequest:
    """What GnuPG sends for a fingerprint."""
    value = fingerprint.encode()
    either = Or((Equal("gpgFingerprint", value), Equal("gpgSubFingerprint", value)))
    return SearchRequest(base, Scope.SUBTREE, 0, time_limit, False, either, GPG_ATTRIBUTES)


def write_search(search: SearchRequest) -> bytes:
    """A SearchRequest's octets, without envelope."""
    return element(
        SEARCH,
        element(OCTETS, search.base.encode("utf-8", "surrogateescape")),
        number(search.scope, ENUMERATED),
        number(0, ENUMERATED),
        number(search.size_limit),
        number(search.time_limit),
        flag(search.types_only),
        write_filter(search.filter),
        element(SEQUENCE, *(element(OCTETS, name.encode("latin-1")) for name in search.attributes)),
    )


def write_bind(version: int = 3, name: str = "", password: bytes = b"") -> bytes:
    """A simple BindRequest's octets, without envelope."""
    return element(BIND, number(version), element(OCTETS, name.encode()), element(0x80, password))


def write_extended(oid: str) -> bytes:
    """An ExtendedRequest's octets without a value, without envelope."""
    return element(EXTENDED, element(0x80, oid.encode()))


def write_filter(filter_: Filter) -> bytes:
    """A filter's octets."""
    match filter_:
        case And(parts):
            return element(0xA0, *map(write_filter, parts))
        case Or(parts):
            return element(0xA1, *map(write_filter, parts))
        case Not(part):
            return element(0xA2, write_filter(part))
        case Present(attribute):
            return element(0x87, attribute.encode("latin-1"))
        case Substrings(attribute, initial, middle, final):
            ends = (
                (b"" if initial is None else element(0x80, initial)),
                (b"" if final is None else element(0x82, final)),
            )
            pieces = element(0x30, ends[0], *(element(0x81, piece) for piece in middle), ends[1])
            return element(0xA4, element(OCTETS, attribute.encode("latin-1")), pieces)
        case Extensible(rule, attribute, value, dn):
            names = [element(t, n.encode("latin-1")) for t, n in ((0x81, rule), (0x82, attribute)) if n]
            return element(0xA9, *names, element(0x83, value), *((flag(True, 0x84),) if dn else ()))
    tag = {Equal: 0xA3, AtLeast: 0xA5, AtMost: 0xA6, Approx: 0xA8}[type(filter_)]
    return element(tag, element(OCTETS, filter_.attribute.encode("latin-1")), element(OCTETS, filter_.value))
