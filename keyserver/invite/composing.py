"""Mail that only the owner of a certificate can read: PGP/MIME (RFC 3156) or S/MIME (RFC 8551).

What is plain of it holds addresses, a date and the invitation's ID, and nothing out of the certificate.
"""

from __future__ import annotations

import email.policy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_string
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import PKCS7EnvelopeBuilder, PKCS7Options

from keyserver.invite.problem import NotInvited
from keyserver.invite.wording import Request, text_of
from keyserver.model import Kind
from keyserver.openpgp.recipients import Recipient, recipients
from keyserver.query import parse_address

SUBJECT = "Encrypted message"
MARK = ".invitation@"
"""What stands in a Message-ID between the invitation's ID and the sender's domain."""

_RSA, _ECDH = 1, 18  # what PGPy encrypts to (RFC 9580 section 9.1)
_LINE = 998  # octets of a header line (RFC 5322 section 2.1.1): an address is never folded


@dataclass(frozen=True, slots=True)
class Envelope:
    """What is plain of a mail."""

    id: str  # the invitation's
    sender: str  # of the configuration
    now: int  # Unix seconds


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail, ready to be handed to a relay."""

    octets: bytes
    sender: str
    recipient: str

    @property
    def utf8(self) -> bool:
        """Does it need SMTPUTF8 (RFC 6531)? The domain of a normalised address is ASCII."""
        return not self.recipient.isascii()


def compose(envelope: Envelope, request: Request, octets: bytes) -> Mail:
    """The whole mail. `octets`: the clean certificate. Raises NotInvited where nothing can be encrypted to it here.

    May take some 100 ms the first time."""
    if parse_address(request.address) != request.address:
        raise NotInvited("the address is not in its normal form")
    encrypt = _with_openpgp if request.kind is Kind.OPENPGP else _with_smime
    fill = encrypt(_entity(text_of(request)), request, octets, envelope.now)
    mail = EmailMessage(email.policy.SMTP)
    domain = envelope.sender.rpartition("@")[2].lower()
    address_it(mail, f"{envelope.id}{MARK}{domain}", envelope.sender, request.address, SUBJECT, envelope.now)
    fill(mail)
    lines = email.policy.SMTP.clone(max_line_length=_LINE, utf8=not request.address.isascii())
    made = Mail(mail.as_bytes(policy=lines), envelope.sender, request.address)
    if _recipient(made) != request.address:  # what looks like an encoded word (RFC 2047 section 2), or `"."@…`
        raise NotInvited("the address cannot stand in the head of a mail")
    return made


def _recipient(mail: Mail) -> str | None:
    """To whom a mail program reads that it is."""
    head = mail.octets.partition(b"\r\n\r\n")[0].decode()
    addresses = message_from_string(head, policy=email.policy.SMTPUTF8)["To"].addresses
    return parse_address(addresses[0].addr_spec) if len(addresses) == 1 else None


def address_it(mail: EmailMessage, id_: str, sender: str, recipient: str, subject: str, now: int) -> None:
    """The head of a mail that nobody wrote by hand. id_: of the Message-ID, without its brackets; now: Unix seconds."""
    mail["From"] = _address(sender)
    mail["To"] = _address(recipient)
    mail["Subject"] = subject
    mail["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    mail["Message-ID"] = f"<{id_}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5


def _address(text: str) -> Address:
    """`Address` quotes a local part that has to be, so ours comes without its quotes."""
    local, _, domain = text.rpartition("@")
    if local.startswith('"'):
        local = local[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return Address(username=local, domain=domain)


def _entity(text: str) -> bytes:
    """What is encrypted: a MIME entity in canonical form (RFC 3156 section 3, RFC 8551 section 3.1)."""
    coding = "7bit" if text.isascii() else "8bit"
    head = f"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: {coding}\n\n"
    return (head + text).replace("\n", "\r\n").encode()


_Fill = Callable[[EmailMessage], None]
"""Gives a mail its encrypted content."""


def _with_openpgp(entity: bytes, request: Request, octets: bytes, now: int) -> _Fill:
    """PGP/MIME: a part that says the version, and one with the armored message (RFC 3156 section 4)."""
    armor = encrypted_to(_chosen(recipients(octets, request.address, now)), entity)

    def fill(mail: EmailMessage) -> None:
        version, message = EmailMessage(mail.policy), EmailMessage(mail.policy)
        version["Content-Type"] = "application/pgp-encrypted"
        version.set_payload("Version: 1\n")
        message["Content-Type"] = 'application/octet-stream; name="encrypted.asc"'
        message["Content-Disposition"] = 'inline; filename="encrypted.asc"'
        message.set_payload(armor)
        mail["MIME-Version"] = "1.0"
        mail["Content-Type"] = 'multipart/encrypted; protocol="application/pgp-encrypted"; boundary="=_encrypted"'
        mail.attach(version)
        mail.attach(message)

    return fill


def _chosen(several: list[Recipient]) -> Recipient:
    """The newest key that we can encrypt to."""
    if not several:
        raise NotInvited("it has no key for encryption that is valid now, or does not name the address now")
    for one in several:
        if one.version == 4 and one.algorithm in (_RSA, _ECDH):
            return one
    what = ", ".join(sorted({f"version {one.version}, algorithm {one.algorithm}" for one in several}))
    raise NotInvited(f"mail can be encrypted here to OpenPGP keys of version 4, RSA and ECDH; it has {what}")


def encrypted_to(recipient: Recipient, entity: bytes) -> str:
    """An armored message (RFC 9580 section 5.1, 5.13.1). Raises NotInvited.

    PGPy chooses keys without regard to revocations and dates, so it gets a certificate with no other, and is told
    which. It cannot be had without warnings that mean nothing here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pgpy
        from pgpy.constants import CompressionAlgorithm, SymmetricKeyAlgorithm

        try:
            key, _ = pgpy.PGPKey.from_blob(recipient.octets)
            chosen = key if recipient.is_primary else next(iter(key.subkeys.values()))
            if chosen.fingerprint != recipient.fingerprint:
                raise NotInvited("PGPy reads another key than we do")
            cipher = _cipher(next(iter(key.userids)).selfsig.cipherprefs, SymmetricKeyAlgorithm)
            message = pgpy.PGPMessage.new(entity, format="b", compression=CompressionAlgorithm.Uncompressed)
            encrypt = pgpy.PGPKey.encrypt.__wrapped__  # without its choice of a key
            return str(encrypt(chosen, message, cipher=cipher))
        except (pgpy.errors.PGPError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError) as why:
            raise NotInvited(f"PGPy cannot encrypt to it ({type(why).__name__})") from why
        except UnsupportedAlgorithm as why:
            raise NotInvited("PGPy cannot encrypt to its curve") from why


def _cipher(preferred: Any, known: Any) -> Any:
    """The strongest AES that the owner's programs name; every implementation has the smallest (section 9.3)."""
    return next((one for one in (known.AES256, known.AES192) if one in preferred), known.AES128)


def _with_smime(entity: bytes, request: Request, octets: bytes, now: int) -> _Fill:
    """Enveloped data (RFC 8551 section 3.3). Is the certificate valid now? That was judged before."""
    try:
        certificate = x509.load_der_x509_certificate(octets)
        if not isinstance(certificate.public_key(), rsa.RSAPublicKey):
            raise NotInvited("mail can be encrypted here to S/MIME certificates with RSA keys; it has another")
        builder = PKCS7EnvelopeBuilder().set_data(entity).add_recipient(certificate)
        sealed = builder.set_content_encryption_algorithm(AES256).encrypt(Encoding.DER, [PKCS7Options.Binary])
    except (ValueError, TypeError, UnsupportedAlgorithm) as why:
        raise NotInvited(f"nothing can be encrypted to it here ({type(why).__name__})") from why

    def fill(mail: EmailMessage) -> None:
        mail.set_content(
            sealed,
            maintype="application",
            subtype="pkcs7-mime",
            disposition="attachment",
            filename="smime.p7m",
            params={"smime-type": "enveloped-data", "name": "smime.p7m"},
        )

    return fill
