"""LDAP messages: against independent codecs (asn1crypto's decoder, ldap3's encoder and decoder), and against malice."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from typing import Any

import pytest
from asn1crypto import core
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.wire import ldap as wire
from keyserver.wire.ber import element, number
from keyserver.wire.ldap import Control, Message, Scope, SearchRequest
from keyserver.wire.ldap_filter import (
    MAX_DEPTH,
    MAX_NODES,
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
    read_filter,
)
from support.ldap_messages import write_bind, write_extended, write_filter, write_search

with warnings.catch_warnings():  # ldap3 2.9.1 imports two names that pyasn1 0.6 calls deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from ldap3.operation.abandon import abandon_operation
    from ldap3.operation.bind import bind_operation
    from ldap3.operation.compare import compare_operation
    from ldap3.operation.delete import delete_operation
    from ldap3.operation.extended import extended_operation
    from ldap3.operation.search import search_operation
    from ldap3.operation.unbind import unbind_operation
    from ldap3.protocol.controls import build_control
    from ldap3.protocol.rfc2696 import paged_search_control
    from ldap3.protocol.rfc4511 import Controls, MessageID, ProtocolOp
    from ldap3.protocol.rfc4511 import LDAPMessage as Ldap3Message
    from ldap3.utils.asn1 import encode as ldap3_encode
    from pyasn1.codec.ber.decoder import decode as pyasn1_decode

# --- an independent decoder: RFC 4511's module in asn1crypto's words ---------------------------------------------


class Ava(core.Sequence):  # type: ignore[misc]
    _fields = [("attribute", core.OctetString), ("value", core.OctetString)]  # noqa: RUF012


class Piece(core.Choice):  # type: ignore[misc]
    _alternatives = [  # noqa: RUF012
        ("initial", core.OctetString, {"implicit": 0}),
        ("any", core.OctetString, {"implicit": 1}),
        ("final", core.OctetString, {"implicit": 2}),
    ]


class Pieces(core.SequenceOf):  # type: ignore[misc]
    _child_spec = Piece


class SubstringFilter(core.Sequence):  # type: ignore[misc]
    _fields = [("attribute", core.OctetString), ("pieces", Pieces)]  # noqa: RUF012


class Rule(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("rule", core.OctetString, {"implicit": 1, "optional": True}),
        ("attribute", core.OctetString, {"implicit": 2, "optional": True}),
        ("value", core.OctetString, {"implicit": 3}),
        ("dn", core.Boolean, {"implicit": 4, "default": False}),
    ]


class AnyFilter(core.Choice):  # type: ignore[misc]
    _alternatives: list[Any] = []  # noqa: RUF012


class Filters(core.SetOf):  # type: ignore[misc]
    _child_spec = AnyFilter


AnyFilter._alternatives = [
    ("and", Filters, {"implicit": 0}),
    ("or", Filters, {"implicit": 1}),
    ("not", AnyFilter, {"explicit": 2}),
    ("equal", Ava, {"implicit": 3}),
    ("substrings", SubstringFilter, {"implicit": 4}),
    ("least", Ava, {"implicit": 5}),
    ("most", Ava, {"implicit": 6}),
    ("present", core.OctetString, {"implicit": 7}),
    ("approx", Ava, {"implicit": 8}),
    ("extensible", Rule, {"implicit": 9}),
]


class Names(core.SequenceOf):  # type: ignore[misc]
    _child_spec = core.OctetString


class TheirSearchRequest(core.Sequence):  # type: ignore[misc]
    _fields = [  # noqa: RUF012
        ("base", core.OctetString),
        ("scope", core.Enumerated, {}),
        ("deref", core.Enumerated, {}),
        ("size", core.Integer),
        ("time", core.Integer),
        ("types", core.Boolean),
        ("filter", AnyFilter),
        ("attributes", Names),
    ]


class Number(core.Enumerated):  # type: ignore[misc]
    _map = dict(enumerate(map(str, range(4))))  # noqa: RUF012


TheirSearchRequest._fields[1:3] = [("scope", Number), ("deref", Number)]


def as_ours(choice: Any) -> Filter:
    """A filter that asn1crypto has read."""
    kind, value = choice.name, choice.chosen
    if kind in ("and", "or"):
        return {"and": And, "or": Or}[kind](tuple(as_ours(part) for part in value))
    if kind == "not":
        return Not(as_ours(value))
    if kind == "present":
        return Present(value.native.decode("latin-1"))
    if kind == "substrings":
        pieces = [(p.name, p.chosen.native) for p in value["pieces"]]
        ends = dict(pieces)
        middle = tuple(v for n, v in pieces if n == "any")
        return Substrings(value["attribute"].native.decode("latin-1"), ends.get("initial"), middle, ends.get("final"))
    if kind == "extensible":
        rule, attribute = ((value[k].native or b"").decode("latin-1") for k in ("rule", "attribute"))
        return Extensible(rule, attribute, value["value"].native, value["dn"].native)
    assertion = {"equal": Equal, "least": AtLeast, "most": AtMost, "approx": Approx}[kind]
    return assertion(value["attribute"].native.decode("latin-1"), value["value"].native)


# --- what is generated -------------------------------------------------------------------------------------------

names = st.text("abcdefghijklmnopqrstuvwxyzABC;-.0123456789", min_size=1, max_size=12)
values = st.binary(max_size=40)
leaves = st.one_of(
    st.builds(Equal, names, values),
    st.builds(AtLeast, names, values),
    st.builds(AtMost, names, values),
    st.builds(Approx, names, values),
    st.builds(Present, names),
    st.builds(Extensible, names, names, values, st.booleans()),
    st.builds(Substrings, names, values, st.lists(values, max_size=3).map(tuple), st.none() | values),
    st.builds(Substrings, names, st.none(), st.lists(values, min_size=1, max_size=3).map(tuple), st.none() | values),
)
filters = st.recursive(
    leaves,
    lambda part: st.one_of(
        st.builds(And, st.lists(part, max_size=3).map(tuple)),
        st.builds(Or, st.lists(part, max_size=3).map(tuple)),
        st.builds(Not, part),
    ),
    max_leaves=12,
).filter(lambda f: depth(f) <= MAX_DEPTH)
searches = st.builds(
    SearchRequest,
    st.text(max_size=20).filter(lambda t: t.isprintable()),
    st.integers(0, 3),
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**31 - 1),
    st.booleans(),
    filters,
    st.lists(names, max_size=5).map(tuple),
)


def depth(filter_: Filter) -> int:
    match filter_:
        case And(parts) | Or(parts):
            return 1 + max(map(depth, parts), default=0)
        case Not(part):
            return 1 + depth(part)
    return 1


@given(searches, st.integers(1, 2**31 - 1))
@settings(max_examples=300, deadline=None)
def test_searches_read_as_an_independent_decoder_reads_them(search: SearchRequest, id_: int) -> None:
    octets = wire.envelope(id_, write_search(search))
    assert wire.decode(octets, 0, len(octets)) == Message(id_, search)
    body = write_search(search)
    theirs = TheirSearchRequest.load(b"\x30" + body[1:])
    assert theirs["base"].native.decode() == search.base
    assert (theirs["scope"].native, theirs["size"].native) == (str(search.scope), search.size_limit)
    assert (theirs["time"].native, theirs["types"].native) == (search.time_limit, search.types_only)
    assert tuple(n.decode() for n in theirs["attributes"].native) == search.attributes
    assert as_ours(theirs["filter"]) == search.filter


# --- ldap3's encoder ---------------------------------------------------------------------------------------------


def ldap3_request(operation: Any, kind: str, id_: int = 7, controls: Any = None) -> bytes:
    message = Ldap3Message()
    message["messageID"] = MessageID(id_)
    message["protocolOp"] = ProtocolOp().setComponentByName(kind, operation)
    if controls is not None:
        message["controls"] = controls
    return bytes(ldap3_encode(message))


@pytest.mark.parametrize(
    ("text", "filter_"),
    [
        ("(objectClass=*)", Present("objectClass")),
        ("(mail=a@b.example)", Equal("mail", b"a@b.example")),
        ("(cn=a\\2ab\\28c)", Equal("cn", b"a*b(c")),
        ("(pgpUserID=*a@b*)", Substrings("pgpUserID", None, (b"a@b",), None)),
        ("(cn=ab*cd*ef)", Substrings("cn", b"ab", (b"cd",), b"ef")),
        (
            "(&(gpgMailbox=a@b)(!(|(pgpRevoked=1)(pgpDisabled=1))))",
            And((Equal("gpgMailbox", b"a@b"), Not(Or((Equal("pgpRevoked", b"1"), Equal("pgpDisabled", b"1")))))),
        ),
        ("(modifyTimestamp>=20240101000000.0Z)", AtLeast("modifyTimestamp", b"20240101000000.0Z")),
        ("(a<=1)", AtMost("a", b"1")),
        ("(a~=1)", Approx("a", b"1")),
        ("(cn:dn:2.5.13.2:=x)", Extensible("2.5.13.2", "cn", b"x", True)),
    ],
)
def test_ldap3s_searches_are_read(text: str, filter_: Filter) -> None:
    request = search_operation(
        "dc=example,dc=org", text, "SUBTREE", "NEVER", ["cn", "mail;binary"], 5, 15, True, None, None, check_names=False
    )
    octets = ldap3_request(request, "searchRequest")
    search = SearchRequest("dc=example,dc=org", Scope.SUBTREE, 5, 15, True, filter_, ("cn", "mail;binary"))
    assert wire.decode(octets, 0, len(octets)) == Message(7, search)


def test_ldap3s_other_requests_are_read() -> None:
    def read(operation: Any, kind: str, controls: Any = None) -> Message:
        octets = ldap3_request(operation, kind, controls=controls)
        return wire.decode(octets, 0, len(octets))

    assert read(bind_operation(3, "ANONYMOUS", ""), "bindRequest").operation == wire.BindRequest(3, "", True)
    simple = read(bind_operation(3, "SIMPLE", "cn=a", "secret"), "bindRequest").operation
    assert simple == wire.BindRequest(3, "cn=a", True, b"secret")
    assert "secret" not in repr(simple)
    assert read(unbind_operation(), "unbindRequest").operation == wire.UnbindRequest()
    assert read(abandon_operation(300), "abandonRequest").operation == wire.AbandonRequest(300)
    assert read(extended_operation(wire.WHO_AM_I), "extendedReq").operation == wire.ExtendedRequest(wire.WHO_AM_I)
    assert read(delete_operation("cn=a"), "delRequest").operation == wire.Other(wire.DELETE)
    assert read(compare_operation("cn=a", "cn", "a", None, None), "compareRequest").operation == wire.Other(
        wire.COMPARE
    )
    controls = [paged_search_control(True, 10, b"xyz"), build_control("1.2.3", False, None)]
    held = Controls().setComponentByPosition(0, controls[0]).setComponentByPosition(1, controls[1])
    message = read(unbind_operation(), "unbindRequest", held)
    assert [c.oid for c in message.controls] == [wire.PAGED, "1.2.3"]
    assert [c.critical for c in message.controls] == [True, False]
    assert wire.read_page(message.controls[0]) == (10, b"xyz")


# --- ldap3's decoder ---------------------------------------------------------------------------------------------


def test_ldap3_reads_our_replies() -> None:
    def read(octets: bytes) -> dict[str, Any]:
        message, rest = pyasn1_decode(octets, asn1Spec=Ldap3Message())
        assert rest == b""
        return {"id": int(message["messageID"]), "op": message["protocolOp"].getComponent(), "message": message}

    entry = wire.entry(b"cn=a", wire.attribute(b"cn", (b"a", b"\xc3\xa4")) + wire.attribute(b"sn", ()))
    got = read(wire.envelope(300, entry))
    assert got["id"] == 300
    assert bytes(got["op"]["object"]) == b"cn=a"
    assert [bytes(a["type"]) for a in got["op"]["attributes"]] == [b"cn", b"sn"]
    assert [bytes(v) for v in got["op"]["attributes"][0]["vals"]] == [b"a", b"\xc3\xa4"]
    done = read(wire.envelope(2, wire.result(wire.DONE, 4, "too many"), (wire.page_control(70, b"abc"),)))
    assert int(done["op"]["resultCode"]) == 4
    assert bytes(done["op"]["diagnosticMessage"]) == b"too many"
    assert bytes(done["message"]["controls"][0]["controlType"]) == wire.PAGED.encode()
    notice = read(wire.notice(52, "goodbye"))
    assert notice["id"] == 0
    assert bytes(notice["op"]["responseName"]) == wire.NOTICE_OF_DISCONNECTION.encode()
    whoami = read(wire.envelope(1, wire.result(wire.EXTENDED_RESPONSE, 0, value=b"")))
    assert bytes(whoami["op"]["responseValue"]) == b""


# --- limits and malice -------------------------------------------------------------------------------------------


def nested(levels: int, leaf: bytes = b"\x87\x01a") -> bytes:
    octets = leaf
    for _ in range(levels):
        octets = element(0xA2, octets)
    return octets


def search_with(filter_octets: bytes) -> bytes:
    head = element(4, b"") + number(2, 10) + number(0, 10) + number(0) + number(0) + b"\x01\x01\x00"
    return wire.envelope(5, element(wire.SEARCH, head + filter_octets + element(0x30, b"")))


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (search_with(nested(MAX_DEPTH)), "deeper"),
        (search_with(nested(5000)), "deeper"),
        (search_with(element(0xA1, b"\x87\x01a" * MAX_NODES)), "parts"),
        (search_with(element(0xA1, element(0xA0) * 20000)), "parts"),
        (search_with(write_filter(Equal("cn", b"x" * 1025))), "1024"),
        (search_with(write_filter(Substrings("cn", None, (b"x",) * 17, None))), "pieces"),
        (wire.envelope(5, write_search(SearchRequest("", 2, 0, 0, False, Present("a"), ("x",) * 101))), "attributes"),
        (wire.envelope(5, write_search(SearchRequest("x" * 1025, 2, 0, 0, False, Present("a"), ()))), "base"),
        (wire.envelope(5, write_bind(), (Control("1.2"),) * 17), "controls"),
    ],
)
def test_what_is_over_a_limit_is_refused_by_its_own_result(octets: bytes, why: str) -> None:
    assert len(octets) <= 1 << 18
    message = wire.decode(octets, 0, len(octets))
    assert message.id == 5
    assert isinstance(message.operation, wire.Excess)
    assert why in message.operation.reason


def test_the_deepest_and_widest_filter_is_read() -> None:
    deep = search_with(nested(MAX_DEPTH - 1))
    assert isinstance(wire.decode(deep, 0, len(deep)).operation, SearchRequest)
    wide = search_with(element(0xA1, b"\x87\x01a" * (MAX_NODES - 1)))
    assert isinstance(wire.decode(wide, 0, len(wide)).operation, SearchRequest)


HOSTILE = {
    "no ID": b"\x30\x00",
    "ID 0": wire.envelope(0, write_bind()),
    "negative ID": b"\x30\x05\x02\x01\xff\x42\x00",
    "long ID": b"\x30\x09\x02\x05\x01\x00\x00\x00\x00\x42\x00",
    "no operation": b"\x30\x03\x02\x01\x01",
    "a response": wire.envelope(1, wire.result(wire.DONE, 0)),
    "unknown tag": b"\x30\x05\x02\x01\x01\x7e\x00",
    "empty search": b"\x30\x05\x02\x01\x01\x63\x00",
    "unknown filter": search_with(b"\xaf\x01\x00"),
    "no filter": search_with(b""),
    "empty not": search_with(b"\xa2\x00"),
    "pieces out of order": search_with(element(0xA4, element(4, b"cn"), element(0x30, b"\x82\x01a\x80\x01b"))),
    "two initials": search_with(element(0xA4, element(4, b"cn"), element(0x30, b"\x80\x01a\x80\x01b"))),
    "no pieces": search_with(element(0xA4, element(4, b"cn"), element(0x30, b""))),
    "extensible without value": search_with(element(0xA9, b"\x82\x02cn")),
    "long dn flag": search_with(element(0xA9, b"\x83\x01x\x84\x02\x01\x01")),
    "claims inside": search_with(b"\xa0\x84\x7f\xff\xff\xff\x00"),
    "indefinite inside": search_with(b"\xa0\x80\x87\x01a\x00\x00"),
    "constructed octets": search_with(b"\xa3\x08\x24\x03\x04\x01a\x04\x01b"),
    "abandon nothing": b"\x30\x05\x02\x01\x01\x50\x00",
    "control without OID": b"\x30\x09\x02\x01\x01\x42\x00\xa0\x02\x30\x00",
    "long integer": b"\x30\x82\x80\x07\x02\x82\x80\x03" + b"\x01" * 0x8003,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_are_malformed_and_nothing_else(name: str) -> None:
    octets = HOSTILE[name]
    began = time.perf_counter()
    with pytest.raises(Malformed):
        wire.decode(octets, 0, len(octets))
    assert time.perf_counter() - began < 0.05


SEEDS = [
    *(o for o in HOSTILE.values() if len(o) < 400),
    wire.envelope(1, write_bind(3, "cn=a", b"secret")),
    wire.envelope(2, write_extended(wire.START_TLS)),
    wire.envelope(
        3,
        write_search(
            SearchRequest(
                "ou=PGP Keys,dc=keyserver,dc=local",
                2,
                0,
                15,
                False,
                And(
                    (Or((Equal("gpgFingerprint", b"A" * 40), Substrings("cn", b"a", (b"b",), b"c"))), Not(Present("x")))
                ),
                ("pgpKey", "pgpcertid"),
            )
        ),
        (wire.page_control(10, b"", critical=True),),
    ),
]


@given(searches, searches)
@settings(max_examples=200, deadline=None)
def test_the_outline_is_what_a_search_means(one: SearchRequest, other: SearchRequest) -> None:
    octets = write_search(one)
    outline = wire.outline(octets)
    assert outline is not None
    assert wire.read_place(outline.where) == (one.base, one.scope)
    assert read_filter(outline.filter, 0, len(outline.filter)) == (one.filter, len(outline.filter))
    assert wire.read_attributes(outline.attributes, 0, len(outline.attributes)) == one.attributes
    assert (outline.size_limit, outline.types_only) == (one.size_limit, one.types_only)
    later = replace(one, time_limit=other.time_limit)
    assert wire.outline(write_search(later)) == outline
    assert wire.outline(octets + b"\xa0\x00") is None  # controls: an answer may depend on them


@given(searches, st.data())
@settings(max_examples=300, deadline=None)
def test_an_outline_of_a_mutation_means_what_decoding_says(search: SearchRequest, data: st.DataObject) -> None:
    octets = bytearray(write_search(search))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del octets[data.draw(st.integers(0, len(octets) - 1)) :]
    outline = wire.outline(bytes(octets))
    if outline is None:
        return
    message = element(0x30, number(1), bytes(octets))
    try:
        place, (filter_, end) = wire.read_place(outline.where), read_filter(outline.filter, 0, len(outline.filter))
        attributes = wire.read_attributes(outline.attributes, 0, len(outline.attributes))
    except Malformed:
        try:
            assert isinstance(wire.decode(message, 0, len(message)).operation, wire.Excess)
        except Malformed:
            return
        return
    decoded = wire.decode(message, 0, len(message)).operation
    assert isinstance(decoded, SearchRequest)
    assert (decoded.base, decoded.scope, decoded.filter, decoded.attributes) == (*place, filter_, attributes)
    assert (decoded.size_limit, decoded.types_only, end) == (
        outline.size_limit, outline.types_only, len(outline.filter)
    )  # fmt: skip


@given(st.sampled_from(SEEDS), st.data())
@settings(max_examples=600, deadline=None)
def test_mutations_give_a_message_or_malformed(seed: bytes, data: st.DataObject) -> None:
    octets = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(octets) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                octets[at] = data.draw(st.integers(0, 255))
            case 1:
                octets[at:at] = data.draw(st.binary(max_size=6))
            case 2 if len(octets) > 2:
                del octets[at]
    mutated = bytes(octets)
    try:
        message = wire.decode(mutated, 0, len(mutated))
    except Malformed:
        return
    assert 1 <= message.id < 2**31
    if isinstance(message.operation, SearchRequest):
        again = write_search(message.operation)
        octets_again = wire.envelope(message.id, again)
        assert wire.decode(octets_again, 0, len(octets_again)).operation == message.operation


def test_the_largest_message_takes_no_time() -> None:
    wide = search_with(element(0xA1, *(write_filter(Equal("cn", b"x" * 500)) for _ in range(MAX_NODES - 1))))
    began = time.perf_counter()
    wire.decode(wide, 0, len(wide))
    assert time.perf_counter() - began < 0.05
