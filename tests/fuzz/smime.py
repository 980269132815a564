"""S/MIME: certificates, bundles, signatures, revocation lists."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography import x509

from fuzz import mutators
from fuzz.target import NOW, Target, joined, parts, unless_malformed
from keyserver import smime
from keyserver.model import Certificate, Refused
from keyserver.openpgp.armor import armor
from keyserver.smime import ber, cms
from keyserver.smime.constraints import allow
from keyserver.smime.crl import Authority
from keyserver.smime.crl import authority as read_authority
from keyserver.smime.crl_reading import read_list
from keyserver.smime.reading import Reading, read
from keyserver.wire import pem
from keyserver.wire.ber import element, header
from support import x509odd
from support.crls import ENDS, body_of, revocation_list, signed_again
from support.mails import crlf, signed, text
from support.x509 import Issued, authority, name, person

ADDRESS = "alice@example.org"
VECTORS = Path(__file__).parents[1] / "vectors"
PEM = (b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"-----BEGIN PKCS7-----\n", b"-----")


def clean_certificate(octets: bytes) -> None:
    """What is kept is kept again; chains to nothing; whoever reads it again finds the same proof."""
    for der in unless_malformed(lambda: smime.unpack(octets)) or [octets]:
        for found in smime.clean(der, NOW):
            if isinstance(found, Certificate):
                assert smime.clean(found.octets, NOW) == [found]
                assert smime.prove(found.octets, NOW) == found.proof
            else:
                assert isinstance(found, Refused) and found.reason
    smime.intermediates(octets)


def verify_signature(octets: bytes) -> None:
    """A signature beside some content, or with it inside."""
    (content,), structure = parts(octets, 1)
    unless_malformed(lambda: cms.content_type(structure))
    for over in (content, None):
        try:
            unless_malformed(lambda over=over: cms.verify(structure, over))  # type: ignore[misc]
        except cms.NotVerified:
            continue


@cache
def issuer() -> tuple[Issued, Authority]:
    """Who signs the lists."""
    made = authority()
    return made, read_authority(made.der)


def read_revocations(octets: bytes) -> None:
    """Octets as what a list signs, with a good signature, as only an authority could make them; each entry is found."""
    made, known = issuer()
    for listed in (signed_again(made, octets), octets):
        found = unless_malformed(lambda listed=listed: read_list(listed, known, ENDS - 1))  # type: ignore[misc]
        if found is not None:
            assert found.count >= 0
            found.find(b"\x05")


@cache
def leaves() -> tuple[Reading, ...]:
    """Certificates of one address, in a place that the chain library checks and in one that it does not."""
    made = authority()
    return tuple(
        read(one.der)
        for one in (person(ADDRESS, made), person(ADDRESS, made, subject=name("A", email=ADDRESS), emails=[]))
    )


def constrain(octets: bytes) -> None:
    """Whatever an authority's constraints are, they allow nothing more when a name is excluded besides."""
    for leaf in leaves():
        held: Any = SimpleNamespace(values=lambda _: [octets])
        allow(held, leaf)
        content = unless_malformed(lambda: header(octets, 0, len(octets)))
        if content is not None and content[0] == 0x30:
            excluded = element(0xA1, element(0x30, element(0x81, ADDRESS.rpartition("@")[2].encode())))
            more = element(0x30, octets[content[1] : content[2]], excluded)
            held.values = lambda _, more=more: [more]
            assert not allow(held, leaf)


def constraints() -> Iterator[bytes]:
    """Hosts, mailboxes, directories; permitted and excluded."""
    example = [x509.RFC822Name(text) for text in ("example.org", ".example.org", ADDRESS, "other.example")]
    directory, domain = x509.DirectoryName(name("A")), x509.DNSName("example.org")
    other = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9"), element(0x0C, b"example.org"))
    for permitted, excluded in ((example, None), ([*example[:1], directory, domain], example[3:]), (None, [other])):
        yield x509.NameConstraints(permitted, excluded).public_bytes()


def walk_ber(octets: bytes) -> None:
    """Every element lies within what it was found in."""
    for part in unless_malformed(lambda: list(ber.walk(octets))) or ():
        assert part.octets in octets
    unless_malformed(lambda: read(octets))


def split_pem(octets: bytes) -> None:
    """A file of certificates, whole and in pieces."""

    def pieces(size: int) -> list[object]:
        blocks = pem.Blocks(1 << 12)
        found = [p for at in range(0, len(octets), size) for p in blocks.feed(octets[at : at + size])]
        return [*found, *blocks.end()]

    assert pieces(max(1, len(octets))) == pieces(7)


def ders() -> Iterable[bytes]:
    """Odd ones, and the vectors."""
    yield from (octets for octets in x509odd.corpus().values() if len(octets) < 4096)
    for file in sorted((VECTORS / "x509").glob("*.[dp][e7][rb]")):
        yield file.read_bytes()


def signatures() -> Iterator[bytes]:
    """One beside its content, one with it inside, certificates without one."""
    signer, content = person("alice@example.org", authority()), text()
    yield joined(crlf(content), rest=signed(content, signer, "-outform", "DER"))
    yield joined(b"", rest=signed(content, signer, "-outform", "DER", "-nodetach"))
    yield joined(b"", rest=smime.pack([signer.der]))


def lists() -> Iterator[bytes]:
    """What ordinary lists sign, and a whole one."""
    made, _ = issuer()
    for revoked in ((), (5,), (1, 2, 300)):
        yield body_of(revocation_list(made, revoked))
    yield revocation_list(made, (5,))


def files() -> Iterable[bytes]:
    """PEM, DER, and what is neither."""
    made = authority()
    large = b"-----BEGIN CERTIFICATE-----\n" + b"MIIB" * 1100 + b"\n-----END CERTIFICATE-----\n"
    return [made.pem, made.pem * 3, made.der, made.key_pem, armor(b"\x99"), large + made.pem]


TARGETS = {
    "smime-clean": Target(clean_certificate, ders, mutate=mutators.elements),
    "smime-cms": Target(verify_signature, signatures, 8192, mutators.of_fields(mutators.anyhow, mutators.elements)),
    "smime-crl": Target(read_revocations, lists, mutate=mutators.elements),
    "smime-constraints": Target(constrain, constraints, 1024, mutators.elements, (b"example.org", ADDRESS.encode())),
    "smime-ber": Target(walk_ber, ders, mutate=mutators.elements),
    "smime-pem": Target(split_pem, files, 8192, mutators.lines, PEM),
}
