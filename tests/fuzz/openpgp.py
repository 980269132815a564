"""OpenPGP: hygiene, proofs, merging, armor, keyrings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

from fuzz import mutators
from fuzz.target import NOW, Target, at_any_cut, joined, parts
from keyserver.model import Certificate, Cut
from keyserver.openpgp import clean, merge
from keyserver.openpgp.armor import armor, dearmor, read_armor
from keyserver.openpgp.cut import cut
from keyserver.openpgp.keyring import Splitter
from keyserver.openpgp.proof import index, prove
from keyserver.openpgp.recipients import recipients
from support import hostile
from support.openpgp import make

KEYRINGS = Path("/usr/share/keyrings")
OF_A_KEYRING = 15
ARMOR = tuple(
    b"-----%b PGP %b-----\n" % (edge, what)
    for edge in (b"BEGIN", b"END")
    for what in (b"PUBLIC KEY BLOCK", b"PRIVATE KEY BLOCK", b"MESSAGE", b"SIGNED MESSAGE")
)


def clean_octets(octets: bytes) -> None:
    """Cleaning twice changes nothing, what was kept proves what it was said to prove, and all that is asked of a
    clean certificate can be answered."""
    for found in clean(octets, NOW):
        if not isinstance(found, Certificate):
            continue
        (again,) = clean(found.octets, NOW)
        assert again == found, "cleaned again it is another"
        assert prove(found.octets, NOW) == found.proof
        assert index(found.octets)[0] == found.proof.index
        cut(found.octets, [u.text for u in found.proof.user_ids])
        for user_id in found.proof.user_ids:
            if user_id.address:
                recipients(found.octets, user_id.address, NOW)


def merge_copies(octets: bytes) -> None:
    """Two copies of a certificate are merged to the same one whichever comes first, and it is a clean one."""
    (first,), second = parts(octets, 1)
    mine = {c.fingerprint: c for c in clean(first, NOW) if isinstance(c, Certificate)}
    for copy in clean(second, NOW):
        if isinstance(copy, Certificate) and copy.fingerprint in mine:
            both = merge([mine[copy.fingerprint].octets, copy.octets])
            assert both == merge([copy.octets, mine[copy.fingerprint].octets]), "the order counts"
            assert both == merge([both, copy.octets]), "merged again it is another"
            prove(both, NOW)


def read_text(octets: bytes) -> None:
    """Blocks read out of a text, written, are read again."""
    for block in read_armor(octets, binary=False).blocks:
        if block:
            assert dearmor(armor(block)) == (block,)


def split_keyring(octets: bytes) -> None:
    """A keyring falls into the same certificates however it comes."""

    def read(pieces: Sequence[bytes]) -> list[bytes]:
        splitter = Splitter(1 << 16)
        found = [piece for part in pieces for piece in splitter.feed(part)] + list(splitter.end())
        return [piece.octets for piece in found if isinstance(piece, Cut)]

    at_any_cut(octets, read)


def certificates() -> Iterator[bytes]:
    """Made ones, hostile ones, and short ones of Debian's keyrings."""
    yield make(seed="fuzz").octets
    yield make(["<a@example.org>"], algorithm="rsa1024", seed="fuzz").octets
    yield from (octets for build in hostile.HOSTILE.values() if len(octets := build()) < 8192)
    for file in ("debian-archive-keyring.gpg", "debian-role-keys.gpg", "debian-nonupload.gpg", "debian-keyring.gpg"):
        if (KEYRINGS / file).exists():
            splitter = Splitter(1 << 16)
            pieces = [p.octets for p in splitter.feed((KEYRINGS / file).read_bytes()) if isinstance(p, Cut)]
            yield from sorted(pieces, key=len)[:OF_A_KEYRING]


def copies() -> Iterator[bytes]:
    """Certificates beside themselves, and beside what is left of them."""
    for octets in islice(certificates(), 12):
        yield joined(octets, rest=octets)
        yield joined(octets, rest=octets[: len(octets) // 2])


def texts() -> Iterator[bytes]:
    """Armored certificates."""
    return (armor(octets) for octets in islice(certificates(), 20))


def keyrings() -> Iterator[bytes]:
    """Binary and armored, behind where they are cut."""
    two = b"".join(islice(certificates(), 2))
    for octets in chain((two, armor(two)), islice(certificates(), 10)):
        yield b"\0\x30" + octets


TARGETS = {
    "openpgp-clean": Target(clean_octets, certificates, 8192, mutators.openpgp),
    "openpgp-merge": Target(merge_copies, copies, 8192, mutators.of_fields(mutators.openpgp, mutators.openpgp)),
    "openpgp-armor": Target(read_text, texts, 8192, mutators.armored, ARMOR),
    "openpgp-keyring": Target(split_keyring, keyrings, 8192, mutators.behind_a_cut(mutators.openpgp), ARMOR),
}
