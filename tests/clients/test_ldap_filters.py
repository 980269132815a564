"""Our filters and names against slapd's: the same entries, the same question, the same answer.

Some hundreds of generated filters go to a real slapd that holds our own entries, to our evaluation over all entries,
and through the whole face, where they are only evaluated over what their exact terms find. Attributes go by name and
by OID, values in other Unicode forms, substrings may be spaces alone, and any attribute may be asked by an extensible
match. Then the names of entries, spelt in as many ways, are bases of searches on both sides.

Where we differ on purpose, the generator stays away (each has its own test elsewhere):
- `0x` before hex digits and GnuPG's `%2a` are understood here;
- `~=` means equality here, slapd compares sounds;
- `pgpCertID` equals a subkey's ID too, because GnuPG asks so;
- an address equals its normalised spelling (A-labels) here;
- a substring that is a whole address finds that address only, not longer ones around it;
- extensible matches: `caseIgnoreMatch` and `caseIgnoreIA5Match` compare the same attributes here, so that nobody has
  to know that `mail` and `dc` are IA5Strings; without an attribute, slapd looks at those of the rule's syntax only;
  there the value must be one that names somebody, or it asks for a listing; `objectIdentifierMatch` takes names here;
- case is folded as RFC 4518 section 2.2 says (sharp s is "ss"), invisible characters are nothing: slapd has neither;
- `mail`, `email` and `dc` are IA5Strings in slapd: other characters are undefined there, and in a name an error (34);
- `0x`, a bare address among proxy addresses, and Active Directory's `anr`, categories and bit rules are ours alone;
- in names, `OID.` before an OID (RFC 2253) and values in BER behind `#` (RFC 4514 section 2.4) are read here; a type
  that nobody knows is no syntax error (34) here but an entry that is not there (32), as is an empty value;
- `pgpRevoked` and `pgpDisabled` have no substrings in GnuPG's schema, but in the test's slapd;
- more than 100 entries, or a filter without an exact term: refused through the face.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from keyserver.faces.ldap.cover import cover
from keyserver.faces.ldap.entries import Node
from keyserver.faces.ldap.match import MatchBudget, compile_filter
from keyserver.faces.ldap.schema import Rule, find
from keyserver.wire.ldap_filter import And, AtLeast, AtMost, Equal, Extensible, Filter, Not, Or, Present, Substrings
from support.directory import Slapd, base_entry
from support.ldap_client import Client
from support.ldap_entries import KEYS, PEOPLE, nodes, slapd_entry
from support.ldap_memory import BASE, Memory, serving
from support.openpgp import make
from support.x509 import name, person

FILTERS = 1200
UNWILLING = 53


def memory() -> Memory:
    held = [
        make(["Alice <alice@example.org>", "Alice Work <alice@work.example>"], seed="alice", signing=True),
        make(["Alina Example <alina@example.org>"], seed="alina", expires=10**9),
        make(["Bob <bob@example.org>"], seed="bob", revoked=1),
        make(["bob.builder@example.org"], seed="builder", algorithm="rsa2048", encryption="rsa2048"),
        make(["  Spaced   Out  <spaced@example.org>"], seed="spaced"),
        make(["Zo\u00eb O\ufb03ce <zoe@example.org>"], seed="zoe"),
    ]
    people = [
        person("alice@example.org", subject=name("Alice Example", surname="Example", given_name="Alice")),
        person("alice@example.org", subject=name("Alice Example (new)", surname="Example"), begins=1_750_000_000),
        person("carol@example.org", emails=["carol@example.org", "c@work.example"]),
        person(
            "jose@example.org",
            subject=name("Jos\u00e9 \u00d1and\u00fa", surname="\u00d1and\u00fa", given_name="Jos\u00e9"),
        ),
    ]
    return Memory(*(m.octets for m in held), *(p.der for p in people))


VALUES = {
    "objectClass": ["pgpKeyInfo", "inetOrgPerson", "person", "top", "2.5.6.6", "device", "user"],
    "pgpUserID": [
        "Alice <alice@example.org>", "alice <ALICE@example.org>", "Bob <bob@example.org>",
        "Spaced Out <spaced@example.org>", "bob.builder@example.org", "nobody", "Zo\u00eb O\ufb03ce <zoe@example.org>",
        "Zoe\u0308 Office <zoe@example.org>", "\uff22\uff4f\uff42 <bob@example.org>",
    ],
    "gpgMailbox": [
        "alice@example.org", "ALICE@work.example", "bob@example.org", "nobody@example.org", "\uff42ob@example.org",
    ],
    "pgpRevoked": ["0", "1"],
    "pgpDisabled": ["0", "1"],
    "keyserverCanEncrypt": ["TRUE", "FALSE", "yes"],
    "pgpKeyType": ["RSA", "EdDSA", "rsa"],
    "pgpKeySize": ["00256", "02048", "1"],
    "pgpKeyCreateTime": ["20200913122640Z", "20100101000000Z", "20300101000000Z"],
    "cn": [
        "Alice Example", "alice  example", "Carol", "alice@example.org",
        "Jose\u0301 \u00d1and\u00fa", "JOS\u00c9 N\u0303ANDU\u0301",
    ],
    "sn": ["Example", "Carol", "x", "\u00f1and\u00fa", "\uff38"],
    "givenName": ["Alice", "alice", "Carol", "jose\u0301"],
    "mail": ["alice@example.org", "Alice@Example.ORG", "c@work.example", "nobody@example.org"],
    "userPrincipalName": ["alice@example.org", "Carol@example.org", "nobody@example.org"],
    "proxyAddresses": ["smtp:alice@example.org", "SMTP:alice@example.org", "smtp:c@work.example", "x500:/o=x"],
    "targetAddress": ["SMTP:Carol@example.org", "smtp:nobody@example.org"],
    "email": ["alice@example.org"],
    "mailLocalAddress": ["jose@example.org"],
    "title": ["Boss"],
    "noSuchAttribute": ["x"],
}  # fmt: skip
TEXT_RULES, IA5_OID = ["caseIgnoreMatch", "2.5.13.2", "CASEIGNOREMATCH"], "1.3.6.1.4.1.1466.109.114.2"
MISCALLED = ("gpgMailbox", "proxyAddresses", "targetAddress")
"""Case counts in no address here."""
PRESENCE_ONLY = ["pgpKey", "userCertificate", "userCertificate;binary", "pgpKeyExpireTime", "uid", "gpgSubFingerprint"]


def generate(held: list[Node], seed: int) -> Iterator[Filter]:
    chance = random.Random(seed)
    fingerprints = [v.decode() for n in held for v in n.values("gpgfingerprint") + n.values("gpgsubfingerprint")]
    ids = [v.decode() for n in held for v in n.values("pgpcertid")]
    subkeys = [v.decode() for n in held for v in n.values("pgpsubkeyid")]
    people = [v.decode() for n in held for v in n.values("uid")]
    values = VALUES | {
        "gpgFingerprint": [*fingerprints, fingerprints[0].lower(), "AB" * 20],
        "gpgSubFingerprint": fingerprints,
        "pgpCertID": [*ids, "0" * 16, "12"],
        "pgpSubKeyID": [*subkeys, *ids],
        "uid": [*people, "alice"],
    }

    def spell(attribute: str) -> str:
        known = find(attribute)
        oid = known[0].oid if known else ""
        return chance.choice([attribute, attribute.lower(), attribute.upper(), oid or attribute])

    def extensible(attribute: str, octets: bytes) -> Filter:
        """As an equality, by each rule that slapd can use for the attribute, or by its name in the entry's."""
        known = find(attribute)
        rules = [""]
        if known is not None and known[0].rule is not Rule.CLASS:
            rules += ["caseIgnoreIA5Match", IA5_OID] if known[0].syntax == "26" else TEXT_RULES
            if attribute not in MISCALLED:
                rules += ["caseExactIA5Match"] if known[0].syntax == "26" else ["caseExactMatch", "2.5.13.5"]
        match chance.randrange(4):
            case 0 if b"@" not in octets:
                return Extensible(chance.choice(TEXT_RULES), "", octets, chance.random() < 0.5)
            case 1:
                place = chance.choice([b"People", b"people", b"PGP  Keys", b"nowhere", "Ｐeople".encode()])
                return Extensible(chance.choice(["", *TEXT_RULES]), spell("ou"), place, chance.random() < 0.8)
        return Extensible(chance.choice(rules), spell(attribute), octets, chance.random() < 0.3)

    def leaf() -> Filter:
        attribute = chance.choice(sorted(values))
        value = chance.choice(values[attribute])
        octets = value.encode()
        match chance.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                return Equal(spell(attribute), octets)
            case 5:
                return Present(spell(chance.choice([attribute, *PRESENCE_ONLY])))
            case 6:
                return chance.choice([AtLeast, AtMost])(spell(attribute), octets)
            case 7 | 8:
                return extensible(attribute, octets)
            case 9 if attribute in ("cn", "pgpUserID"):
                spaces = b" " * chance.randrange(1, 3)
                return Substrings(spell(attribute), *chance.choice([(spaces, (), None), (None, (spaces,), None)]))
        cut = chance.randrange(len(value))
        end = chance.randrange(cut, len(value)) + 1
        if attribute in ("pgpRevoked", "pgpDisabled"):
            return Present(attribute)
        piece = value[cut:end].encode()
        initial, final = chance.random() < 0.3, chance.random() < 0.3
        if initial and cut == 0:
            return Substrings(spell(attribute), piece, (), None)
        if final and end == len(value):
            return Substrings(spell(attribute), None, (), piece)
        return Substrings(spell(attribute), None, (piece,), None)

    def tree(depth: int) -> Filter:
        if depth == 0 or chance.random() < 0.3:
            return leaf()
        match chance.randrange(5):
            case 0 | 1:
                return And(tuple(tree(depth - 1) for _ in range(chance.randrange(1, 4))))
            case 2 | 3:
                return Or(tuple(tree(depth - 1) for _ in range(chance.randrange(1, 4))))
        return Not(tree(depth - 1))

    exact = ["gpgFingerprint", "pgpCertID", "gpgMailbox", "mail", "uid", "gpgSubFingerprint", "pgpSubKeyID"]
    for number in range(FILTERS):
        filter_ = tree(number % 4)
        if number % 2:  # half of them name something
            attribute = chance.choice(exact)
            terms = [Equal(attribute, chance.choice(values[attribute]).encode()) for _ in range(chance.randrange(1, 4))]
            filter_ = And((filter_, Or(tuple(terms))) if chance.random() < 0.5 else (*terms, filter_))
        yield filter_


def whole_addresses(filter_: Filter) -> bool:
    """Does a substring assertion hold a whole address?"""
    match filter_:
        case And(parts) | Or(parts):
            return any(map(whole_addresses, parts))
        case Not(part):
            return whole_addresses(part)
        case Substrings():
            return bool(cover(filter_))
        case Equal(attribute, value):
            return attribute.lower() in ("cn", "sn", "givenname", "pgpuserid") and b"@" in value
    return False


def test_our_answers_are_slapds(tmp_path: Path) -> None:
    held = memory()
    entries = nodes(held)
    assert len(entries) == 10
    given = [base_entry(BASE), base_entry(KEYS), base_entry(PEOPLE), *map(slapd_entry, entries)]
    compared = through = refused = 0
    wrong = []
    with (
        Slapd(tmp_path / "slapd", given) as directory,
        serving(held) as face,
        Client(directory.port) as theirs,
        Client(face.port) as ours,
    ):
        for filter_ in generate(entries, 5):
            test = compile_filter(filter_, MatchBudget())
            for base in (KEYS, PEOPLE):
                beside = {base.lower(), f"cn=pgpserverinfo,{base}".lower()}
                said = theirs.search(base, filter_, "1.1")
                assert said.code == 0, (said.done, filter_)
                want = {dn.lower() for dn in said.dns} - beside
                mine = {n.dn.lower() for n in entries if n.dn.endswith(base) and test(n) is True}
                compared += 1
                if mine != want:
                    wrong.append(f"evaluated: {filter_}: we {mine}, slapd {want}")
                answer = ours.search(base, filter_, "1.1")
                if answer.code == UNWILLING:
                    refused += 1
                    continue
                got = {dn.lower() for dn in answer.dns} - beside
                through += 1
                if answer.code != 0 or (got != want and not whole_addresses(filter_)):
                    wrong.append(f"answered: {filter_}: we {answer.code} {got}, slapd {want}")
    assert not wrong, "\n".join([f"{len(wrong)} of {compared}", *wrong[:12]])
    print(f"{compared} evaluations agree, {through} answers agree, {refused} refused as listings")
    assert compared == 2 * FILTERS
    assert through > FILTERS // 2


def spell_name(dn: str, chance: random.Random) -> str:
    """A name as it may also be written (RFC 4514, RFC 2253)."""
    parts = []
    for rdn in dn.split(","):
        type_, _, value = rdn.partition("=")
        known = find(type_)
        assert known is not None
        types = [type_, type_.upper(), known[0].oid, *LONGER.get(type_.lower(), ())]
        escaped = f"\\{value[0].encode().hex()}{value[1:]}"
        wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" and type_ != "dc" else c for c in value)
        values = [
            value,
            value.lower(),
            value.upper(),
            value.replace(" ", "  "),
            f'"{value}"',
            f" {value} ",
            escaped,
            wide,
        ]
        values += [f"{value}\\20", f"\\20{value}", value + "x", value.replace(" ", "")]
        weights = [6] + [1] * (len(values) - 1)
        parts.append(chance.choice(types) + chance.choice(["=", " = "]) + chance.choices(values, weights)[0])
    return chance.choice([",", ", ", ";", " , "]).join(parts)


LONGER = {
    "ou": ("organizationalUnitName",),
    "dc": ("domainComponent",),
    "uid": ("userid", "UserID"),
}
NAMES = 400


def test_our_names_are_slapds(tmp_path: Path) -> None:
    """Bases spelt in every way name the same entries, or none, on both sides."""
    held = memory()
    entries = nodes(held)
    given = [base_entry(BASE), base_entry(KEYS), base_entry(PEOPLE), *map(slapd_entry, entries)]
    chance = random.Random(7)
    wrong, found = [], 0
    with (
        Slapd(tmp_path / "slapd", given) as directory,
        serving(held) as face,
        Client(directory.port) as theirs,
        Client(face.port) as ours,
    ):
        for _ in range(NAMES):
            base = spell_name(chance.choice([BASE, KEYS, PEOPLE, *(n.dn for n in entries)]), chance)
            want, got = (side.search(base, Present("objectClass"), "1.1", scope=0) for side in (theirs, ours))
            found += got.code == 0
            if (got.code, [dn.lower() for dn in got.dns]) != (want.code, [dn.lower() for dn in want.dns]):
                wrong.append(f"{base!r}: we {got.code} {got.dns}, slapd {want.code} {want.dns}")
    assert not wrong, "\n".join([f"{len(wrong)} of {NAMES}", *wrong[:12]])
    assert NAMES // 4 < found < NAMES
