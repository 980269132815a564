"""LDAP: requests of clients, distinguished names, messages of hostile directories, filters made of search terms."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

from fuzz import mutators
from fuzz.target import NOW, Target, at_any_cut, joined, parts, unless_malformed
from keyserver.faces.ldap.cover import cover, cover_text
from keyserver.faces.ldap.entries import Node, certificate_nodes
from keyserver.faces.ldap.match import ANR, MatchBudget, TooCostly, compile_filter
from keyserver.model import Kind, Malformed, Proof
from keyserver.openpgp.armor import armor
from keyserver.query import BadQuery, ByAddress, ByFingerprint, ByText, Query, parse
from keyserver.upstreams.ldap.guard import Guard, GuardError, check_message, frame, page_cookie, read_controls
from keyserver.upstreams.ldap.kinds import (
    MAX_CONTEXTS,
    MAX_DN,
    MAX_VALUES,
    Style,
    discover,
    openpgp_filter,
    openpgp_values,
    parent,
    x509_filter,
    x509_values,
)
from keyserver.upstreams.ldap.link import LdapResult, valid_filter
from keyserver.wire import ldap
from keyserver.wire.ber import measure
from keyserver.wire.dn import BadDn, parse_dn
from keyserver.wire.ldap_filter import (
    And,
    Approx,
    AtLeast,
    Equal,
    Extensible,
    Filter,
    Not,
    Or,
    Present,
    Substrings,
    read_filter,
)
from keyserver.wire.ldap_text import prepare
from support.ldap_memory import Memory
from support.ldap_messages import gpg_get, write_bind, write_extended, write_filter, write_search
from support.openpgp import make
from support.x509 import authority, person

ADDRESS = "alice@example.org"
ATTRIBUTES = (
    *(
        b"mail",
        b"cn",
        b"sn",
        b"uid",
        b"anr",
        b"proxyAddresses",
        b"pgpUserID",
        b"pgpCertID",
        b"pgpKeyID",
        b"pgpSubKeyID",
    ),
    *(b"gpgFingerprint", b"gpgMailbox", b"gpgSubFingerprint", b"pgpKeyCreateTime", b"objectClass", b"userCertificate"),
    *(b"alice@example.org", b"Alice", b"smtp:", b"SMTP:alice@example.org", b"<alice@example.org>", b"%2a", b"\\2a"),
    *(b"2.5.13.2", b"caseExactMatch", b"1.2.840.113556.1.4.803", b"pgpDisabled", b"pgpRevoked", b"displayName"),
)
SEARCHES = (
    gpg_get("A" * 40, "dc=keyserver,dc=local"),
    ldap.SearchRequest("", 0, 0, 0, True, Present("objectClass"), ("*", "+")),
    ldap.SearchRequest(
        "o=x",
        2,
        10,
        5,
        False,
        And((Not(Approx("cn", b"x")), Or((Equal("mail", b"a@b.c"), Substrings("cn", b"a", (b"b",), b"c"))))),
        (),
    ),
)


def read_request(octets: bytes) -> None:
    """A request is decoded or refused, and where its outline is known by lengths alone both say the same."""
    end = unless_malformed(lambda: measure(octets, 0, ldap.MAX_MESSAGE))
    if end is None or end > len(octets):
        return
    split = unless_malformed(lambda: ldap.split(octets, 0, end))
    message = unless_malformed(lambda: ldap.decode(octets, 0, end))
    if message is None or split is None:
        return
    for control in message.controls:
        unless_malformed(lambda control=control: ldap.read_page(control))  # type: ignore[misc]
    outline = ldap.outline(octets[split[1] : end])
    if outline is not None and isinstance(message.operation, ldap.SearchRequest):
        said = message.operation
        assert (outline.size_limit, outline.types_only) == (said.size_limit, said.types_only)
        assert ldap.read_place(outline.where) == (said.base, said.scope)


@cache
def held() -> tuple[tuple[Node, Proof], ...]:
    """Entries of both kinds, and what their certificates prove."""
    memory = Memory(make(["Alice <alice@example.org>"], seed="fuzz").octets, person(ADDRESS, authority()).der, now=NOW)
    found = []
    for answered in memory.held:
        proof = answered.certificate.proof
        for query in (ByFingerprint(proof.fingerprint, proof.kind), ByAddress("alice", "example.org", proof.kind)):
            found += [
                (node, proof) for node in certificate_nodes(query, (answered,), f"o={proof.kind}", "cn=Subschema")
            ]
    assert len(found) >= 4
    return tuple(found)


def match_filter(octets: bytes) -> None:
    """Whatever a filter is true of, one of the lookups that are made for it finds; and `not` is not for none.

    A piece of a value that is a whole address is looked for as that address alone (`cover`), whatever it begins."""
    filter_ = unless_malformed(lambda: read_filter(octets, 0, len(octets))[0])
    if filter_ is None:
        return
    exact, free = cover(filter_), cover_text(filter_)
    budget = MatchBudget()
    test, opposite = compile_filter(filter_, budget), compile_filter(Not(filter_), budget)
    for node, proof in held():
        budget.renew()
        with contextlib.suppress(TooCostly):
            said = test(node)
            assert opposite(node) is (None if said is None else not said)
            if said and not _has_part_of_address(filter_):
                assert exact is None or any(query.name in proof.names for query in exact), exact
                assert free is None or any(_finds(query, proof) for query in free), free


def _has_part_of_address(filter_: Filter) -> bool:
    match filter_:
        case And(parts) | Or(parts):
            return any(map(_has_part_of_address, parts))
        case Not(part):
            return _has_part_of_address(part)
        case Substrings(_, initial, middle, final):
            return any(map(_has_at, (initial or b"", *middle, final or b"")))
        case Equal(name, value):
            return name.lower() in ANR and _has_at(value)
    return False


def _has_at(value: bytes) -> bool:
    return "@" in prepare(value.decode("utf-8", "replace"))


def _finds(query: Query, proof: Proof) -> bool:
    if not isinstance(query, ByText):
        return query.name in proof.names
    texts = [user_id.text for user_id in proof.user_ids] + ([proof.x509.common_name] if proof.x509 else [])
    return query.kind is proof.kind and any(query.text in prepare(text) for text in texts)


def read_name(octets: bytes) -> None:
    """A distinguished name."""
    with contextlib.suppress(BadDn):
        parse_dn(octets.decode("utf-8", "surrogateescape"))


def read_reply(octets: bytes) -> None:
    """What a directory sends, checked before a library sees it."""
    with contextlib.suppress(Malformed, GuardError):
        bounds = frame(bytearray(octets), 1 << 16)
        if bounds is not None:
            start, end = bounds
            check_message(octets[:end], start, 1000)
            for value in read_controls(octets[:end], start).values():
                unless_malformed(lambda value=value: page_cookie(value))  # type: ignore[misc]


class _Told:
    """A socket on which all that a directory says has come, in some pieces."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def recv(self, _size: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def settimeout(self, _seconds: float) -> None:
        """Nobody waits here."""

    def dup(self) -> _Told:
        return self

    def close(self) -> None:
        """Nothing is open."""


def guard_link(octets: bytes) -> None:
    """The same messages reach the library, and the same trouble ends them, however they come; all within the cap."""
    cap = 1024

    def heard(pieces: Sequence[bytes]) -> tuple[list[bytes], object, bool, dict[str, bytes]]:
        told: Any = _Told(pieces)
        guard = Guard(told, lambda: 0.0)
        guard.arm(10, cap)
        guard.expect(2)
        found: list[bytes] = []
        with contextlib.suppress(GuardError):
            while True:
                found.append(guard.recv(0))
        assert guard.trouble is not None and sum(map(len, found)) <= cap + 8 * len(found)
        return found, guard.trouble, guard.truncated, guard.controls

    if len(octets) - 2 <= cap:
        at_any_cut(octets, heard)


def read_values(octets: bytes) -> None:
    """What stands in a directory's entries: bounded, of the kind that was looked for, and a place inside it."""
    fields, _ = parts(octets, 6)
    named = [(fields[at].decode("latin-1").lower(), fields[at + 1]) for at in (0, 2, 4)]
    reply = LdapResult(0, tuple({name: [value]} for name, value in named))
    for found, kind in ((openpgp_values([reply]), Kind.OPENPGP), (x509_values([reply]), Kind.X509)):
        assert len(found.raw) + len(found.damaged) <= MAX_VALUES + 16
        assert all(raw.kind is kind and raw.octets for raw in found.raw)
    base = named[0][1].decode("utf-8", "replace")
    above = parent(base)
    assert base.rstrip().endswith(above) and (not base or len(above) < len(base))
    directory = discover(lambda *_, **__: LdapResult(0, ({name: [value] for name, value in named},)), base)
    assert len(directory.contexts) <= MAX_CONTEXTS and len(directory.keyspace) <= MAX_DN
    assert (directory.style is Style.NONE) == (not directory.keyspace)


def make_filters(octets: bytes) -> None:
    """Every search term that is accepted makes filters that the library reads, in which nothing of it acts."""
    term = octets.decode("utf-8", "surrogateescape")
    for kind in Kind:
        try:
            query = parse(term, kind)
        except BadQuery:
            continue
        for style in Style:
            made = openpgp_filter(query, style)
            assert made is None or (made.isascii() and valid_filter(made)), made
        if isinstance(query, ByAddress):
            assert valid_filter(x509_filter(query, "(|(mail={address})(uid={local}))", False))


def requests() -> Iterator[bytes]:
    """Searches, binds, extended operations, with and without controls."""
    operations = [*map(write_search, SEARCHES), write_bind(3, "cn=x", b"secret"), write_extended(ldap.START_TLS)]
    controls = (ldap.page_control(5, b"cookie", critical=True),)
    for operation in [*operations, ldap.GOODBYE]:
        yield ldap.envelope(7, operation)
        yield ldap.envelope(1 << 20, operation, controls)


def filters() -> Iterator[bytes]:
    """What clients ask by."""
    for search in (*SEARCHES, gpg_get("alice@example.org", "")):
        yield write_filter(search.filter)
    for name, value in (("mail", b"alice@example.org"), ("pgpUserID", b"*<alice@example.org>*"), ("anr", b"ali")):
        yield write_filter(Equal(name, value))
        yield write_filter(Or((Substrings(name, value, (), None), Not(Present(name)))))
    yield write_filter(And((Extensible("caseExactMatch", "cn", b"alice", True), AtLeast("pgpKeyCreateTime", b"2"))))
    yield write_filter(Extensible("", "", b"alice@example.org", False))


def names() -> Iterable[bytes]:
    """Names as RFC 4514 and older programs write them."""
    return [b"cn=Alice+uid=a,ou=x\\,y,dc=example,dc=org", b'o="a; b";c=#0c0141', b"2.5.4.3=\\e4\\c3\\a4", b""]


def replies() -> Iterator[bytes]:
    """Entries, results, controls."""
    attributes = ldap.attribute(b"pgpKey", (b"x", b"y")) + ldap.attribute(b"cn", ())
    yield ldap.envelope(1, ldap.entry(b"cn=x", attributes))
    yield ldap.envelope(1, ldap.result(ldap.DONE, 0), (ldap.page_control(0, b"more"),))
    yield ldap.notice(2, "goodbye")


def sessions() -> Iterator[bytes]:
    """Answers behind each other."""
    several = list(replies())
    yield from (b"\0\x11" + b"".join(some) for some in (several, several[::-1], [several[0]] * 4 + several[1:]))


def values() -> Iterable[bytes]:
    """Attributes by name and value, three of them."""
    octets, der = make(seed="fuzz").octets, person(ADDRESS, authority()).der
    info = joined(b"pgpBaseKeySpaceDN", b"ou=x,dc=y", b"pgpVersion", b"2", b"pgpSoftware", b"GnuPG")
    contexts = joined(
        b"namingContexts", b"dc=a\\,b,dc=c", b"supportedCapabilities", b"1.2.840.113556.1.4.800", b"", b""
    )
    keys = joined(b"pgpKey", armor(octets), b"pgpKeyV2", octets, b"userCertificate;binary", der)
    return [info, contexts, keys, joined(b"userSMIMECertificate", b"\0\1", b"pgpKey", b"x", b"baseKeySpaceDN", b"ou=x")]


def terms() -> Iterable[bytes]:
    """What people look for."""
    words = ("alice@example.org", "0x" + "A" * 40, "Alice (x) <a*b@exämple.org>", "openpgp4fpr:" + "b" * 40, "a)(cn=*")
    return [word.encode() for word in words]


TARGETS = {
    "ldap-request": Target(read_request, requests, mutate=mutators.elements),
    "ldap-match": Target(match_filter, filters, 1024, mutators.elements, ATTRIBUTES),
    "ldap-dn": Target(read_name, names, 1100),
    "ldap-reply": Target(read_reply, replies, mutate=mutators.elements),
    "ldap-guard": Target(guard_link, sessions, 1026, mutators.behind_a_cut(mutators.elements)),
    "ldap-values": Target(read_values, values, words=ATTRIBUTES),
    "ldap-filter": Target(make_filters, terms, 512),
}
