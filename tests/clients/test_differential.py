"""The same questions through us and directly to real peers from Debian: every difference has its rule.

A peer holds certificates of Debian's keyrings and odd ones; each question is asked of the peer itself and of a service
that has this peer alone as its upstream. What the peer alone gives, what we alone give, and what is given in another
form is explained by the first rule that holds, counted and printed; what no rule explains fails."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from keyserver.model import Certificate, Cut, Malformed
from keyserver.openpgp import clean
from keyserver.openpgp.armor import dearmor
from keyserver.openpgp.keyring import Splitter
from keyserver.openpgp.packets import parse_key, walk
from keyserver.query import BadQuery, ByAddress, ByFingerprint, ByKeyId, ShortKeyId, parse
from keyserver.resolver.select import proves
from keyserver.wire.ldap_filter import Equal, Filter
from support.directory import Slapd, base_entry, key_entry, server_info
from support.keyservers import onak, sks
from support.ldap_client import Client
from support.openpgp import CREATED, USER_ID, make, new_key, packet
from support.running import Service

NOW = 1_790_000_000  # 2026-09-21
KEYRING = Path("/usr/share/keyrings/debian-keyring.gpg")
FROM_KEYRING = 200
BASE = "dc=example,dc=org"
KEYS = f"ou=PGP Keys,{BASE}"
MOST = 20
"""Certificates in one of our answers (cache rule 12)."""

Found = Mapping[str, bytes]
"""Fingerprint -> octets of an answer's certificates."""
Ask = Callable[[str], Awaitable[Found]]


def parted(octets: bytes) -> dict[str, bytes]:
    """The certificates in binary packets, however hostile, by fingerprint."""
    splitter = Splitter(16 << 20)
    found = {}
    for piece in [*splitter.feed(octets), *splitter.end()]:
        if isinstance(piece, Cut):
            _, start, end = next(iter(walk(piece.octets, 100_000)))
            found[parse_key(piece.octets[start:end]).fingerprint.hex().upper()] = piece.octets
    return found


def held() -> dict[str, bytes]:
    """Short ones of a keyring; odd ones: revoked, expired, with a user ID that nobody has certified, uncertified."""
    of_debian = sorted(parted(KEYRING.read_bytes()).values(), key=len)[:FROM_KEYRING]
    claimed = make(["<claimed@example.org>"], seed="claimed").octets + packet(USER_ID, b"Eve <eve@example.org>")
    odd = [
        make(["Revoked <revoked@example.org>"], seed="revoked", revoked=1).octets,
        make(["Expired <expired@example.org>"], seed="expired", expires=1000).octets,
        claimed,
        new_key(seed="bare", created=CREATED).packet() + packet(USER_ID, b"Bare <bare@example.org>"),
        *(make([f"Clone {n} <clone@example.org>"], seed=f"clone{n}", encryption=None).octets for n in range(25)),
    ]
    return {f: o for octets in [*of_debian, *odd] for f, o in parted(octets).items()}


def questions(certificates: Mapping[str, bytes], many: int) -> Iterator[str]:
    """What clients ask, in a mixed order: each kind of term, other spellings, what is not there."""
    terms: list[str] = []
    for fingerprint, octets in certificates.items():
        key_id = fingerprint[-16:] if len(fingerprint) == 40 else fingerprint[:16]
        terms += [
            f"0x{fingerprint}",
            f"0x{key_id}",
            f"0x{key_id[-8:]}",
            f"0x{random.Random(key_id).getrandbits(160):040X}",
        ]
        for found in clean(octets, NOW):
            if isinstance(found, Certificate):
                terms += [f"0x{s.fingerprint}" for s in found.proof.subkeys]
                addresses = [u.address for u in found.proof.user_ids if u.address]
                terms += [*addresses, *(a.upper() for a in addresses), *(f"no-{a}" for a in addresses)]
    terms += ["eve@example.org", "bare@example.org", "clone@example.org"]
    chance = random.Random(1)
    for _ in range(many):
        yield chance.choice(terms)


def rule(term: str, fingerprint: str, theirs: Found, ours: Found) -> str:
    """Why they differ in one certificate; empty where nothing explains it."""
    try:
        query = parse(term)
    except ShortKeyId:
        return "" if ours else "8 digits are easily forged, and name no key"
    if fingerprint not in theirs:
        (certificate,) = (c for c in clean(ours[fingerprint], NOW) if isinstance(c, Certificate))
        return "cached before, and proves this question too" if proves(certificate.proof, query) else ""
    cleaned = [c for c in clean(theirs[fingerprint], NOW) if isinstance(c, Certificate)]
    if not cleaned:
        return "hygiene takes nothing of it"
    (certificate,) = cleaned
    if fingerprint in ours:
        if certificate.octets == ours[fingerprint]:
            return "what nobody has signed, and others' signatures, are left out"
        kept = [c for c in clean(ours[fingerprint], NOW) if isinstance(c, Certificate)]
        shown, all_ = {u.text for u in kept[0].proof.user_ids}, {u.text for u in certificate.proof.user_ids}
        return "user IDs that show what this upstream may not speak for are left out" if shown < all_ else ""
    if not proves(certificate.proof, query):
        return "it does not prove what was asked for"
    if isinstance(query, ByAddress) and not certificate.proof.user_ids:
        return "a certificate without user IDs answers no address"
    return f"at most {MOST} in an answer" if len(ours) == MOST else ""


async def over_http(port: int, term: str) -> Found:
    """What `op=get` gives."""
    url = f"http://127.0.0.1:{port}/pks/lookup?op=get&options=mr&search={quote(term)}"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        body = await response.read()
    try:
        return parted(b"".join(dearmor(body[max(0, body.find(b"-----BEGIN")) :])))
    except Malformed:
        assert response.status in (200, 400, 404, 500), response.status  # SKS says 500 where it has too many
        return {}


@contextlib.asynccontextmanager
async def by_hkp(
    server: Callable[..., contextlib.AbstractAsyncContextManager[str]], folder: Path, certificates: Found
) -> AsyncIterator[tuple[str, Ask]]:
    """A keyserver, its URL and how to ask it."""
    async with server(folder, *certificates.values()) as url:

        async def ask(term: str) -> Found:
            return await over_http(int(url.rpartition(":")[2]), term)

        yield url, ask


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
async def by_ldap(folder: Path, certificates: Found) -> AsyncIterator[tuple[str, Ask]]:
    """A directory, its URL and how to ask it."""
    entries = [base_entry(BASE), base_entry(KEYS), server_info(BASE, KEYS)]
    for fingerprint, octets in certificates.items():
        said = [c.proof for c in clean(octets, NOW) if isinstance(c, Certificate)]
        addresses = sorted({u.address for proof in said for u in proof.user_ids if u.address})
        subkeys = sorted({s.fingerprint for proof in said for s in proof.subkeys})
        entries.append(key_entry(KEYS, fingerprint, octets, addresses, subkeys=subkeys))
    with Slapd(folder / "slapd", entries=entries) as directory:

        def blocking(term: str) -> Found:
            asked = ldap_filter(term)
            if asked is None:
                return {}
            with Client(directory.port) as client:
                answer = client.search(KEYS, asked, "pgpKey")
            values = [v for entry in answer.entries for v in entry.attributes.get("pgpKey", [])]
            return {f: o for value in values for f, o in parted(value).items()}

        yield f"{directory.url}/{quote(BASE)}", lambda term: asyncio.to_thread(blocking, term)


PEERS = {
    "sks": lambda folder, certificates: by_hkp(sks, folder, certificates),
    "onak": lambda folder, certificates: by_hkp(onak, folder, certificates),
    "slapd": by_ldap,
}


@pytest.mark.soak
@pytest.mark.parametrize("peer", PEERS)
async def test_every_difference_to_a_real_peer_has_a_rule(
    peer: str, tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    certificates = held()
    many = pytestconfig.getoption("--questions") // len(PEERS)
    rules: collections.Counter[str] = collections.Counter()
    unexplained: list[str] = []
    async with PEERS[peer](tmp_path, certificates) as (url, ask):
        config = f'[[upstream]]\nname = "{peer}"\nurl = "{url}"\ntimeout = "20s"\n'
        settings = {"cache.deadline": '"30s"', "limits.misses_per_minute": "1000000"}
        with Service(tmp_path, config=config, settings=settings) as service:
            for term in questions(certificates, many):
                theirs, ours = await ask(term), await over_http(service.port(), term)
                for fingerprint in {*theirs, *ours}:
                    if theirs.get(fingerprint) == ours.get(fingerprint):
                        rules["the same"] += 1
                    elif why := rule(term, fingerprint, theirs, ours):
                        rules[why] += 1
                    else:
                        unexplained.append(f"{term}: {fingerprint}")
                rules["nobody has it"] += not theirs and not ours
    with capsys.disabled():
        print(f"\n{peer}, {many:,} questions", *(f"{n:>7,} {why}" for why, n in rules.most_common()), sep="\n")
    assert not unexplained, f"{len(unexplained)}: {unexplained[:10]}"
