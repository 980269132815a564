"""What the differential tests share: certificates, questions, the peer's answer beside ours, and the count of why they
differ.

Every difference is explained by the first rule that holds; what no rule explains is a failure."""

from __future__ import annotations

import collections
import contextlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import aiohttp
import pytest

from keyserver.model import Certificate, Cut, Malformed, Proof
from keyserver.openpgp import clean
from keyserver.openpgp.armor import dearmor
from keyserver.openpgp.keyring import Splitter
from keyserver.openpgp.packets import parse_key, walk
from keyserver.query import ByAddress, ByText, Query, ShortKeyId, parse
from keyserver.resolver.select import proves
from support.openpgp import CREATED, SIG, SUBKEY, USER_ATTRIBUTE, USER_ID, make, new_key, packet
from support.running import Service

NOW = 1_790_000_000  # 2026-09-21
KEYRING = Path("/usr/share/keyrings/debian-keyring.gpg")
FROM_KEYRING = 400
MOST = 20
"""Certificates in one of our answers (cache rule 12)."""
SAME = "the same"
CERTIFICATIONS = frozenset({0x10, 0x11, 0x12, 0x13, 0x30})
"""Signatures on user IDs, and their revocation (RFC 9580 section 5.2.1)."""
UNSIGNED = frozenset({USER_ID, USER_ATTRIBUTE, SUBKEY})
EXAMPLES = 2
"""Printed of each rule, for who doubts it."""

Found = Mapping[str, bytes]
"""Fingerprint -> octets of an answer's certificates."""


@dataclass
class Tally:
    """How many answers were the same, and how many differed for which reason."""

    rules: collections.Counter[str] = field(default_factory=collections.Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    unexplained: list[str] = field(default_factory=list)

    def note(self, why: str, what: str) -> None:
        """One comparison: equal, or explained by `why`; empty where nothing explains `what`."""
        if not why:
            self.unexplained.append(what)
            return
        self.rules[why] += 1
        if why != SAME and len(examples := self.examples.setdefault(why, [])) < EXAMPLES and what not in examples:
            examples.append(what)

    def show(self, title: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Print the figures, whatever else is captured."""
        with capsys.disabled():
            lines = [
                "\n".join([f"{n:>7,} {why}", *(f"{'':10}{e}" for e in self.examples.get(why, ()))])
                for why, n in self.rules.most_common()
            ]
            unexplained = [
                f"{len(self.unexplained):>7,} without a rule",
                *(f"{'':10}{e}" for e in self.unexplained[:10]),
            ]
            print(f"\n{title}", *lines, *unexplained, sep="\n")

    def check(self) -> None:
        """Fail where something has no rule."""
        assert not self.unexplained, f"{len(self.unexplained)} without a rule: {self.unexplained[:3]}"


@dataclass
class World:
    """What the peer holds, and which certificates an answer of ours has had already."""

    held: Found
    before: set[str] = field(default_factory=set)


def through(folder: Path, url: str) -> Service:
    """A service that has this peer alone."""
    config = f'[[upstream]]\nname = "peer"\nurl = "{url}"\ntimeout = "20s"\n'
    settings = {"cache.deadline": '"30s"', "limits.misses_per_minute": "1000000"}
    return Service(folder, config=config, settings=settings)


@dataclass(frozen=True)
class Reply:
    """What an HTTP question brought."""

    status: int
    body: bytes
    found: Found


async def fetched(session: aiohttp.ClientSession, url: str) -> Reply:
    """One GET, and the certificates in what came, armored or not."""
    async with session.get(url) as response:
        body = await response.read()
    return Reply(response.status, body, unwrapped(body) if response.status == 200 else {})


def unwrapped(body: bytes) -> dict[str, bytes]:
    """The certificates in armor, with text around it, or in binary packets; none in anything else."""
    try:
        if (start := body.find(b"-----BEGIN PGP")) >= 0:
            return parted(b"".join(dearmor(body[start:])))
        return parted(_whole(body)) if body and body[0] & 0x80 else {}
    except Malformed:
        return {}


def _whole(octets: bytes) -> bytes:
    """Up to the last packet that is whole."""
    ends = [0]
    with contextlib.suppress(Malformed):
        ends.extend(end for _, _, end in walk(octets, 100_000))
    return octets[: ends[-1]]


def parted(octets: bytes) -> dict[str, bytes]:
    """The certificates in binary packets, however hostile, by fingerprint."""
    splitter = Splitter(16 << 20)
    found = {}
    for piece in [*splitter.feed(octets), *splitter.end()]:
        if isinstance(piece, Cut):
            _, start, end = next(iter(walk(piece.octets, 100_000)))
            found[parse_key(piece.octets[start:end]).fingerprint.hex().upper()] = piece.octets
    return found


@cache
def cleaned(octets: bytes) -> Certificate | None:
    """What our hygiene makes of one certificate."""
    return next((c for c in clean(octets, NOW) if isinstance(c, Certificate)), None)


def proved(octets: bytes) -> Proof | None:
    """What one certificate proves."""
    found = cleaned(octets)
    return found.proof if found else None


def held() -> dict[str, bytes]:
    """Short ones of a keyring; odd ones: revoked, expired, with a user ID that nobody has certified, uncertified,
    with other letters in addresses and names, of one address by dozens."""
    of_debian = sorted(parted(KEYRING.read_bytes()).values(), key=len)[:FROM_KEYRING]
    claimed = make(["<claimed@example.org>"], seed="claimed").octets + packet(USER_ID, b"Eve <eve@example.org>")
    odd = [
        make(["Revoked <revoked@example.org>"], seed="revoked", revoked=1).octets,
        make(["Expired <expired@example.org>"], seed="expired", expires=1000).octets,
        make(["J\u00f6rg M\u00fcller <j\u00f6rg@example.org>"], seed="joerg").octets,
        make(["100% : or \\ more <per+cent@example.org>", "Second <second@example.org>"], seed="percent").octets,
        make(["Upper <Upper.Case@Example.ORG>"], seed="upper").octets,
        claimed,
        new_key(seed="bare", created=CREATED).packet() + packet(USER_ID, b"Bare <bare@example.org>"),
        *(make([f"Clone {n} <clone@example.org>"], seed=f"clone{n}", encryption=None).octets for n in range(25)),
    ]
    return {f: o for octets in [*of_debian, *odd] for f, o in parted(octets).items()}


def questions(certificates: Mapping[str, bytes], many: int) -> Iterator[str]:
    """What clients ask, in a mixed order: each kind of term, other spellings, what is not there."""
    terms: list[str] = ["eve@example.org", "bare@example.org", "clone@example.org", "", "0x", "@", "Clone 7"]
    for fingerprint, octets in certificates.items():
        key_id = fingerprint[-16:] if len(fingerprint) == 40 else fingerprint[:16]
        terms += [f"0x{fingerprint}", f"0x{fingerprint.lower()}", fingerprint, f"0x{key_id}", f"0x{key_id[-8:]}"]
        terms += [f"0x{random.Random(key_id).getrandbits(160):040X}"]
        if proof := proved(octets):
            terms += [f"0x{s.fingerprint}" for s in proof.subkeys]
            terms += [f"0x{s.key_id}" for s in proof.subkeys]
            terms += [u.text for u in proof.user_ids]
            addresses = [u.address for u in proof.user_ids if u.address]
            terms += [*addresses, *addresses, *(a.upper() for a in addresses), *(f"no-{a}" for a in addresses)]
    chance = random.Random(1)
    for _ in range(many):
        yield chance.choice(terms)


def why(term: str, fingerprint: str, theirs: Found, ours: Found, world: World) -> str:
    """Why the answers to a term differ in one certificate; empty where nothing explains it."""
    try:
        query = parse(term)
    except ShortKeyId:
        return "" if ours else "8 digits are easily forged, and name no key"
    except ValueError:
        return "" if ours else "a term that names nothing is not looked up"
    if isinstance(query, ByText):
        return "" if ours else "text searches are not answered"
    if fingerprint not in theirs:
        proof = proved(ours[fingerprint])
        if (
            proof is None
            or not proves(proof, query)
            or not _as_held(ours[fingerprint], world.held.get(fingerprint, b""))
        ):
            return ""
        if fingerprint in world.before:
            return "cached before, and proves this question too"
        return "the peer knows another spelling"
    certificate = cleaned(theirs[fingerprint])
    if certificate is None:
        return "hygiene takes nothing of it"
    if fingerprint in ours:
        return _as_held(ours[fingerprint], theirs[fingerprint])
    if not proves(certificate.proof, query):
        return _unproved(certificate.proof, query)
    if isinstance(query, ByAddress) and not certificate.proof.user_ids:
        return "a certificate without user IDs answers no address"
    if isinstance(query, ByAddress) and "." not in query.domain:
        return "" if ours else "no upstream that is not listed for it speaks for a domain of one label"
    return f"at most {MOST} in an answer" if len(ours) == MOST else ""


def _unproved(proof: Proof, query: Query) -> str:
    """Why a certificate does not prove what was asked for."""
    if not isinstance(query, ByAddress):
        return ""
    users = [u for u in proof.user_ids if u.address == query.address]
    if not users:
        return "it does not show the address"
    return "its owner has revoked the user ID" if all(u.revoked for u in users) else ""


def _as_held(ours: bytes, theirs: bytes) -> str:
    """How what we give comes from what the peer gives; empty where it does not."""
    certificate, kept = cleaned(theirs), proved(ours)
    gone, more = _packets(theirs), _packets(ours)
    gone, more = gone - more, more - gone
    if certificate is None or kept is None or more:
        return ""
    if certificate.octets != ours:
        shown, every = {u.text for u in kept.user_ids}, {u.text for u in certificate.proof.user_ids}
        return "user IDs that show what this upstream may not speak for are left out" if shown < every else ""
    if not gone:
        return "the same packets, in our order and form"
    key_id = bytes.fromhex(kept.key_id)
    if all(tag == SIG and body[1] in CERTIFICATIONS and key_id not in body for tag, body in gone):
        return "others' certifications are left out"
    return "pictures, and what nobody has signed, are left out" if {t for t, _ in gone} & UNSIGNED else ""


def _packets(octets: bytes) -> collections.Counter[tuple[int, bytes]]:
    return collections.Counter((tag, octets[start:end]) for tag, start, end in walk(octets, 100_000))


def compare(tally: Tally, term: str, theirs: Found, ours: Found, world: World) -> None:
    """Both answers to one question, certificate by certificate."""
    for fingerprint in {*theirs, *ours}:
        same = theirs.get(fingerprint) == ours.get(fingerprint)
        tally.note(SAME if same else why(term, fingerprint, theirs, ours, world), f"{term}: {fingerprint}")
    if not theirs and not ours:
        tally.note("nobody has it", term)
    world.before.update(ours)
