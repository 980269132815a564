"""The tree: DNs, what a search needs looked up, what entries look like, what a filter says of them."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from keyserver.faces.ldap.cover import cover, cover_text
from keyserver.faces.ldap.entries import Node, select
from keyserver.faces.ldap.match import MatchBudget, TooCostly, compile_filter
from keyserver.faces.ldap.schema import KNOWN, Rule, attribute_types, find, normal
from keyserver.faces.ldap.tree import CLASSIC, MAX_REPLY, Refusal, SearchPlan, Space, Tree, Wanted, choose, write
from keyserver.model import Answer, How, Kind, State
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText, Query
from keyserver.wire.dn import BadDn, parse_dn
from keyserver.wire.ldap import Code, SearchRequest
from keyserver.wire.ldap_filter import And, Approx, AtLeast, Equal, Extensible, Filter, Not, Or, Present, Substrings
from support.ldap_memory import BASE, Memory
from support.openpgp import make
from support.x509 import name, person

KEYS, PEOPLE = f"ou=PGP Keys,{BASE}", f"ou=People,{BASE}"
FPR = "0123456789ABCDEF0123456789ABCDEF01234567"
ANY = Present("objectClass")


def tree(**options: bool) -> Tree:
    return Tree(BASE, **{"start_tls": False, "text_search": lambda: False, **options})


def plan(
    base: str, filter_: Filter = ANY, scope: int = 2, *, of: Tree | None = None, **more: object
) -> SearchPlan | Refusal:
    fields = {"size_limit": 0, "time_limit": 0, "types_only": False, "attributes": (), **more}
    return (of or tree()).plan(SearchRequest(base=base, scope=scope, filter=filter_, **fields))  # type: ignore[arg-type]


def queries(base: str, filter_: Filter, scope: int = 2) -> list[Query]:
    made = plan(base, filter_, scope)
    assert isinstance(made, SearchPlan), made
    return [wanted.query for wanted in made.sense.wanted]


def by(address: str, kind: Kind = Kind.OPENPGP) -> ByAddress:
    local, domain = address.split("@")
    return ByAddress(local, domain, kind)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dc=keyserver,dc=local", "DC=Keyserver , dc = LOCAL"),
        ("OU=ACTIVE,O=PGP KEYSPACE,C=US", 'ou="Active";o=pgp  keyspace;c=us'),
        ("cn=a\\,b,dc=x", "cn=a\\2cb,dc=x"),
        ("cn=a+uid=b", "uid=b+CN=A"),
        ("2.5.4.3=a", "cn=a"),
        ("cn=\\20a\\20", "cn=a"),
        ("", "  "),
        ("ou=People", "2.5.4.11=#0c0650656f706c65"),
        ("ou=People,dc=x", "OID.2.5.4.11=#130650656F706C65 , dc=x"),
        ("ou=People", "ou=\uff30eo\u00adple"),
        ("ou=caf\u00e9", "ou=CAFE\u0301"),
        ("ou=a b", "ou= a \u3000 b "),
    ],
)
def test_names_that_are_equal(one: str, other: str) -> None:
    assert parse_dn(one) == parse_dn(other)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a",
            "=a",
            "cn=a,",
            "cn=a,b",
            'cn="a',
            'cn="a"b',
            "cn=a\\",
            "cn=a\\zz",
            "cn=\\ff",
            "c n=a",
            "cn=<a",
            "x" * 1025,
        ),
        *("cn=#", "cn=#0", "cn=#zz", "cn=#0c05ff", "cn=#0c01ff", "cn=#3000", "cn=#0c0141x", "cn=#0c0141,"),
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(BadDn):
        parse_dn(text)


def test_escaped_ends_stay() -> None:
    assert parse_dn("cn=a\\ ,dc=x") == parse_dn("cn=a,dc=x")  # insignificant when compared (RFC 4518)
    assert parse_dn(",".join(["cn=a"] * 32))
    with pytest.raises(BadDn, match="32"):
        parse_dn(",".join(["cn=a"] * 33))


# --- what is looked up -------------------------------------------------------------------------------------------


_PERSON = (Equal("objectCategory", b"person"), Equal("objectClass", b"user"))
_ENABLED = Not(Extensible("1.2.840.113556.1.4.803", "userAccountControl", b"2", False))
ACTIVE_DIRECTORY: list[Filter] = [
    # gateways and address books beside Active Directory, as their manuals give them
    And((Equal("objectClass", b"user"), Equal("mail", b"a@b.org"))),
    And((Equal("objectClass", b"user"), Equal("proxyAddresses", b"smtp:a@b.org"))),
    And((*_PERSON, Or((Equal("mail", b"a@b.org"), Equal("proxyAddresses", b"SMTP:A@b.org"))))),
    And((*_PERSON, _ENABLED, Substrings("proxyAddresses", b"smtp:a@b.org", (), None))),
    And((Equal("objectCategory", b"CN=Person,CN=Schema,CN=Configuration,DC=b,DC=org"), Equal("email", b"a@b.org"))),
    And((Equal("objectCategory", b"user"), Substrings("proxyAddresses", None, (), b":a@b.org"))),
    And((Equal("objectClass", b"user"), Equal("userPrincipalName", b"a@b.org"), _ENABLED)),
    Or((Equal("otherMailbox", b"a@b.org"), Equal("targetAddress", b"SMTP:a@b.org"))),
    Or(tuple(Equal("proxyAddresses", prefix + b"a@b.org") for prefix in (b"smtp:", b"SMTP:", b"sip:", b"x500:"))),
    Or((Equal("mailAlternateAddress", b"a@b.org"), Equal("mailLocalAddress", b"a@b.org"))),
    And((Present("mailNickname"), Equal("mail", b"a@b.org"))),
    And((Equal("1.2.840.113556.1.2.210", b"smtp:a@b.org"), Not(Equal("msExchHideFromAddressLists", b"TRUE")))),
]


@pytest.mark.parametrize(
    ("filter_", "wanted"),
    [
        # GnuPG
        (Or((Equal("gpgFingerprint", FPR.encode()), Equal("gpgSubFingerprint", FPR.encode()))), [ByFingerprint(FPR)]),
        (Equal("gpgfingerprint", b"0x" + FPR.lower().encode()), [ByFingerprint(FPR)]),
        (Equal("pgpCertID", b"0123456789abcdef"), [ByKeyId("0123456789ABCDEF")]),
        (Equal("pgpSubKeyID", b"0123456789ABCDEF"), [ByKeyId("0123456789ABCDEF")]),
        (Equal("gpgMailbox", b"A@Example.org"), [by("a@example.org")]),
        (
            And((Equal("gpgMailbox", b"a@b.org"), Not(Or((Equal("pgpRevoked", b"1"), Equal("pgpDisabled", b"1")))))),
            [by("a@b.org")],
        ),
        (Substrings("pgpUserID", None, (b"a@b.org",), None), [by("a@b.org")]),
        (Substrings("pgpUserID", None, (b"<a@b.org>",), None), [by("a@b.org")]),
        (Equal("pgpUserID", b"Ann <a@b.org>"), [by("a@b.org")]),
        (Equal("gpgMailbox", b"a%2ab@c.org"), [by("a%2ab@c.org"), by("a*b@c.org")]),
        # PGP SDK
        (And((Substrings("pgpUserID", None, (b"<a@b.org>",), None), Equal("pgpDisabled", b"0"))), [by("a@b.org")]),
        # Thunderbird, two addresses
        (
            And((Present("mail"), Or((Equal("mail", b"a@b.org"), Equal("mail", b"c@d.org"))))),
            [by("a@b.org", Kind.X509), by("c@d.org", Kind.X509)],
        ),
        (Or(tuple(Substrings(n, b"a@b.org", (), None) for n in ("cn", "mail", "sn"))), [by("a@b.org", Kind.X509)]),
        (
            Or(tuple(Substrings(n, None, (b"a@b.org",), None) for n in ("cn", "givenName", "sn", "title", "mail"))),
            [by("a@b.org", Kind.X509)],
        ),
        # Outlook
        (
            And(
                (
                    Present("mail"),
                    Or(
                        (
                            Substrings("mail", b"a@b.org", (), None),
                            Or(
                                (
                                    Substrings("cn", b"a@b.org", (), None),
                                    Or(
                                        (
                                            Substrings("sn", b"a@b.org", (), None),
                                            Substrings("givenName", b"a@b.org", (), None),
                                        )
                                    ),
                                )
                            ),
                        )
                    ),
                )
            ),
            [by("a@b.org", Kind.X509)],
        ),
        # gpgsm
        (
            Or(
                (
                    Substrings("sn", None, (b"a@b.org",), None),
                    Or((Substrings("cn", None, (b"a@b.org",), None), Substrings("mail", None, (b"a@b.org",), None))),
                )
            ),
            [by("a@b.org", Kind.X509)],
        ),
        # KDE
        (
            And(
                (
                    Or((Equal("objectclass", b"person"), Equal("objectclass", b"groupOfNames"), Present("mail"))),
                    Or(tuple(Substrings(n, b"a@b.org", (), None) for n in ("cn", "mail", "givenName", "sn"))),
                )
            ),
            [by("a@b.org", Kind.X509)],
        ),
        # Active Directory's clients
        (Or((Equal("mail", b"a@b.org"), Equal("proxyAddresses", b"smtp:a@b.org"))), [by("a@b.org", Kind.X509)]),
        *((filter_, [by("a@b.org", Kind.X509)]) for filter_ in ACTIVE_DIRECTORY),
        (Equal("anr", b"a@b.org"), [by("a@b.org", Kind.X509)]),
        # both kinds
        (Or((Equal("mail", b"a@b.org"), Equal("gpgMailbox", b"a@b.org"))), [by("a@b.org"), by("a@b.org", Kind.X509)]),
        (Approx("mail", b"a@b.org"), [by("a@b.org", Kind.X509)]),
        # nothing can match
        (Equal("noSuchAttribute", b"x"), []),
        (Not(Equal("noSuchAttribute", b"x")), []),
        (Equal("title", b"Boss"), []),
        (Equal("pgpCertID", b"12345678"), []),
        (Equal("mail", b"nobody"), []),
        (Or(()), []),
        (Extensible("", "mail", b"a@b.org", False), [by("a@b.org", Kind.X509)]),
        (Extensible("2.5.13.2", "mail", b"A@B.org", True), [by("a@b.org", Kind.X509)]),
        (Extensible("caseIgnoreMatch", "", b"a@b.org", False), [by("a@b.org"), by("a@b.org", Kind.X509)]),
        (Extensible("2.5.13.2", "", FPR.encode(), False), [ByFingerprint(FPR)]),
        (Extensible("1.2.3.4", "mail", b"a@b.org", False), []),
        (Extensible("", "", b"a@b.org", False), []),
        (Extensible("2.5.13.2", "title", b"Boss", False), []),
        (And((Extensible("", "ou", b"People", True), Equal("mail", b"a@b.org"))), [by("a@b.org", Kind.X509)]),
        # names in other Unicode forms: as they are, and as they are compared
        (Equal("gpgMailbox", "\uff41@b.org".encode()), [by("a@b.org"), by("\uff41@b.org")]),
        (Equal("pgpKey", b"x"), []),
        # double negation
        (Not(Not(Equal("mail", b"a@b.org"))), [by("a@b.org", Kind.X509)]),
    ],
)
def test_the_exact_terms_of_a_filter_are_looked_up(filter_: Filter, wanted: list[Query]) -> None:
    assert queries(BASE, filter_) == wanted


@pytest.mark.parametrize(
    "filter_",
    [
        ANY,
        And(()),
        Present("cn"),
        Present("mail"),
        Not(Equal("mail", b"a@b.org")),
        Not(Or((Equal("pgpRevoked", b"1"), Equal("pgpDisabled", b"1")))),
        Substrings("mail", b"alice", (), None),
        Substrings("pgpUserID", None, (b"alice",), None),
        Substrings("gpgMailbox", None, (b"@b.org",), None),
        Or((Equal("mail", b"a@b.org"), Present("cn"))),
        Equal("cn", b"Alice"),
        Equal("pgpKeyID", b"01234567"),
        AtLeast("modifyTimestamp", b"20240101000000.0Z"),
        Substrings("uid", None, (b"A",), None),
        Equal("anr", b"alice"),
        Equal("objectCategory", b"person"),
        Extensible("", "cn", b"Alice", False),
        Extensible("", "ou", b"People", True),
        Extensible("2.5.13.2", "", b"Alice", False),
        Extensible("2.5.13.2", "uid", b"keys", True),
        Not(Extensible("", "mail", b"a@b.org", False)),
    ],
)
def test_a_filter_without_an_exact_term_lists_nobody(filter_: Filter) -> None:
    made = plan(BASE, filter_)
    assert isinstance(made, Refusal)
    assert made.code is Code.UNWILLING
    assert "address" in made.text


def test_text_search_looks_for_the_text() -> None:
    free = Or((Substrings("cn", b"Ali", (), None), Substrings("pgpUserID", None, (b"Ali",), None)))
    made = plan(BASE, free, of=tree(text_search=lambda: True))
    assert isinstance(made, SearchPlan)
    assert [w.query for w in made.sense.wanted] == [ByText("ali"), ByText("ali", Kind.X509)]
    made = plan(PEOPLE, Present("cn"), of=tree(text_search=lambda: True))
    assert isinstance(made, SearchPlan)
    assert [w.query for w in made.sense.wanted] == [ByText("", Kind.X509)]
    for named in (Equal("anr", b"Ali"), Extensible("", "cn", b"Ali", False), Substrings("mail", b"Ali", (), None)):
        made = plan(BASE, named, of=tree(text_search=lambda: True))
        assert isinstance(made, SearchPlan)
        assert [w.query for w in made.sense.wanted] == [ByText("ali", Kind.X509)]
    proxied = plan(BASE, Substrings("proxyAddresses", b"SMTP:Ali", (), None), of=tree(text_search=lambda: True))
    assert isinstance(proxied, SearchPlan)
    assert [w.query for w in proxied.sense.wanted] == [ByText("ali", Kind.X509)]
    assert cover(free) is None
    assert cover_text(Present("cn")) is None


def test_too_many_terms_are_refused() -> None:
    made = plan(BASE, Or(tuple(Equal("mail", b"u%d@b.org" % n) for n in range(17))))
    assert isinstance(made, Refusal)
    assert made.code is Code.ADMIN_LIMIT
    assert len(queries(BASE, Or(tuple(Equal("mail", b"u%d@b.org" % n) for n in range(16))))) == 16


@pytest.mark.parametrize(
    ("base", "scope", "found"),
    [
        (BASE, 2, [by("a@b.org"), by("a@b.org", Kind.X509)]),
        ("", 2, [by("a@b.org"), by("a@b.org", Kind.X509)]),
        (KEYS.upper(), 2, [by("a@b.org")]),
        (KEYS, 1, [by("a@b.org")]),
        (PEOPLE, 3, [by("a@b.org", Kind.X509)]),
        (BASE, 1, []),
        (KEYS, 0, []),
        (CLASSIC, 2, [by("a@b.org")]),
        ("O=PGP KEYSPACE, C=US", 2, [by("a@b.org")]),
        (f"gpgFingerprint={FPR},{KEYS}", 0, [ByFingerprint(FPR)]),
        (f"gpgFingerprint={FPR},{CLASSIC}", 2, [ByFingerprint(FPR)]),
        (f"uid={'A' * 64},{PEOPLE}", 0, [ByFingerprint("A" * 64, Kind.X509)]),
        (f"gpgFingerprint={FPR},{KEYS}", 1, []),
        (f"1.3.6.1.4.1.11591.2.4.1.1={FPR},2.5.4.11=pgp keys,{BASE}", 0, [ByFingerprint(FPR)]),
        (f"userid={'A' * 64},organizationalUnitName=#0c0650656f706c65,{BASE}", 0, [ByFingerprint("A" * 64, Kind.X509)]),
        (f"gpgFingerprint={FPR.replace('A', chr(0xFF21))},{KEYS}", 0, [ByFingerprint(FPR)]),
    ],
)
def test_base_and_scope_choose_the_place(base: str, scope: int, found: list[Query]) -> None:
    both = Or((Equal("mail", b"a@b.org"), Equal("gpgMailbox", b"a@b.org")))
    assert queries(base, both, scope) == found


@pytest.mark.parametrize(
    ("base", "scope", "code"),
    [
        ("dc=elsewhere", 2, Code.NO_SUCH_OBJECT),
        ("C=US", 2, Code.NO_SUCH_OBJECT),
        (f"cn=x,{KEYS}", 0, Code.NO_SUCH_OBJECT),
        (f"gpgFingerprint=xyz,{KEYS}", 0, Code.NO_SUCH_OBJECT),
        ("nonsense", 2, Code.INVALID_DN),
        (BASE, 4, Code.PROTOCOL_ERROR),
    ],
)
def test_bases_that_are_not_there(base: str, scope: int, code: Code) -> None:
    made = plan(base, Equal("mail", b"a@b.org"), scope)
    assert isinstance(made, Refusal)
    assert made.code is code


def test_a_base_without_a_name_of_its_own_works() -> None:
    made = plan("", Equal("mail", b"a@b.org"), of=Tree("", start_tls=False, text_search=lambda: False))
    assert isinstance(made, SearchPlan)
    assert [w.space.dn for w in made.sense.wanted] == ["ou=People"]


# --- what is always there ----------------------------------------------------------------------------------------


def fixed(base: str, scope: int, *attributes: str, filter_: Filter = ANY, of: Tree | None = None) -> dict[str, Node]:
    made = plan(base, filter_, scope, of=of, attributes=attributes)
    assert isinstance(made, SearchPlan), made
    chosen = choose(made, [])
    assert not isinstance(chosen, Refusal)
    return {node.dn: node for node in chosen}


def test_gnupg_finds_its_schema_and_keyspace() -> None:
    root = fixed("", 0)[""]
    assert root.values("namingcontexts")[0].decode() == BASE
    info = fixed(f"cn=pgpServerInfo,{BASE}", 0)[f"cn=pgpServerInfo,{BASE}"]
    assert info.values("pgpbasekeyspacedn") == (KEYS.encode(),)
    assert (info.values("pgpsoftware"), info.values("pgpversion")) == ((b"GnuPG",), (b"2",))
    assert fixed(f"cn=PGPServerInfo,{KEYS}", 0)


def test_pgp_coms_clients_find_theirs() -> None:
    for base in ("cn=pgpServerInfo", f"cn=pgpserverinfo,{CLASSIC}", "cn=pgpServerInfo,o=pgp keyspace,c=us"):
        (info,) = fixed(base, 0).values()
        assert info.values("basekeyspacedn") == (CLASSIC.encode(),)
        assert info.has("version")
        assert info.has("software")


def test_the_root_says_what_is_there() -> None:
    plain = fixed("", 0)[""]
    assert plain.encode(select(()), False).count(b"namingContexts") == 0
    assert b"namingContexts" in plain.encode(select(("+",)), False)
    assert b"objectClass" in plain.encode(select(("*",)), False)
    assert b"1.3.6.1.4.1.1466.20037" not in plain.values("supportedextension")
    assert b"1.3.6.1.4.1.1466.20037" in fixed("", 0, of=tree(start_tls=True))[""].values("supportedextension")


def test_containers_can_be_browsed() -> None:
    assert set(fixed(BASE, 1)) == {KEYS, PEOPLE, f"cn=pgpServerInfo,{BASE}"}
    assert set(fixed(BASE, 0)) == {BASE}
    assert fixed(BASE, 0)[BASE].values("dc") == (b"keyserver",)
    assert set(fixed(BASE, 2, filter_=Equal("noSuch", b"x"))) == set()


def test_the_subschema_describes_what_is_served() -> None:
    types = b"\n".join(attribute_types())
    assert len(fixed("cn=subschema", 0)) == 1
    for attribute in KNOWN.values():
        if attribute.oid:
            assert f"( {attribute.oid} NAME".encode() in types
    assert b"1.3.6.1.4.1.11591.2.4.1.1 NAME 'gpgFingerprint' EQUALITY caseIgnoreMatch" in types


# --- certificates as entries -------------------------------------------------------------------------------------


def entries(held: Memory, query: Query, space: str = KEYS) -> tuple[Node, ...]:
    found = tuple(a for a in held.held if query.name in a.certificate.proof.names)
    place = Space(query.kind, space, parse_dn(space), "gpgfingerprint" if query.kind is Kind.OPENPGP else "uid")
    return tree().nodes(Wanted(query, place), Answer(State.FOUND, How.HIT, "", found))


def test_an_openpgp_entry_has_what_gnupg_reads() -> None:
    made = make(["Alice <alice@example.org>", "Work <alice@work.example>"], seed="alice", expires=10**9, signing=True)
    (node,) = entries(Memory(made.octets), by("alice@work.example"))
    text = {key: [v.decode() for v in node.values(key)] for key in KNOWN if node.has(key)}
    assert node.dn == f"gpgFingerprint={made.fingerprint},{KEYS}"
    assert text["gpgfingerprint"] == [made.fingerprint]
    assert text["pgpcertid"] == [made.key_id]
    assert text["pgpkeyid"] == [made.key_id[-8:]]
    assert text["gpgmailbox"] == text["gpgmailbox"] == ["alice@work.example", "alice@example.org"]
    assert text["pgpuserid"] == ["Work <alice@work.example>", "Alice <alice@example.org>"]  # the one asked for first
    assert sorted(text["gpgsubfingerprint"]) == sorted(k.fingerprint for k in made.subkeys)
    assert sorted(text["pgpsubkeyid"]) == sorted(k.key_id for k in made.subkeys)
    assert text["pgpkeytype"] == ["EdDSA"]
    assert text["pgpkeysize"] == ["00256"]
    assert text["pgpkeycreatetime"] == ["20200913122640Z"]
    assert text["pgpkeyexpiretime"] == ["20520522141320Z"]
    assert text["pgprevoked"] == text["pgpdisabled"] == ["0"]
    assert text["pgpkey"][0].startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")
    assert text["pgpkey"] == text["pgpkeyv2"]
    assert len(text["modifytimestamp"][0]) == 15


def test_revoked_ones_say_so_and_withdrawn_user_ids_are_left_out() -> None:
    gone = make(["Bob <bob@example.org>"], seed="bob", revoked=1)
    (node,) = entries(Memory(gone.octets), ByFingerprint(gone.fingerprint))
    assert node.values("pgprevoked") == (b"1",)
    user_ids = ["Ann <ann@example.org>", "Ann <old@example.org>"]
    made = make(user_ids, seed="ann", revoked_user_ids=user_ids[1:])
    (node,) = entries(Memory(made.octets), ByFingerprint(made.fingerprint))
    assert node.values("pgpuserid") == (b"Ann <ann@example.org>",)
    assert node.values("gpgmailbox") == (b"ann@example.org",)


def test_a_v6_certificate_is_given_only_for_its_whole_fingerprint() -> None:
    made = make(["Six <six@example.org>"], seed="six", version=6, encryption=None)
    held = Memory(made.octets)
    assert entries(held, by("six@example.org")) == ()
    assert entries(held, ByKeyId(made.key_id)) == ()
    (node,) = entries(held, ByFingerprint(made.fingerprint))
    assert b"\n=" not in node.values("pgpkey")[0]  # no CRC-24 behind v6


def test_a_person_has_what_mail_programs_read() -> None:
    made = person("alice@example.org", subject=name("Alice Example", surname="Example", given_name="Alice"))
    (node,) = entries(Memory(made.der), by("alice@example.org", Kind.X509), PEOPLE)
    assert node.dn == f"uid={made.fingerprint},{PEOPLE}"
    assert b"inetOrgPerson" in node.values("objectclass")
    assert node.values("mail") == (b"alice@example.org",)
    assert (node.values("cn"), node.values("sn")) == ((b"Alice Example",), (b"Example",))
    assert node.values("givenname") == (b"Alice",)
    assert node.values("usercertificate") == (made.der,)
    assert made.der in node.values("usersmimecertificate")[0]


@pytest.mark.parametrize("filter_", ACTIVE_DIRECTORY, ids=str)
def test_active_directorys_filters_are_true_of_a_person(filter_: Filter) -> None:
    held = Memory(person("a@b.org", emails=["c@b.org", "a@b.org"]).der, person("d@b.org").der)
    node, other = (entries(held, by(a, Kind.X509), PEOPLE)[0] for a in ("a@b.org", "d@b.org"))
    test = compile_filter(filter_, MatchBudget())
    assert test(node) is True
    assert test(other) is False


def test_addresses_of_other_makes_are_given_to_who_asks_by_name() -> None:
    (node,) = entries(Memory(person("a@b.org", emails=["a@b.org", "c@b.org"]).der), by("a@b.org", Kind.X509), PEOPLE)
    assert b"proxyAddresses" not in node.encode(select(()), False)
    written = node.encode(select(("PROXYADDRESSES", "1.2.840.113556.1.4.656")), False)
    assert b"proxyAddresses" in written
    assert b"SMTP:a@b.org" in written
    assert b"smtp:c@b.org" in written
    assert b"userPrincipalName" in written


def test_sharp_s_is_another_mailbox_than_double_s() -> None:
    """Texts are compared so (RFC 4518 section 2.2), addresses are not: a certificate would go to somebody else."""
    assert says(Equal("cn", b"STRASSE"), cn="Stra\u00dfe")
    assert queries(BASE, Equal("mail", "stra\u00dfe@b.org".encode())) == [by("stra\u00dfe@b.org", Kind.X509)]
    assert says(Equal("mail", b"strasse@b.org"), mail="stra\u00dfe@b.org") is False


def test_people_come_newest_first_and_ended_ones_only_by_fingerprint() -> None:
    old = person("a@example.org", begins=1_650_000_000)
    new = person("a@example.org", begins=1_750_000_000)
    signing = person("a@example.org", begins=1_760_000_000, usage="digital_signature")
    ended = person("a@example.org", begins=1_500_000_000, ends=1_600_000_000)
    held = Memory(old.der, signing.der, new.der, ended.der)
    order = [node.values("usercertificate")[0] for node in entries(held, by("a@example.org", Kind.X509), PEOPLE)]
    assert order == [new.der, old.der, signing.der]
    assert entries(held, ByFingerprint(ended.fingerprint, Kind.X509), PEOPLE)


def test_a_person_without_a_name_goes_by_the_address() -> None:
    made = person("a@example.org", subject=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example")]))
    (node,) = entries(Memory(made.der), by("a@example.org", Kind.X509), PEOPLE)
    assert node.values("cn") == node.values("sn") == (b"a@example.org",)
    assert not node.has("givenname")


# --- attributes asked for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ((), b"userCertificate;binary"),
        (("*",), b"userCertificate;binary"),
        (("usercertificate;binary",), b"userCertificate;binary"),
        (("userCertificate",), b"userCertificate;binary"),
        (("2.5.4.36",), b"userCertificate;binary"),
        (("userSMIMECertificate",), b"userSMIMECertificate"),
        (("usersmimecertificate;binary",), b"userSMIMECertificate;binary"),
        (("surname",), b"sn"),
        (("+",), b"modifyTimestamp"),
    ],
)
def test_attributes_come_by_the_name_that_clients_compare(asked: tuple[str, ...], named: bytes) -> None:
    made = person("a@example.org")
    (node,) = entries(Memory(made.der), by("a@example.org", Kind.X509), PEOPLE)
    written = node.encode(select(asked), False)
    assert bytes((4, len(named))) + named in written


def test_no_attributes_and_types_only() -> None:
    made = make(seed="alice")
    (node,) = entries(Memory(made.octets), ByFingerprint(made.fingerprint))
    none = node.encode(select(("1.1",)), False)
    assert b"pgp" not in none.replace(b"gpgFingerprint=", b"").replace(b"PGP Keys", b"")
    types = node.encode(select(()), True)
    assert b"pgpUserID" in types
    assert b"Alice" not in types
    assert b"pgpKeyV2" not in types  # only when asked for by its name
    assert b"pgpKeyV2" in node.encode(select(("pgpkeyv2",)), True)
    assert b"modifyTimestamp" not in types


# --- filters -----------------------------------------------------------------------------------------------------


def says(filter_: Filter, **attributes: str | list[str]) -> bool | None:
    values = {k: tuple(v.encode() for v in ([v] if isinstance(v, str) else v)) for k, v in attributes.items()}
    return compile_filter(filter_, MatchBudget())(Node("cn=x,ou=People,dc=b", values))


@pytest.mark.parametrize(
    ("filter_", "truth"),
    [
        (Equal("cn", b"ALICE  example"), True),
        (Equal("cn", b"alice"), False),
        (Equal("sn", b"x"), False),
        (Equal("unknown", b"x"), None),
        (Not(Equal("unknown", b"x")), None),
        (And((Equal("unknown", b"x"), Equal("cn", b"no"))), False),
        (And((Equal("unknown", b"x"), Equal("cn", b"Alice Example"))), None),
        (Or((Equal("unknown", b"x"), Equal("cn", b"Alice Example"))), True),
        (Or((Equal("unknown", b"x"), Equal("cn", b"no"))), None),
        (And(()), True),
        (Or(()), False),
        (Present("CN"), True),
        (Present("sn"), False),
        (Present("unknown"), None),
        (Equal("cn;lang-de", b"Alice Example"), None),
        (Substrings("cn", b"ALI", (b"exa",), b"PLE"), True),
        (Substrings("cn", b"ali", (b"ice", b"ice"), None), False),
        (Substrings("cn", b"alice exam", (), b"example"), False),  # they may not overlap
        (Substrings("cn", None, (), b"\xff"), None),
        (Approx("cn", b"alice example"), True),
        (AtLeast("cn", b"a"), None),
        (AtLeast("pgpKeySize", b"01024"), True),
        (AtLeast("pgpKeySize", b"09999"), False),
        (AtLeast("modifyTimestamp", b"20240101000000.0Z"), True),
        (AtLeast("modifyTimestamp", b"20250101000000Z"), False),
        (AtLeast("modifyTimestamp", b"yesterday"), None),
        (Equal("objectClass", b"2.5.6.6"), True),
        (Equal("mail", b"A@xn--mnchen-3ya.example"), True),
        (Equal("mail", "a@MÜNCHEN.example".encode()), True),
        (Substrings("mail", None, ("a@münchen.example".encode(),), None), True),
        (Substrings("cn", b"Alice\\20", (), None), False),
        (Extensible("2.5.13.2", "cn", b"ALICE  Example", False), True),
        (Extensible("caseIgnoreMatch", "cn", b"Bob", False), False),
        (Extensible("caseexactmatch", "cn", b"Alice  Example", False), True),
        (Extensible("2.5.13.5", "cn", b"alice example", False), False),
        (Extensible("", "2.5.4.3", b"alice example", False), True),
        (Extensible("", "objectClass", b"2.5.6.6", False), True),
        (Extensible("2.5.13.0", "objectClass", b"person", False), True),
        (Extensible("2.5.13.27", "modifyTimestamp", b"20240601000000Z", False), True),
        (Extensible("1.3.6.1.4.1.1466.109.114.2", "mail", b"A@xn--mnchen-3ya.example", False), True),
        (Extensible("2.5.13.2", "", b"alice example", False), True),
        (Extensible("2.5.13.2", "", b"nobody", False), False),
        (Extensible("2.5.13.2", "ou", b"people", True), True),
        (Extensible("", "ou", b"people", False), False),
        (Extensible("caseIgnoreMatch", "", b"PEOPLE", True), True),
        (Extensible("caseIgnoreMatch", "", b"PEOPLE", False), False),
        # undefined: a rule that is unknown, or not the attribute's; an unknown attribute; neither; what is no text
        (Extensible("2.5.13.4", "cn", b"Alice*", False), None),
        (Extensible("2.5.13.2", "objectClass", b"person", False), None),
        (Extensible("2.5.13.0", "cn", b"person", False), None),
        (Extensible("", "unknown", b"x", True), None),
        (Extensible("", "", b"x", True), None),
        (Extensible("2.5.13.2", "cn", b"\xff", False), None),
        (Extensible("", "pgpKey", b"x", False), None),
        (Extensible("1.2.840.113556.1.4.803", "userAccountControl", b"2", False), False),
        (Extensible("1.2.840.113556.1.4.1941", "memberOf", b"cn=x", False), False),
        (Extensible("1.2.840.113556.1.4.803", "cn", b"2", False), None),
        (Extensible("1.2.840.113556.1.4.803", "", b"2", False), None),
        # RFC 4518: compatible forms are the same, what cannot be seen is nothing, spaces alone are one
        (Equal("cn", "\uff21lice \u00ad\u200bExample".encode()), True),
        (Substrings("cn", "\uff21LI".encode(), (), None), True),
        (Substrings("cn", None, (b"  ",), None), True),
        (Substrings("cn", b" ", (), None), False),
        (Substrings("cn", None, (b" ", b" "), None), False),
        (Substrings("cn", b"Alice  ", (), b" example "), False),
        (Substrings("cn", b"  Alice", (), b"  example "), True),
        (Substrings("objectCategory", b"p", (), None), None),
        (Equal("objectCategory", b"organizationalPerson"), True),
        (Equal("objectCategory", b"CN=Person,CN=Schema,CN=Configuration,DC=x"), True),
        (Equal("objectCategory", b"group"), False),
        (Equal("anr", b"alice ex"), True),
        (Equal("anr", b"example"), False),
    ],
)
def test_filters_are_three_valued(filter_: Filter, truth: bool | None) -> None:
    entry = {
        "cn": "Alice Example",
        "mail": "a@xn--mnchen-3ya.example",
        "objectclass": "person",
        "pgpkeysize": "02048",
        "modifytimestamp": "20240601000000Z",
        "objectcategory": "person",
    }
    assert says(filter_, **entry) is truth


def test_the_clients_wrong_escapes_are_read() -> None:
    assert says(Substrings("pgpUserID", None, (b"%28work%29",), None), pgpuserid="Ann (work) <a@b.org>")
    assert says(Equal("pgpUserID", b"100%25"), pgpuserid="100%25")
    assert says(Equal("cn", b"Ann \\28work\\29"), cn="Ann (work)")


def test_a_subkeys_id_is_found_where_gnupg_asks_for_it() -> None:
    ids = {"pgpcertid": "A" * 16, "pgpsubkeyid": ["B" * 16, "C" * 16]}
    assert says(Equal("pgpCertID", b"C" * 16), **ids)
    assert not says(Equal("pgpSubKeyID", b"A" * 16), **ids)
    assert not says(Equal("pgpCertID", b"D" * 16), **ids)


def test_hex_is_compared_without_its_mark() -> None:
    assert says(Equal("pgpCertID", b"0xABCDEF0123456789"), pgpcertid="ABCDEF0123456789")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("20240101000000Z", "20240101000000.000000"),
        ("2024010100Z", "20240101000000.000000"),
        ("20240101000000.5Z", "20240101000000.500000"),
        ("20240101010000+0100", "20240101000000.000000"),
        ("20240101000000", None),
        ("20241301000000Z", None),
        ("00000101000000Z", None),
        ("00010101000000+2359", None),
    ],
)
def test_times_sort(text: str, form: str | None) -> None:
    assert normal(Rule.TIME, text.encode()) == form


def test_a_costly_filter_over_a_costly_entry_is_given_up() -> None:
    many = Node("cn=x", {"pgpuserid": tuple(b"user %d" % n for n in range(256))})
    filter_ = Or(tuple(Substrings("pgpUserID", None, (b"x", b"y") * 8, None) for _ in range(120)))
    with pytest.raises(TooCostly):
        compile_filter(filter_, MatchBudget())(many)


def test_options_and_oids_name_attributes() -> None:
    found = find("2.5.4.36;BINARY")
    assert found is not None
    assert (found[0].key, found[1]) == ("usercertificate", True)
    assert find("cn;binary") is None
    assert find("userCertificate;x;binary") is None


# --- limits ------------------------------------------------------------------------------------------------------


def test_the_size_limit_gives_what_fits_and_says_so() -> None:
    nodes = [Node(f"cn={n}", {"cn": (b"x",)}) for n in range(120)]
    made = plan(KEYS, Equal("gpgMailbox", b"a@b.org"), size_limit=2)
    assert isinstance(made, SearchPlan)
    reply = write(made, nodes)
    assert (len(reply.entries), reply.code) == (2, Code.SIZE_LIMIT)
    made = plan(KEYS, Equal("gpgMailbox", b"a@b.org"))
    assert isinstance(made, SearchPlan)
    reply = write(made, nodes)
    assert (len(reply.entries), reply.code) == (100, Code.SIZE_LIMIT)
    assert write(made, nodes[:100]).code is Code.SUCCESS


def test_a_reply_has_a_largest_size() -> None:
    made = plan(KEYS, Equal("gpgMailbox", b"a@b.org"))
    assert isinstance(made, SearchPlan)
    reply = write(made, [Node(f"cn={n}", {"cn": (b"x" * (MAX_REPLY // 3),)}) for n in range(4)])
    assert (len(reply.entries), reply.code) == (2, Code.ADMIN_LIMIT)


def test_each_entry_comes_once() -> None:
    node = Node("cn=x", {"objectclass": (b"top",)})
    made = plan(KEYS, Or((ANY, Equal("gpgMailbox", b"a@b.org"))), 1, of=tree(text_search=lambda: True))
    assert isinstance(made, SearchPlan)
    chosen = choose(made, [(node,), (node,)])
    assert not isinstance(chosen, Refusal)
    assert [n.dn for n in chosen].count("cn=x") == 1
