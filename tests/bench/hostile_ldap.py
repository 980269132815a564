"""What a hostile LDAP client sends: messages that cost a careless reader time or memory (RFC 4511)."""

from __future__ import annotations

from collections.abc import Mapping

from bench.ldap_client import search
from keyserver.wire.ber import element, number
from keyserver.wire.ldap import envelope

_AND, _OR, _NOT, _EQUAL, _SUBSTRINGS = 0xA0, 0xA1, 0xA2, 0xA3, 0xA4
_SEARCH, _SEQUENCE, _OCTETS, _ENUMERATED, _BOOLEAN = 0x63, 0x30, 0x04, 0x0A, 0x01


def messages() -> Mapping[str, bytes]:
    """By name; each is sent on a connection of its own."""
    equal = _equal(b"mail", b"a@bench.example")
    nested = equal
    while len(nested) < 60_000:
        nested = element(_NOT, nested)
    return {
        "a filter nested to 60 kB": _search(nested),
        "a filter nested 12 deep": _search(_nested(equal, 11)),
        "an OR of 4,000": _search(element(_OR, *[equal] * 2500)),
        "an OR of 120 addresses": _search(element(_OR, *[_equal(b"mail", b"n%d@x.example" % n) for n in range(120)])),
        "a substring of 3,000 pieces": _search(
            element(_SUBSTRINGS, element(_OCTETS, b"cn"), element(_SEQUENCE, *[element(0x81, b"a")] * 3000))
        ),
        "an INTEGER of 60 kB": element(_SEQUENCE, element(0x02, b"\x01" * 60_000), element(0x42)),
        "a claimed length of 2 GiB": b"\x30\x84\x7f\xff\xff\xff" + b"\x02\x01\x01" * 20_000,
        "60 kB of attributes": _search(equal, [element(_OCTETS, b"a%d" % n) for n in range(8_000)]),
        "a DN of 60 kB": _search(equal, base=b"cn=a," * 12_000 + b"c=US"),
        "a DN of escapes": _search(equal, base=b"cn=" + b"\\2c" * 20_000),
        "an assertion of 60 kB": _search(_equal(b"mail", b"a" * 60_000)),
        "octets that are no BER": b"\xff" * 60_000,
    }


def floods() -> Mapping[str, bytes]:
    """By name: very many small messages in one go, none of which is wrong in itself."""
    equal = _equal(b"mail", b"a@bench.example")
    return {
        "4,000 searches at once": b"".join(envelope(n, _operation(equal)) for n in range(1, 4_001)),
        "4,000 known searches at once": search("0" * 40) * 4_000,
        "40,000 unknown operations": b"".join(envelope(n, element(0x68)) for n in range(1, 40_001)),
        "40,000 binds": envelope(1, element(0x60, number(3), element(_OCTETS), element(0x80))) * 40_000,
    }


def _nested(inner: bytes, depth: int) -> bytes:
    for _ in range(depth):
        inner = element(_AND, inner, inner)[:60_000] if len(inner) < 20_000 else element(_NOT, inner)
    return inner


def _equal(attribute: bytes, value: bytes) -> bytes:
    return element(_EQUAL, element(_OCTETS, attribute), element(_OCTETS, value))


def _operation(filter_: bytes, attributes: list[bytes] | None = None, base: bytes = b"dc=keyserver,dc=local") -> bytes:
    return element(
        _SEARCH,
        element(_OCTETS, base),
        number(2, _ENUMERATED),
        number(0, _ENUMERATED),
        number(0),
        number(0),
        element(_BOOLEAN, b"\x00"),
        filter_,
        element(_SEQUENCE, *(attributes or [])),
    )


def _search(filter_: bytes, attributes: list[bytes] | None = None, base: bytes = b"dc=keyserver,dc=local") -> bytes:
    return envelope(1, _operation(filter_, attributes, base))
