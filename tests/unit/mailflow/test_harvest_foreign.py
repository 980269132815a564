"""Mail as other programs write it: odd, but with one sender and one certificate, which are found."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from keyserver import openpgp
from keyserver.mailflow.harvest import look
from keyserver.mailflow.values import Envelope, Mail, Rules, Seen, Way, Why
from keyserver.model import Certificate, Kind
from support.mails import attached_key, crlf, head, multipart, openssl, signed, text
from support.openpgp import armored, make_certificate
from support.x509 import BEGINS, YEAR, authority, person

MAILS = Path(__file__).parents[2] / "vectors" / "mail"
NOW_OF_VECTORS = 1_800_000_000
NOW = BEGINS + YEAR
ALICE = person("alice@partner.example", authority())
KEY = make_certificate(["Alice <alice@partner.example>"])
OTHER = make_certificate(["Alice <alice@partner.example>"])
HELLO = text()


def seen(mail: bytes, now: int = NOW) -> Seen:
    return look(Mail(Envelope(Way.MILTER), mail), Rules(), now)


def proved(found: Seen, now: int) -> list[tuple[str, ...]]:
    """The addresses of each certificate that was found."""
    addresses = []
    for candidate in found.candidates:
        certificate = candidate.certificate
        if certificate is None:
            (cleaned,) = openpgp.clean(candidate.octets, now)
            assert isinstance(cleaned, Certificate)
            certificate = cleaned
        addresses.append(tuple(u.address or "" for u in certificate.proof.user_ids))
    return addresses


@pytest.mark.parametrize("name", sorted(file.name for file in MAILS.glob("*.eml")))
@pytest.mark.parametrize("wire", [bytes, crlf])
def test_mail_that_other_software_reads(name: str, wire: type) -> None:
    found = seen(wire((MAILS / name).read_bytes()), NOW_OF_VECTORS)
    assert found.sender == "alice@partner.example"
    assert proved(found, NOW_OF_VECTORS) == [("alice@partner.example",)], found.remarks


@pytest.mark.parametrize("name", ["a00-control-detached.eml", "b02-octet-p7m.eml"])
def test_a_forged_vector_is_still_a_forgery(name: str) -> None:
    octets = (MAILS / name).read_bytes().replace(b"\r\n", b"\n")
    if name.startswith("b02"):
        first, blank, body = octets.partition(b"\n\n")
        inner = base64.b64decode(body)
        assert b"Hello there" in inner
        inner = inner.replace(b"Hello there", b"Hello where")
        octets = first + blank + base64.encodebytes(inner)
    else:
        octets = octets.replace(b"Hello there", b"Hello where")
    found = seen(octets, NOW_OF_VECTORS)
    assert not found.candidates
    assert {r.why for r in found.remarks} == {Why.INVALID}


def opaque(content_type: str, disposition: str = "") -> bytes:
    """An opaque signature whose part says of itself what is given."""
    der = openssl("cms", "-cmsout", "-inform", "SMIME", "-outform", "DER", stdin=signed(HELLO, ALICE, "-nodetach"))
    lines = [f"Content-Type: {content_type}", *([f"Content-Disposition: {disposition}"] if disposition else [])]
    return "\n".join([*lines, "Content-Transfer-Encoding: base64", "", base64.encodebytes(der).decode()]).encode()


@pytest.mark.parametrize(
    ("content_type", "disposition"),
    [
        ("application/octet-stream; name=smime.p7m", ""),
        ('application/octet-stream; name="SMIME.P7M"', ""),
        ("application/octet-stream", 'attachment; filename="smime.p7m"'),
        ("application/octet-stream", "attachment; filename*=utf-8''smime%2Ep7m"),
        ("application/octet-stream", "attachment; filename*0=smi; filename*1=me.p7m"),
        ("application/octet-stream", 'attachment; filename="=?utf-8?B?c21pbWUucDdt?="'),
        ("application/x-unknown; name=smime.p7m", "inline"),
        ("application/x-pkcs7-mime; smime-type=signed-data", ""),
    ],
)
def test_an_opaque_signature_by_type_or_name(content_type: str, disposition: str) -> None:
    found = seen(head("alice@partner.example") + opaque(content_type, disposition))
    assert [c.kind for c in found.candidates] == [Kind.X509]


@pytest.mark.parametrize("content_type", ["application/octet-stream; name=smime.dat", "application/octet-stream"])
def test_an_attachment_of_another_name_is_not_opened(content_type: str) -> None:
    found = seen(head("alice@partner.example") + opaque(content_type))
    assert (found.candidates, found.remarks) == ((), ())


def detached(last: str, outer: str = "") -> bytes:
    """`multipart/signed` whose second part has another type; `outer`: what the protocol parameter becomes."""
    mail = signed(HELLO, ALICE, sender="alice@partner.example").replace(b"\r\n", b"\n")
    part = b'Content-Type: application/pkcs7-signature; name="smime.p7s"'
    named = b'Content-Disposition: attachment; filename="smime.p7s"\n'
    protocol = b'protocol="application/pkcs7-signature"'
    assert part in mail
    assert named in mail
    assert protocol in mail
    mail = mail.replace(part, b"Content-Type: " + last.encode()).replace(named, b"")
    return mail.replace(protocol, f'protocol="{outer}"'.encode()) if outer else mail


@pytest.mark.parametrize(
    ("last", "outer", "found"),
    [
        ("application/octet-stream; name=smime.p7s", "", True),
        ("application/octet-stream; name=smime.p7s", "application/octet-stream", True),
        ("application/octet-stream", "", True),
        ("application/octet-stream", "application/pgp-signature", False),
        ("application/pdf", "", False),
    ],
)
def test_a_detached_signature_by_type_or_name(last: str, outer: str, found: bool) -> None:
    assert bool(seen(detached(last, outer)).candidates) is found


@pytest.mark.parametrize(
    "kind",
    [
        "application/octet-stream; name=key.asc",
        "application/octet-stream; name=0x1234.pgp",
        "application/pgp-signature; name=key.asc",
        "application/pgp-encrypted; name=KEY.ASC",
        "application/octet-stream",  # `attached_key` names it key.asc in its disposition
    ],
)
@pytest.mark.parametrize("octets", [KEY, armored(KEY).encode()], ids=["binary", "armored"])
def test_a_key_by_the_name_of_its_file(kind: str, octets: bytes) -> None:
    found = seen(head("alice@partner.example") + multipart(HELLO, attached_key(octets, kind)))
    assert [c.octets for c in found.candidates] == [KEY]
    assert not found.remarks


@pytest.mark.parametrize(
    "octets",
    [
        b"-----BEGIN PGP SIGNATURE-----\n\niHUE\n-----END PGP SIGNATURE-----\n",
        b"-----BEGIN RSA PRIVATE KEY-----\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        b"\x85\x01\x0c\x03" + b"x" * 300,
        b"\x89PNG\r\n",
        b"",
        b"x" * (3 << 20),
    ],
)
def test_a_file_that_is_only_named_like_a_key_says_nothing(octets: bytes) -> None:
    found = seen(head("alice@partner.example") + multipart(HELLO, attached_key(octets, "application/octet-stream")))
    assert (found.candidates, found.remarks) == ((), ())


def test_a_key_in_text_that_gpg_signed(tmp_path: Path) -> None:
    """As `gpg --clearsign` writes it, with its dash escapes."""
    tmp_path.chmod(0o700)
    gpg: Sequence[str] = ["gpg", "--homedir", str(tmp_path), "--batch", "--quiet", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "x@y.example"], check=True, capture_output=True)
    made = subprocess.run([*gpg, "--clearsign"], input=armored(KEY).encode(), check=True, capture_output=True).stdout
    subprocess.run(["gpgconf", "--homedir", str(tmp_path), "--kill", "gpg-agent"], check=True)
    assert b"- -----BEGIN PGP PUBLIC" in made
    found = seen(head("alice@partner.example") + text(made.decode()))
    assert [c.octets for c in found.candidates] == [KEY]


def test_damage_between_two_keys_costs_itself_alone() -> None:
    cut = armored(OTHER)[:300]
    found = seen(head("alice@partner.example") + text(f"{armored(KEY)}\n{cut}\n\n{armored(OTHER)}"))
    assert [c.octets for c in found.candidates] == [KEY, OTHER]
    assert {r.why for r in found.remarks} == {Why.UNREADABLE}


@pytest.mark.parametrize(
    "sender",
    [
        "Lee, Alice <alice@partner.example>",
        "Partner: Alice <alice@partner.example>",
        "Alice @ Partner <alice@partner.example>",
        '"alice"@partner.example',
    ],
)
def test_a_name_with_unquoted_specials_is_still_one_sender(sender: str) -> None:
    found = seen(signed(HELLO, ALICE, sender=sender))
    assert (found.sender, len(found.candidates)) == ("alice@partner.example", 1)
