"""Only the owner can read an invitation, and nothing of what is plain comes out of the certificate."""

from __future__ import annotations

import base64
import email
import email.policy
import re
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keyserver.invite.composing import Envelope, Mail, compose
from keyserver.invite.problem import NotInvited
from keyserver.invite.tokens import Token
from keyserver.invite.wording import Request
from keyserver.model import Certificate, Kind
from keyserver.openpgp import clean
from keyserver.query import parse_address
from support import mails, openpgp, x509
from support.hostile_text import NASTY
from support.running import Gpg

NOW = 1_790_000_000
ALICE = "alice@example.org"
CONFIRM = Token(bytes(range(32)))
ID = "0123456789abcdef" * 2
LINKS = (
    f"https://optin.example.org/confirm/{CONFIRM}",
    f"https://optin.example.org/withdraw/{CONFIRM.withdrawal}",
)
OPENPGP_HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
SMIME_HEADERS = [*OPENPGP_HEADERS, "Content-Transfer-Encoding", "Content-Disposition"]
CRLF_NAMES = (
    "Alice\r\nBcc: mallory@evil.example\r\n <alice@example.org>",
    'Alice"; x="y\n\nMALLORY <alice@example.org>',
    "=?utf-8?q?MALLORY?= <alice@example.org>",
    "M\u00e4llory\u2028\u202e <alice@example.org>",
    "MALLORY" * 200 + " <alice@example.org>",
)


def invite(octets: bytes, kind: Kind = Kind.OPENPGP, address: str = ALICE) -> Mail:
    fingerprint = "AB" * 32
    if kind is Kind.OPENPGP:
        (cleaned,) = clean(octets, NOW)
        assert isinstance(cleaned, Certificate), cleaned
        octets, fingerprint = cleaned.octets, cleaned.fingerprint
    request = Request(address, fingerprint, kind, "https://optin.example.org", CONFIRM, NOW + 14 * 86400)
    return compose(Envelope(ID, "Keys@Example.net", NOW), request, octets)


def read(mail: Mail) -> EmailMessage:
    made = email.message_from_bytes(mail.octets, policy=email.policy.SMTP)
    assert isinstance(made, EmailMessage)
    return made


def armor_of(mail: Mail) -> str:
    whole = read(mail)
    assert whole.get_content_type() == "multipart/encrypted"
    assert whole.get_param("protocol") == "application/pgp-encrypted"
    version, message = whole.iter_parts()
    assert (version.get_content_type(), str(version.get_payload()).strip()) == (
        "application/pgp-encrypted",
        "Version: 1",
    )
    return str(message.get_payload()).replace("\r\n", "\n")


def key_of(mail: Mail) -> str:
    """The ID of the one key that the message is encrypted to: its first packet (RFC 9580 section 5.1)."""
    body = armor_of(mail).partition("\n\n")[2].rpartition("\n=")[0]
    octets = base64.b64decode(body)
    begin, length = (2, octets[1]) if octets[1] < 192 else (3, (octets[1] - 192 << 8) + octets[2] + 192)
    assert (octets[0], octets[begin], octets[begin + length]) == (0xC1, 3, 0xD2), "one key, and protected data"
    return octets[begin + 1 : begin + 9].hex().upper()


def check_entity(entity: str) -> None:
    head, _, text = entity.replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("Content-Type: text/plain; charset=utf-8\n")
    assert all(link in text.splitlines() for link in LINKS)
    assert ALICE in text
    assert "optin.example.org asks" in text
    assert "2026-10-05 14:13 UTC" in text


def check_plain(mail: Mail) -> None:
    """Neither links nor tokens outside, in whatever spelling."""
    outside = mail.octets.partition(b"-----BEGIN PGP")[0]
    for secret in (CONFIRM, CONFIRM.withdrawal):
        for spelling in (str(secret).encode(), secret.octets, secret.octets.hex().encode(), secret.digest):
            assert spelling not in mail.octets
    assert b"optin" not in outside


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    with Gpg(tmp_path_factory.mktemp("owner")) as gpg:
        yield gpg


@pytest.mark.parametrize("algorithm", ["default", "rsa2048", "nistp384"])
def test_gpg_decrypts_what_its_owner_is_sent(gpg: Gpg, tmp_path: Path, algorithm: str) -> None:
    user_id = f"{algorithm} <{ALICE}>"
    signing = {"nistp384": "nistp384"}.get(algorithm, algorithm)
    words = ("--passphrase", "", "--pinentry-mode", "loopback", "--faked-system-time", "20260101T000000!")
    gpg.run(*words, "--quick-generate-key", user_id, signing, "default" if algorithm == "default" else "sign")
    shown = gpg.run("--list-keys", "--with-colons", f"={user_id}").stdout
    fingerprint = re.findall(r"^fpr:+([0-9A-F]+):", shown, re.MULTILINE)[0]
    if algorithm != "default":
        gpg.run(*words, "--quick-add-key", fingerprint, algorithm, "encr")
    gpg.run("--output", str(tmp_path / "key.gpg"), "--export", fingerprint)
    mail = invite((tmp_path / "key.gpg").read_bytes())
    file = tmp_path / "message.asc"
    file.write_text(armor_of(mail), encoding="ascii")
    done = gpg.run("--output", str(tmp_path / "text"), "--decrypt", str(file))
    assert "DECRYPTION_OKAY" in done.stdout
    assert "GOODMDC" in done.stdout
    check_entity((tmp_path / "text").read_text(encoding="utf-8"))
    check_plain(mail)
    assert [name for name, _ in read(mail).items()] == OPENPGP_HEADERS


def test_openssl_decrypts_what_its_owner_is_sent(tmp_path: Path) -> None:
    owner = x509.person(ALICE)
    (tmp_path / "key.pem").write_bytes(owner.key_pem)
    mail = invite(owner.der, Kind.X509)
    whole = read(mail)
    assert whole.get_content_type() == "application/pkcs7-mime"
    assert whole.get_param("smime-type") == "enveloped-data"
    assert whole.get_filename() == "smime.p7m"
    assert sorted(name for name, _ in whole.items()) == sorted(SMIME_HEADERS)
    entity = mails.openssl("cms", "-decrypt", "-inkey", str(tmp_path / "key.pem"), stdin=mail.octets)
    check_entity(entity.decode())
    check_plain(mail)
    parsed = mails.openssl("cms", "-cmsout", "-print", stdin=mail.octets)
    assert b"aes-256-cbc" in parsed


def test_the_head_says_who_to_whom_and_which_invitation() -> None:
    mail = invite(openpgp.make().octets)
    whole = read(mail)
    assert str(whole["From"]) == "Keys@Example.net"
    assert str(whole["To"]) == ALICE
    assert str(whole["Subject"]) == "Encrypted message"
    assert str(whole["Message-ID"]) == f"<{ID}.invitation@example.net>"
    assert str(whole["Auto-Submitted"]) == "auto-generated"
    assert str(whole["Date"]) == "Mon, 21 Sep 2026 14:13:20 +0000"
    assert (mail.sender, mail.recipient, mail.utf8) == ("Keys@Example.net", ALICE, False)


@pytest.mark.parametrize("name", CRLF_NAMES)
def test_names_in_a_certificate_get_nowhere(name: str) -> None:
    plain = invite(openpgp.make(["Alice <alice@example.org>"]).octets)
    named = invite(openpgp.make([name]).octets)
    _heads_are_equal(plain, named)


@pytest.mark.parametrize("name", [*CRLF_NAMES[1:3], *NASTY[:4], "Alice\r\nBcc: m@evil.example"])
def test_names_in_an_x509_certificate_get_nowhere(name: str) -> None:
    plain = invite(x509.person(ALICE).der, Kind.X509)
    named = invite(x509.person(ALICE, subject=x509.name(name[:64])).der, Kind.X509)
    _heads_are_equal(plain, named)


def _heads_are_equal(one: Mail, other: Mail) -> None:
    assert one.octets.partition(b"\r\n\r\n")[0] == other.octets.partition(b"\r\n\r\n")[0]
    assert all(re.fullmatch(rb"[ -~]*", line) for line in other.octets.split(b"\r\n"))


ADDRESSES = (
    '"a b"@example.org',
    '"a\\"b,c;\\\\"@example.org',
    "a..b@example.org",
    "a.@example.org",
    "%0d%0abcc@example.org",
    "a" * 64 + "@" + ".".join(["b" * 60] * 4),
    "alice@xn--bcher-kva.example",
    "\u00e4lice@example.org",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_stands_in_one_header_and_nowhere_else(address: str) -> None:
    _check_address(invite(openpgp.make([f"<{address}>"]).octets, address=address))


def _check_address(mail: Mail) -> None:
    head = mail.octets.partition(b"\r\n\r\n")[0].decode().split("\r\n")
    assert [line.partition(":")[0] for line in head] == OPENPGP_HEADERS
    utf8 = email.policy.SMTPUTF8
    whole = email.message_from_string("\r\n".join(head), policy=utf8)
    (recipient,) = whole["To"].addresses
    assert parse_address(recipient.addr_spec) == mail.recipient
    assert mail.utf8 is not mail.recipient.isascii()
    assert mail.utf8 or mail.octets.isascii()


@given(st.text(max_size=70), st.sampled_from(["example.org", "b\u00fccher.example"]))
@settings(max_examples=60, deadline=None)
def test_whatever_the_strict_rule_takes_is_written_so_that_it_reads_the_same(local: str, domain: str) -> None:
    address = parse_address(f"{local}@{domain}") or parse_address(f'"{local}"@{domain}')
    assume(address is not None)
    assert address is not None
    try:
        head = compose_head(address)
    except NotInvited:
        assert "=?" in address or address[1:].startswith(".") or '."@' in address or ".." in address
    else:
        _check_address(head)


def compose_head(address: str) -> Mail:
    request = Request(address, "AB" * 20, Kind.X509, "https://optin.example.org", CONFIRM, NOW)
    mail = compose(Envelope(ID, "Keys@Example.net", NOW), request, x509.person(ALICE).der)
    head, _, body = mail.octets.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith((b"Content-T", b"Content-D", b"MIME"))]
    plain = b"\r\n".join([*lines, b"MIME-Version: 1.0", b"Content-Type: text/plain"])
    return Mail(plain + b"\r\n\r\n" + body, mail.sender, mail.recipient)


@pytest.mark.parametrize(
    "address", ["Alice@example.org", "alice@example.org\r\nX: y", "alice", "a@b\u00fccher.example"]
)
def test_an_address_that_is_not_in_its_normal_form_is_refused(address: str) -> None:
    with pytest.raises(NotInvited, match="normal form"):
        invite(openpgp.make().octets, address=address)


def test_the_subkey_that_we_chose_is_used_and_no_other() -> None:
    """PGPy alone would take the first, and look neither at dates nor at revocations."""
    primary = openpgp.new_key("rsa2048")
    usage = [openpgp.flags(openpgp.CERTIFY | openpgp.ENCRYPT)]
    head = primary.packet() + openpgp.packet(openpgp.USER_ID, ALICE.encode())
    head += openpgp.certify(primary, ALICE.encode(), hashed=usage)
    revoked, good, expired = (openpgp.new_key("cv25519", openpgp.CREATED + n) for n in range(3))

    def bound(key: openpgp.Key, *hashed: bytes) -> bytes:
        binding = openpgp.bind(primary, key, hashed=hashed, created=key.created)
        return key.packet(openpgp.SUBKEY) + binding

    octets = head + bound(revoked) + openpgp.revoke_subkey(primary, revoked) + bound(good)
    octets += bound(expired, *openpgp.expiry(86400))
    assert key_of(invite(octets)) == good.key_id
    assert key_of(invite(head + bound(revoked) + openpgp.revoke_subkey(primary, revoked))) == primary.key_id
    newest = openpgp.new_key("x25519-native", openpgp.CREATED + 9)
    assert key_of(invite(octets + bound(newest))) == good.key_id, "what PGPy cannot do, when another can be used"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"version": 6}, "it has version 6, algorithm 25"),
        ({"encryption": "x25519-native"}, "it has version 4, algorithm 25"),
        ({"encryption": "ecdh-brainpool256"}, "cannot encrypt"),
        ({"encryption": None}, "no key for encryption that is valid now"),
        ({"subkeys_revoked": 0}, "no key for encryption that is valid now"),
        ({"expires": 86400}, "no key for encryption that is valid now"),
        ({"user_ids": ["bob@example.org"]}, "does not name the address"),
    ],
)
def test_what_cannot_be_encrypted_to_is_said(options: dict[str, object], why: str) -> None:
    with pytest.raises(NotInvited, match=why):
        invite(openpgp.make(**options).octets)  # type: ignore[arg-type]


def test_an_elliptic_curve_in_an_x509_certificate_is_refused() -> None:
    owner = x509.person(ALICE, key=ec.generate_private_key(ec.SECP256R1()), usage="key_agreement")
    with pytest.raises(NotInvited, match="RSA"):
        invite(owner.der, Kind.X509)
