"""Mail: what is harvested from it, notifications, senders, and the protocols that bring it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fuzz import mutators
from fuzz.target import NOW, Target, at_any_cut, events, joined, parts, unless_malformed
from keyserver.mailflow import milter as harvesting
from keyserver.mailflow import trailing as trailers
from keyserver.mailflow.conversation import LOG, Conversation
from keyserver.mailflow.harvest import look
from keyserver.mailflow.memory import ArrivingMail, MailMemory
from keyserver.mailflow.values import Envelope, Mail, Rules, Way
from keyserver.openpgp import clean
from keyserver.policy import with_subdomains
from keyserver.query import parse_address
from keyserver.wire import authres, autocrypt, dsn, lmtp, mbox, milter, mime
from keyserver.wire.mailbox import one_mailbox
from support import milter_client
from support.mails import attached_key, crlf, head, multipart, text
from support.openpgp import make

MAILS = Path(__file__).parents[1] / "vectors" / "mail"
WORDS = (
    *(
        b"From: ",
        b"Autocrypt: addr=",
        b"; keydata=",
        b"; prefer-encrypt=mutual",
        b"Authentication-Results: mx;",
        b" dmarc=pass",
    ),
    *(
        b" header.from=",
        b"Content-Type: ",
        b"multipart/mixed; boundary=b\n",
        b"multipart/signed; protocol=",
        b"text/plain",
    ),
    *(
        b"application/pgp-keys",
        b"application/pkcs7-signature",
        b"application/pkcs7-mime; smime-type=signed-data",
        b"\n\n",
    ),
    *(
        b"Content-Transfer-Encoding: base64\n",
        b"quoted-printable",
        b"Content-Disposition: attachment; filename*0*=",
        b"--b",
    ),
    *(
        b"message/rfc822",
        b"message/delivery-status",
        b"=?utf-8?q?",
        b"?=",
        b"<alice@example.org>",
        b"--b--\n",
        b"; charset=",
    ),
)
COMMANDS = (
    *(
        b"LHLO x\r\n",
        b"MAIL FROM:<",
        b"RCPT TO:<",
        b"DATA\r\n",
        b"\r\n.\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"BDAT ",
    ),
    *(b"XFORWARD ", b"XCLIENT ", b" SIZE=", b" BODY=8BITMIME", b" SMTPUTF8", b"ADDR=", b"IDENT=", b"+2B"),
)
RULES = Rules(internal_domains=with_subdomains(["here.example"]), authserv_id="mx", require_authenticated_sender=False)


def harvest(octets: bytes) -> None:
    """Whatever a mail is, it is read; what is found belongs to its one sender and can be cleaned."""
    for way in Way:
        seen = look(Mail(Envelope(way, sender="x@example.org"), octets), RULES, NOW)
        assert seen.sender is None or parse_address(seen.sender) == seen.sender
        assert not seen.candidates or seen.sender
        for candidate in seen.candidates[:2]:
            clean(candidate.octets, NOW)


def read_parts(octets: bytes) -> None:
    """Every part lies within the mail, and what is said to have come back is named by printable identities."""
    message = mime.parse(octets)
    for part in message.root.walk():
        assert 0 <= part.start <= part.body <= part.end <= len(octets)
        assert len(unless_malformed(lambda part=part: message.decoded(part, 4096)) or b"") <= 4096  # type: ignore[misc]
        mime.canonical(message.raw(part))
        assert isinstance(part.file_name, str)
    failure = dsn.failure(message)
    assert failure is None or (failure.why.isprintable() and all(one.isprintable() for one in failure.ids))


def read_headers(octets: bytes) -> None:
    """From, Authentication-Results, Autocrypt."""
    (value,), rest = parts(octets, 1)
    sender = unless_malformed(lambda: one_mailbox([value]))
    assert sender is None or parse_address(sender) == sender
    authres.dmarc_passed([value, rest], "mx", "example.org")
    autocrypt.key_of([rest], sender or "alice@example.org")


def speak_lmtp(octets: bytes) -> None:
    """Commands and content, however they are cut; every line of a reply is one."""

    def read(pieces: Sequence[bytes]) -> tuple[str, bytes, bytes]:
        said = bytearray()
        session = lmtp.Session("here", said.extend)
        happened = events(session.feed, pieces)
        content = b"".join(event.octets for event in happened if isinstance(event, lmtp.Content))
        others = [event for event in happened if not isinstance(event, lmtp.Content)]
        assert all(line[:3].isdigit() for line in bytes(said).split(b"\r\n")[:-1])
        return repr(others), content, bytes(said)

    at_any_cut(octets, read)


def speak_milter(octets: bytes) -> None:
    """Frames, however they are cut, and all that is read in them."""

    def read(pieces: Sequence[bytes]) -> list[milter.Frame | str]:
        return events(milter.Reader().feed, pieces)

    at_any_cut(octets, read)
    for frame in read([octets[2:]]):
        if isinstance(frame, milter.Frame):
            unless_malformed(lambda frame=frame: milter.negotiated(frame.data))  # type: ignore[misc]
            milter.macros(frame.data)
            milter.client(frame.data)
            milter.path(frame.data)
            milter.header(frame.data)
    converse([frame for frame in read([octets[2:]]) if isinstance(frame, milter.Frame)])


def converse(frames: Sequence[milter.Frame]) -> None:
    """Whatever a mail server says, our milters let mail go on, and hold no memory when it is gone."""
    for conversation, memory in conversations_of_milters():
        for frame in frames:
            with troubles() as trouble:
                said = unless_malformed(lambda c=conversation, f=frame: c.answer(f))  # type: ignore[misc]
            assert not trouble, trouble
            assert said is None or said in (b"", milter.ACCEPT, milter.CONTINUE) or said[4:5] == b"O"
            if said is None or conversation.over:
                break
        conversation.drop()
        assert memory.used == 0


def conversations_of_milters() -> list[tuple[Conversation, MailMemory]]:
    """The harvest's and the trailer's, with what their mails take."""
    memories = MailMemory(), MailMemory()

    def offer(envelope: Envelope, holding: ArrivingMail) -> bool:
        holding.free()
        return True

    intake: Any = SimpleNamespace(memory=memories[0], rules=lambda: RULES, offer=offer)
    trailing: Any = SimpleNamespace(memory=memories[1], rules=lambda: RULES, link=lambda: "https://x.example/")
    both = harvesting.Conversation(intake), trailers.Conversation(trailing)
    return list(zip(both, memories, strict=True))


@contextlib.contextmanager
def troubles() -> Iterator[list[str]]:
    """What is logged as an error of ours: it stops no mail, and so would not be seen."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(repr(record.exc_info))  # type: ignore[method-assign]
    LOG.addHandler(handler)
    try:
        yield found
    finally:
        LOG.removeHandler(handler)


def split_mailbox(octets: bytes) -> None:
    """A mailbox falls into the same mails however it comes."""

    def read(pieces: Sequence[bytes]) -> list[mbox.Letter]:
        splitter = mbox.Splitter()
        return [letter for piece in pieces for letter in splitter.feed(piece)] + list(splitter.end())

    at_any_cut(octets, read)


def mails() -> Iterator[bytes]:
    """The vectors, a key attached, a key in the text, a notification."""
    for file in sorted(MAILS.glob("*.eml")):
        yield file.read_bytes()
    octets = make(["<alice@example.org>"], seed="fuzz").octets
    yield crlf(head("alice@example.org") + multipart(text(), attached_key(octets)))
    yield crlf(
        b"From: MAILER-DAEMON\nReferences: <1@here.example>\n"
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n"
        b"--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; x\n\nFinal-Recipient: rfc822; a@b\n"
        b"Action: failed\nStatus: 5.1.1\n--b\nContent-Type: text/rfc822-headers\n\n"
        b"Message-ID: <1@here.example>\n--b--\n"
    )


def headers() -> Iterable[bytes]:
    """A sender, and who says so."""
    key = b"addr=alice@example.org; prefer-encrypt=mutual; keydata=mQENBA=="
    return [
        joined(b'"Alice, x" (y) <alice@example.org>', rest=key),
        joined(b"alice@example.org", rest=b"mx; dmarc=pass (p=none) header.from=example.org"),
        joined(b"mx 1; spf=fail; dmarc=pass header.from=example.org", rest=b""),
    ]


def conversations() -> Iterable[bytes]:
    """LMTP as Postfix speaks it."""
    mail = b"MAIL FROM:<a@b.example> BODY=8BITMIME\r\nRCPT TO:<x@here.example>\r\nDATA\r\nA: b\r\n\r\n..x\r\n.\r\n"
    start = b"LHLO mx\r\nXFORWARD ADDR=192.0.2.1 IDENT=4Xy+5B\r\n"
    return [b"\0\x40" + start + mail + mail + b"QUIT\r\n", b"\0\7" + mail, b"\0\7VRFY x\nRSET\nNOOP\n"]


def frames() -> Iterable[bytes]:
    """A mail as a mail server hands it to a filter."""
    said = milter_client.negotiate() + milter_client.connect() + milter_client.frame("L", b"From\0a@b.example\0")
    macros = milter_client.macro("M", {"i": "4X", "{auth_authen}": "x"})
    return [b"\0\x20" + said + macros + milter_client.frame("B", b"hello") + milter_client.frame("E")]


def mailboxes() -> Iterable[bytes]:
    """Two mails, the second with a quoted From line."""
    return [
        b"\0\x30From a@b Sat Nov 28 10:00:00 2026\nA: b\n\nx\n\nFrom c@d Sat Nov 28 10:00:01 2026\nA: b\n\n>From y\n"
    ]


TARGETS = {
    "mail-harvest": Target(harvest, mails, 8192, mutators.lines, WORDS),
    "mail-mime": Target(read_parts, mails, 8192, mutators.lines, WORDS),
    "mail-headers": Target(read_headers, headers, 2048, words=WORDS),
    "mail-mbox": Target(split_mailbox, mailboxes, mutate=mutators.behind_a_cut(mutators.lines)),
    "lmtp": Target(speak_lmtp, conversations, 4096, mutators.behind_a_cut(mutators.lines), COMMANDS),
    "milter": Target(speak_milter, frames, mutate=mutators.behind_a_cut(mutators.milter_frames)),
}
