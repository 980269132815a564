"""One mail: whose is it, is it inbound, and what in it may prove its sender's certificate? Pure and bounded."""

from __future__ import annotations

import email.utils
import re
from dataclasses import replace

from keyserver.mailflow import direction
from keyserver.mailflow.signed import chosen
from keyserver.mailflow.values import Candidate, Envelope, Mail, Remark, Rules, Seen, Way, Why
from keyserver.model import Kind, Malformed
from keyserver.openpgp.armor import Armored, read_armor
from keyserver.smime import cms
from keyserver.wire import authres, autocrypt, dsn, mime
from keyserver.wire.mailbox import one_mailbox

MAX_KEYS = 1 << 20  # octets of one part with OpenPGP keys
MAX_TEXT = 1 << 20  # octets of one text part that is searched for keys
MAX_CANDIDATES = 8  # per mail
MAX_SIGNATURES = 4  # signed parts that are verified, per mail
MAX_LAYERS = 3  # opaque signatures inside each other
_PUBLIC_KEY_PACKETS = (b"\x98", b"\x99", b"\x9a", b"\xc6")  # how certificates begin (RFC 9580 section 4.2)
_PGP_MESSAGE = b"-----BEGIN PGP MESSAGE-----"
_SMIME_SIGNATURE = ("application/pkcs7-signature", "application/x-pkcs7-signature")
_SMIME = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_KEYS, _PERHAPS_KEYS = "application/pgp-keys", "perhaps keys"
_UNSPECIFIC = (  # among them what tables of types by file name say of `.asc`
    "application/octet-stream", "application/x-octet-stream", "application/binary", "application/unknown",
    "application/x-unknown", "application/pgp", "application/pgp-signature", "application/pgp-encrypted",
)  # fmt: skip
_ENDINGS = {"p7m": _SMIME[0], "p7c": _SMIME[0], "p7s": _SMIME_SIGNATURE[0]} | dict.fromkeys(
    ("asc", "gpg", "key", "pgp", "pub"), _PERHAPS_KEYS
)
_NESTED = ("message/rfc822", "message/global", "message/partial", "message/external-body")


def look(mail: Mail, rules: Rules, now: int) -> Seen:
    """Read one mail. Never raises; whatever keeps it from being harvested is a remark."""
    if mail.cut or len(mail.octets) > mime.MAX_MESSAGE:
        found = direction.judge(mail.envelope, None, rules)
        text = f"the mail is larger than {mime.MAX_MESSAGE >> 20} MiB, and was not read"
        remarks = () if found.inbound else (Remark(found.why, found.text),)
        return Seen(None, found, remarks=(*remarks, Remark(Why.TOO_LARGE, text)))
    message = whole = mime.parse(mail.octets)
    authserv_id = rules.authserv_id
    if mail.envelope.way is Way.LMTP and (inner := _journaled(message)) is not None:
        # What an Exchange journal wraps stands for itself. Its headers are its sender's: they authenticate nobody.
        message, authserv_id = inner, ""
    seen = _look(message, mail.envelope, rules, authserv_id, now)
    failure = dsn.failure(whole) if mail.envelope.from_nobody else None
    return replace(seen, failure=failure) if failure is not None else seen


def headers_only(fields: mime.Fields, envelope: Envelope, rules: Rules) -> Remark | None:
    """Why a mail need not be read any further, as far as its headers can tell; None: it has to be read."""
    if envelope.from_nobody and dsn.is_report(fields):
        return None
    try:
        sender: str | None = one_mailbox(fields.all("from"))
    except Malformed as problem:
        found = direction.judge(envelope, None, rules)
        return Remark(found.why, found.text) if not found.inbound else Remark(Why.NO_SENDER, str(problem))
    found = direction.judge(envelope, sender, rules)
    return None if found.inbound else Remark(found.why, found.text)


def _look(message: mime.Message, envelope: Envelope, rules: Rules, authserv_id: str, now: int) -> Seen:
    fields = message.root.fields
    message_id = _message_id(fields)
    dated = _received(fields) if envelope.way is Way.FILE else None
    try:
        sender = one_mailbox(fields.all("from"))
    except Malformed as problem:
        found = direction.judge(envelope, None, rules)
        remark = Remark(Why.NO_SENDER, str(problem)) if found.inbound else Remark(found.why, found.text)
        return Seen(None, found, False, message_id, dated, remarks=(remark,))
    found = direction.judge(envelope, sender, rules)
    domain = sender.rpartition("@")[2]
    authenticated = bool(authserv_id) and authres.dmarc_passed(
        fields.all("authentication-results"), authserv_id, domain
    )
    if not found.inbound:
        return Seen(sender, found, authenticated, message_id, dated, remarks=(Remark(found.why, found.text),))
    if rules.require_authenticated_sender and not authenticated:
        text = "no Authentication-Results of mailflow.authserv_id says dmarc=pass for the From domain"
        return Seen(sender, found, False, message_id, dated, remarks=(Remark(Why.UNAUTHENTICATED, text),))
    collecting = _Collecting(sender, now)
    collecting.message(message)
    return Seen(
        sender, found, authenticated, message_id, dated, tuple(collecting.candidates), tuple(collecting.remarks)
    )


def kind_of(part: mime.Part) -> str:
    """The type that a part is of; where it says nothing definite, by the ending of its name (RFC 8551 section 3.9)."""
    if part.type not in _UNSPECIFIC:
        return part.type
    return _ENDINGS.get(part.file_name.rpartition(".")[2], part.type)


class _Collecting:
    """What one mail holds, and why some of it does not count."""

    def __init__(self, sender: str, now: int) -> None:
        self._sender = sender
        self._now = now
        self._signatures = 0
        self.candidates: list[Candidate] = []
        self.remarks: list[Remark] = []

    def message(self, message: mime.Message) -> None:
        """The whole mail: its Autocrypt headers and its parts."""
        headers = message.root.fields.all("autocrypt")
        if headers and message.root.type != "multipart/report":
            key = autocrypt.key_of(headers, self._sender)
            if key is not None:
                self._candidate(Candidate(Kind.OPENPGP, "Autocrypt header", key))
            else:
                self._note(Why.MISMATCH, "its Autocrypt header is not valid, or not for the From address")
        self._entity(message, 0)

    def _entity(self, message: mime.Message, layer: int) -> None:
        for problem in message.problems:
            self._note(Why.UNREADABLE, f"the mail was not read to its end: {problem}")
        for part in message.root.walk():
            try:
                self._part(message, part, layer)
            except Malformed as problem:
                self._note(Why.UNREADABLE, str(problem))

    def _part(self, message: mime.Message, part: mime.Part, layer: int) -> None:
        kind = kind_of(part)
        if kind == "multipart/signed":
            self._signed(message, part)
        elif kind == "multipart/encrypted":
            self._encrypted()
        elif kind in _SMIME:
            self._opaque(message, part, layer)
        elif kind == _KEYS:
            self._keys(message.decoded(part, MAX_KEYS))
        elif kind == _PERHAPS_KEYS:
            self._perhaps_keys(message, part)
        elif kind in _NESTED:
            self._note(Why.NESTED, "a message inside the mail is not read: what it carries is not its forwarder's")
        elif kind.startswith("text/"):
            self._text(message, part)

    def _signed(self, message: mime.Message, part: mime.Part) -> None:
        """`multipart/signed` (RFC 8551 section 3.5): the first part's very octets, with CRLF."""
        announced = part.parameters.get("protocol", "").lower() in _SMIME_SIGNATURE
        last = kind_of(part.parts[1]) if len(part.parts) == 2 else ""
        if last not in _SMIME_SIGNATURE and not (announced and last == "application/octet-stream"):
            if announced:
                self._note(Why.UNREADABLE, "a multipart/signed that has not two parts, content and signature")
            return
        structure = message.decoded(part.parts[1], cms.MAX_STRUCTURE)
        self._verified(structure, mime.canonical(message.raw(part.parts[0])))

    def _opaque(self, message: mime.Message, part: mime.Part, layer: int) -> None:
        """`application/pkcs7-mime`: signed with the content inside, or something that cannot be read."""
        structure = message.decoded(part, mime.MAX_MESSAGE)
        kind = cms.content_type(structure)
        if kind in ("enveloped_data", "authenticated_enveloped_data", "encrypted_data") or (
            kind == "1.2.840.113549.1.9.16.1.23"  # authEnvelopedData (RFC 5083)
        ):
            self._encrypted()
        elif kind != "signed_data":
            self._note(Why.UNREADABLE, "an application/pkcs7-mime part that is neither signed nor encrypted")
        elif part.parameters.get("smime-type", "").lower() == "certs-only" or part.file_name.endswith(".p7c"):
            self._note(Why.INVALID, "certificates without a signature over the mail prove nothing about its sender")
        else:
            content = self._verified(structure, None)
            if content is not None and layer < MAX_LAYERS:
                self._entity(mime.parse(bytes(content)), layer + 1)

    def _verified(self, structure: bytes, content: bytes | memoryview | None) -> bytes | memoryview | None:
        """The signed content, whose signers became candidates; None where the signature does not hold."""
        self._signatures += 1
        if self._signatures > MAX_SIGNATURES:
            self._note(Why.UNREADABLE, f"more than {MAX_SIGNATURES} signed parts")
            return None
        try:
            signatures, content = cms.verify(structure, content)
        except cms.NotVerified as problem:
            self._note(Why.INVALID, f"the S/MIME signature does not hold: {problem}")
            return None
        for signed in signatures:
            found, remarks = chosen(signed, self._sender, self._now)
            for candidate in found:
                self._candidate(candidate)
            self.remarks += remarks
        return content

    def _text(self, message: mime.Message, part: mime.Part) -> None:
        if part.end - part.body > 2 * MAX_TEXT:
            return  # no key of honest size makes a text that long
        text = message.decoded(part, MAX_TEXT * 2)
        if _PGP_MESSAGE in text:
            self._encrypted()
        self._blocks(read_armor(text, binary=False), "key in the text")

    def _keys(self, octets: bytes) -> None:
        armored = read_armor(octets)
        if armored == Armored():
            raise Malformed("no PGP PUBLIC KEY BLOCK in it")
        self._blocks(armored, "attached key")

    def _perhaps_keys(self, message: mime.Message, part: mime.Part) -> None:
        """An attachment that is named as keys are, and signatures and encrypted files as well."""
        try:
            octets = message.decoded(part, MAX_KEYS)
        except Malformed:
            return
        self._blocks(read_armor(octets, binary=octets[:1] in _PUBLIC_KEY_PACKETS), "attached key")

    def _blocks(self, armored: Armored, how: str) -> None:
        for problem in armored.damaged:
            self._note(Why.UNREADABLE, problem)
        for block in armored.blocks[: MAX_CANDIDATES + 1]:
            if len(block) > MAX_KEYS:
                self._note(Why.TOO_LARGE, "an OpenPGP key larger than 1 MiB")
            else:
                self._candidate(Candidate(Kind.OPENPGP, how, block))

    def _candidate(self, candidate: Candidate) -> None:
        if any(candidate.octets == known.octets for known in self.candidates):
            return
        if len(self.candidates) < MAX_CANDIDATES:
            self.candidates.append(candidate)
        else:
            self._note(Why.TOO_LARGE, f"more than {MAX_CANDIDATES} certificates")

    def _encrypted(self) -> None:
        self._note(Why.ENCRYPTED, "the mail is encrypted: what is inside cannot be read here")

    def _note(self, why: Why, text: str) -> None:
        remark = Remark(why, text)
        if remark not in self.remarks:
            self.remarks.append(remark)


def _journaled(message: mime.Message) -> mime.Message | None:
    """The one message that an Exchange journal report wraps."""
    if not message.root.fields.all("x-ms-journal-report"):
        return None
    nested = [part for part in message.root.parts if part.type == "message/rfc822"]
    if len(nested) != 1:
        return None
    return mime.parse(message.decoded(nested[0], mime.MAX_MESSAGE))


def _message_id(fields: mime.Fields) -> str:
    """The Message-ID, as far as it is printable and of honest length."""
    found = re.match(rb"<[!-;=?-~]{1,250}>", fields.first("message-id").strip())
    return found[0].decode("ascii") if found else ""


def _received(fields: mime.Fields) -> int | None:
    """When the last mail server on its way took it: the date in the topmost Received field (RFC 5321 section 4.4)."""
    value = fields.first("received")[:2000]
    if b";" not in value:
        return None
    try:
        stamp = email.utils.parsedate_to_datetime(value.rpartition(b";")[2].decode("latin-1").strip())
        return int(stamp.timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
