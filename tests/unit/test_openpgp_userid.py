"""Addresses in user IDs: the strict rule, beside what other programs take for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.openpgp import address_of
from keyserver.query import parse_address

TABLE = {
    "Ann (work) <Ann.Lee@Example.ORG>": "ann.lee@example.org",
    "ann@example.org": "ann@example.org",
    " ann@example.org ": "ann@example.org",
    "<ann+tag@example.org>": "ann+tag@example.org",
    '"Ann <x@evil.net>" <ann@example.org>': None,
    "Ann <ann@example.org> <eve@evil.net>": None,
    "Ann <ann@example.org> (De-Mail)": "ann@example.org",
    "<ann@example.org> Ann": "ann@example.org",
    "Ann ann@example.org": None,
    "ann@example.org (work)": None,
    "mailto:ann@example.org": None,
    "Ann <ann@example.org.>": None,
    "<ann@@example.org>": None,
    "<a@x.org,b@x.org>": None,
    '<"ann lee"@x.org>': '"ann lee"@x.org',
    "Ann <ann@münchen.example>": "ann@xn--mnchen-3ya.example",
    "Ann <jörg@example.org>": "jörg@example.org",
    "Ann <JO\u0308RG@example.org>": "jörg@example.org",
    "Ann <ann@ex\u0430mple.org>": "ann@xn--exmple-4nf.org",
    "Ann <ann\u202e@example.org>": None,
    "Ann\u202e <ann@example.org>": "ann@example.org",
    "Ann <ann@example.org\0@evil.net>": None,
    "Ann\0 <ann@example.org>": None,
    "Ann\n<ann@example.org>": None,
    "Ann <ann@example.org": None,
    "Ann ann@example.org>": None,
    ">ann@example.org<": None,
    "<.a..b.@x.org>": ".a..b.@x.org",
    "<ann@[192.0.2.1]>": None,
    "<ann@192.0.2.1>": None,
    "<ann@localhost>": "ann@localhost",
    "<ann@-x.org>": None,
    "<ann@x_y.org>": "ann@x_y.org",
    "<ann@x.org。>": None,
    "<>": None,
    "": None,
    "Ann": None,
    "Alice <alice@partner.example> (work)": "alice@partner.example",
    "\u0645\u06cc\u200c\u0631\u0648\u0645 <alice@partner.example>": "alice@partner.example",  # a joiner in a name
    "Family \U0001f468\u200d\U0001f469 <alice@partner.example>": "alice@partner.example",
    "Ann <a\u200cnn@example.org>": None,
    '<"ann.lee"@x.org>': "ann.lee@x.org",
    '<"a\\\\\\"b"@x.org>': '"a\\\\\\"b"@x.org',
    '<"a@b"@x.org>': '"a@b"@x.org',
    "<phil@xn--yp8ha.example>": "phil@xn--yp8ha.example",
    "<a@r3---sn.example>": "a@r3---sn.example",
    "<docomo..taro.@docomo.example>": "docomo..taro.@docomo.example",
    "<...@x.org>": None,
    f"<{'a' * 65}@x.org>": None,
    f"<a@{'b' * 64}.org>": None,
}


@pytest.mark.parametrize("user_id", TABLE)
def test_strict_rule(user_id: str) -> None:
    assert address_of(user_id.encode()) == TABLE[user_id]


def test_latin_1_name_with_ascii_address() -> None:
    assert address_of("Jörg <joerg@example.org>".encode("latin-1")) == "joerg@example.org"


def test_latin_1_address_is_none() -> None:
    assert address_of("Jörg <jörg@example.org>".encode("latin-1")) is None
    assert address_of("jörg@example.org".encode("latin-1")) is None


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_an_address_is_normal_or_none(user_id: bytes) -> None:
    address = address_of(user_id)
    assert address is None or parse_address(address) == address
