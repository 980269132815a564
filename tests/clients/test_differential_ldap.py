"""The same searches through us and directly to slapd: every difference has its rule.

Once slapd holds certificates as gpg puts them there, and the questions are those to keyservers. Once it holds our own
entries, and whole answers are compared: bases, scopes, attributes, limits, result codes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from keyserver.faces.ldap.entries import Node
from keyserver.faces.ldap.schema import KNOWN
from keyserver.query import BadQuery, ByAddress, ByFingerprint, ByKeyId, parse
from keyserver.wire.ldap_filter import And, Equal, Filter, Not, Or, Present
from support.differing import SAME, Found, Tally, World, compare, fetched, held, parted, proved, questions, through
from support.directory import Slapd, base_entry, key_entry, server_info
from support.ldap_client import Answer, Client
from support.ldap_entries import KEYS, PEOPLE, nodes, slapd_entry
from support.ldap_memory import BASE, Memory
from support.openpgp import make
from support.x509 import name, person

SPACE = "ou=PGP Keys,dc=example,dc=org"
SUFFIX = SPACE.partition(",")[2]
UNWILLING, SIZE_LIMIT = 53, 4
OPERATIONAL = "operational attributes are each server's own"


def ldap_filter(term: str) -> Filter | None:
    """What gpg would ask a directory of the second schema."""
    try:
        query = parse(term)
    except BadQuery:
        return None
    if isinstance(query, ByFingerprint):
        return Equal("gpgFingerprint", query.fingerprint.encode())
    if isinstance(query, ByKeyId):
        return Equal("pgpCertID", query.key_id.encode())
    return Equal("gpgMailbox", query.address.encode()) if isinstance(query, ByAddress) else None


@contextlib.asynccontextmanager
async def keyspace(folder: Path, certificates: Found) -> AsyncIterator[tuple[str, Callable[[str], Awaitable[Found]]]]:
    """A directory with certificates as gpg puts them there, its URL and how to ask it."""
    entries = [base_entry(SUFFIX), base_entry(SPACE), server_info(SUFFIX, SPACE)]
    for fingerprint, octets in certificates.items():
        proof = proved(octets)
        addresses = sorted({u.address for u in proof.user_ids if u.address}) if proof else []
        subkeys = sorted({s.fingerprint for s in proof.subkeys}) if proof else []
        entries.append(key_entry(SPACE, fingerprint, octets, addresses, subkeys=subkeys))
    with Slapd(folder / "slapd", entries=entries) as directory, Client(directory.port) as client:

        def blocking(term: str) -> Found:
            asked = ldap_filter(term)
            answer = client.search(SPACE, asked, "pgpKey") if asked else None
            values = [v for entry in (answer.entries if answer else ()) for v in entry.attributes.get("pgpKey", [])]
            return {f: o for value in values for f, o in parted(value).items()}

        yield f"{directory.url}/{quote(SUFFIX)}", lambda term: asyncio.to_thread(blocking, term)


@pytest.mark.soak
async def test_every_difference_to_a_real_directory_has_a_rule(
    tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    world, tally, many = World(held()), Tally(), pytestconfig.getoption("--questions")
    async with keyspace(tmp_path, world.held) as (url, ask), aiohttp.ClientSession() as session:
        with through(tmp_path, url) as service:
            for term in questions(world.held, many):
                ours = f"http://127.0.0.1:{service.port()}/pks/lookup?op=get&options=mr&search={quote(term)}"
                theirs, mine = await asyncio.gather(ask(term), fetched(session, ours))
                compare(tally, term, theirs, mine.found, world)
    tally.show(f"slapd, {many:,} questions: certificates", capsys)
    tally.check()


def directory_entries() -> list[Node]:
    """Of OpenPGP and X.509 certificates, some of one address."""
    keys = [make([f"Person {n} <person{n}@firm.example>", f"<{n}@other.example>"], seed=f"p{n}") for n in range(40)]
    keys += [make([f"Clone {n} <clone@firm.example>"], seed=f"c{n}", signing=n % 2 == 0) for n in range(6)]
    keys += [make([f"Odd <{local}@firm.example>"], seed=local) for local in ODD]
    keys.append(make(["Gone <gone@firm.example>"], seed="gone", revoked=1))
    people = [person(f"person{n}@firm.example", subject=name(f"Person {n}", surname=f"{n}")) for n in range(20)]
    people += [person("clone@firm.example", subject=name(f"Clone, {n}")) for n in range(3)]
    return nodes(Memory(*(key.octets for key in keys), *(one.der for one in people)))


ODD = ["star*", "per%cent", "a+b", "o'brien", "j\u00f6rg", "back`tick", "sl/ash"]


@dataclass(frozen=True)
class Asked:
    """One search."""

    base: str
    scope: int
    filter: Filter
    attributes: Sequence[str]
    size: int
    types: bool

    def of(self, client: Client, size: int | None = None) -> Answer:
        limit = self.size if size is None else size
        return client.search(self.base, self.filter, *self.attributes, scope=self.scope, size=limit, types=self.types)


ATTRIBUTES = [
    (), (), ("*",), ("1.1",), ("userCertificate;binary",), ("userCertificate",), ("USERCERTIFICATE;BINARY", "mail"),
    ("pgpKey",), ("pgpkey", "pgpCertID", "pgpRevoked"), ("mail", "cn", "sn"), ("pgpUserID", "gpgMailbox"),
    ("objectClass",), ("noSuchAttribute",), ("+",), ("*", "+"), ("2.5.4.3",), ("userSMIMECertificate",),
    ("proxyAddresses", "email"),
]  # fmt: skip


def searches(entries: Sequence[Node], many: int) -> Iterator[Asked]:
    """What programs ask, each part at random."""
    chance = random.Random(3)
    exact = ["gpgfingerprint", "gpgsubfingerprint", "pgpcertid", "pgpsubkeyid", "gpgmailbox", "mail", "uid"]
    values = {key: [v for node in entries for v in node.values(key)] for key in exact}

    def term() -> Filter:
        key = chance.choice(exact)
        value = chance.choice(values[key])
        match chance.randrange(8):
            case 0:
                value = value.swapcase()
            case 1:
                value = b"nobody" + value
        return Equal(key, value)

    def whole() -> Filter:
        match chance.randrange(8):
            case 0:
                return And((term(), Equal("objectClass", chance.choice([b"pgpKeyInfo", b"inetOrgPerson", b"top"]))))
            case 1:
                return Or((term(), term(), term()))
            case 2:
                return And((term(), Not(Equal("pgpRevoked", b"1"))))
            case 3:
                return And((Present("objectClass"), term()))
        return term()

    for _ in range(many):
        itself = chance.choice(entries)
        base = chance.choice([BASE, BASE, KEYS, PEOPLE, KEYS.lower(), itself.dn, f"ou=nowhere,{BASE}"])
        filter_ = Present("objectClass") if base == itself.dn and chance.random() < 0.7 else whole()
        yield Asked(
            base,
            chance.choice([0, 1, 2, 2, 2]),
            filter_,
            chance.choice(ATTRIBUTES),
            chance.choice([0, 0, 0, 1, 2]),
            chance.random() < 0.1,
        )


Shown = Mapping[str, Mapping[str, frozenset[bytes]]]


def shown(answer: Answer) -> Shown:
    """Entries by name, each with the names of its attributes as they were given, and their values."""
    return {e.dn.lower(): {n.lower(): frozenset(v) for n, v in e.attributes.items()} for e in answer.entries}


def without(entries: Shown, keys: Sequence[str]) -> Shown:
    return {dn: {n: v for n, v in one.items() if n not in keys} for dn, one in entries.items()}


OTHERS_OPERATIONAL = (
    "structuralobjectclass", "entryuuid", "creatorsname", "createtimestamp", "entrycsn", "modifiersname",
    "modifytimestamp", "entrydn", "subschemasubentry", "hassubordinates",
)  # fmt: skip


def differs(asked: Asked, theirs: Answer, ours: Answer, directory: Client) -> str:
    """Why two answers to a search differ; `SAME` where they do not."""
    want, got = shown(theirs), shown(ours)
    if (theirs.code, want) == (ours.code, got):
        return SAME
    if theirs.code != ours.code:
        return ""
    if theirs.code == SIZE_LIMIT and len(want) == len(got) == asked.size:
        every = shown(asked.of(directory, 0))
        if all(one in every for one in got):
            return "others of those above the size limit"
    by_name = {name.lower() for name in asked.attributes}
    on_request = [key for key, known in KNOWN.items() if known.asked_only and key not in by_name]
    if got == without(want, on_request):
        return "addresses of other directories' schemas are given to who names them"
    strip = (*on_request, *OTHERS_OPERATIONAL)
    return OPERATIONAL if "+" in asked.attributes and without(got, strip) == without(want, strip) else ""


def difference(theirs: Answer, ours: Answer) -> str:
    """What differs, for people."""
    want, got = shown(theirs), shown(ours)
    lines = [f"{theirs.code}, ours {ours.code}", f"theirs {want.keys() - got.keys()}, ours {got.keys() - want.keys()}"]
    for dn in want.keys() & got.keys():
        names = {n for n in {*want[dn], *got[dn]} if want[dn].get(n) != got[dn].get(n)}
        lines += [f"{n}: {[sorted(one.get(n, ('-',)))[:3] for one in (want[dn], got[dn])]}"[:200] for n in names]
    return "; ".join(lines)


@pytest.mark.soak
async def test_every_difference_between_entries_has_a_rule(
    tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    entries, tally, many = directory_entries(), Tally(), pytestconfig.getoption("--questions")
    given = [base_entry(BASE), base_entry(KEYS), base_entry(PEOPLE), server_info(BASE, KEYS)]
    with (
        Slapd(tmp_path / "slapd", [*given, *map(slapd_entry, entries)]) as directory,
        through(tmp_path, f"{directory.url}/{quote(BASE)}") as service,
        Client(directory.port) as theirs,
        Client(service.port("ldap")) as ours,
    ):
        for node in entries:  # no directory can be asked for an X.509 certificate by its fingerprint
            for address in node.values("mail"):
                ours.search(BASE, Equal("mail", address), "1.1")
        for asked in searches(entries, many):
            answers = asked.of(theirs), asked.of(ours)
            tally.note(differs(asked, *answers, theirs), f"{asked}: {difference(*answers)}")
    tally.show(f"slapd, {many:,} searches: entries", capsys)
    tally.check()
