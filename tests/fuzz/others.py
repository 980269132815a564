"""What else comes from strangers: answers of name servers, socketmap, lists of recipients, cursors; and the frames
between our own processes."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from random import Random

import dns.message

from fuzz import mutators
from fuzz.target import NOW, Target, at_any_cut, events, unless_malformed
from keyserver.admin.problems import Unusable
from keyserver.admin.recipients import decoded, from_csv, pasted
from keyserver.model import Malformed
from keyserver.processes import frames
from keyserver.query import ByAddress
from keyserver.store.cursors import BadCursor, read, written
from keyserver.store.listing import Filter, Lifetimes, Listing
from keyserver.upstreams.dane.message import certificate_in, question_for
from keyserver.upstreams.dane.message import read as read_dns
from keyserver.upstreams.dane.transport import answers, truncated
from keyserver.wire import socketmap
from support.nameserver import Asked, alias, record, reply

ASKED = question_for(ByAddress("hugh", "example.com"))
assert ASKED is not None
QUESTION = ASKED
QUERY = QUESTION.octets()
QUESTION_END = len(QUERY) - 11  # behind it stands an OPT record (RFC 6891)
LISTING = Listing(Filter(), NOW, Lifetimes(1, 1))


def read_answer(octets: bytes) -> None:
    """An answer of a name server, whatever it is."""
    if answers(octets[:2] + QUERY[2:], octets):
        truncated(octets)
    if len(octets) >= 12:
        found = unless_malformed(lambda: read_dns(QUESTION, octets))
        for entry in found.records if found is not None else ():
            assert isinstance(certificate_in(entry), bytes)


def speak_socketmap(octets: bytes) -> None:
    """Netstrings, however they are cut."""

    def requests(pieces: Sequence[bytes]) -> list[bytes | str]:
        reader = socketmap.Reader()

        def feed(piece: bytes) -> Iterator[bytes]:
            reader.add(piece)
            while (request := reader.next()) is not None:
                yield request

        return events(feed, pieces)

    at_any_cut(octets, requests)
    for request in requests([octets[2:]]):
        if isinstance(request, bytes):
            socketmap.read(request)


def read_recipients(octets: bytes) -> None:
    """Lists of recipients: CSV, and whatever is pasted."""
    with contextlib.suppress(Unusable):
        content = decoded(octets)
        for read_list in (from_csv, pasted):
            with contextlib.suppress(Unusable):
                assert all(one and one == one.strip() for one in read_list(content))


def read_cursor(octets: bytes) -> None:
    """Where a listing goes on, as a stranger may write it; what was written is read."""
    text = octets.decode("latin-1")
    with contextlib.suppress(BadCursor):
        progress = read(text, LISTING)
        assert read(written(LISTING, progress.place, progress.searched), LISTING).place == progress.place


def read_frames(octets: bytes) -> None:
    """Frames between our processes, however they are cut, and their payloads."""
    at_any_cut(octets, lambda pieces: events(frames.Reader().feed, pieces))
    with contextlib.suppress(Malformed):
        facts, carried = frames.unpack(octets[2:])
        assert frames.unpack(frames.pack(facts, carried)) == (facts, carried)


def dns_records(octets: bytes, rng: Random, raw: mutators.Raw) -> bytes:
    """Behind the question that was asked: another or a changed record, mostly with a right length and count."""
    records, counts = octets[QUESTION_END:], bytearray(octets[4:12].ljust(8, b"\0"))
    match rng.randrange(4):
        case 0:
            records = raw(records)
        case 1:
            data = raw(rng.choice((b"\xc0\x0c", b"\x99\x01", b"\5other\7example\0")))
            type_ = rng.choice((5, 61, 61, 39, 46, 6, rng.randrange(1 << 16)))
            owner = rng.choice((b"\xc0\x0c", b"\5other\7example\0", records[:2] or b"\0"))
            records += owner + struct.pack(">HHIH", type_, 1, rng.randrange(1 << 32), len(data)) + data
            counts[3] = counts[3] + 1 & 255
        case 2:
            counts[rng.choice((1, 3, 5, 7))] = rng.randrange(8)
        case _:
            return octets[:2] + raw(octets[2:4])[:2].ljust(2, b"\0") + octets[4:]
    return octets[:4].ljust(4, b"\0") + bytes(counts) + octets[12:QUESTION_END] + records


def dns_answers() -> Iterator[bytes]:
    """A record, an alias before it, none."""
    asked = Asked(dns.message.from_wire(QUESTION.octets()), "tcp", 1)
    name = QUESTION.name.to_text()
    key = record("other.example.", "OPENPGPKEY", b"\x99\x01")
    for sets in ((record(name, "OPENPGPKEY", b"\x99\x01", b""),), (alias(name, "other.example."), key), ()):
        yield reply(asked, *sets).to_wire()


def netstrings() -> Iterable[bytes]:
    """Requests of Postfix."""
    return [b"\0\4" + socketmap.netstring(b"smtp_tls alice@example.org") * 2, b"\0\x010:,"]


def recipient_lists() -> Iterable[bytes]:
    """CSV of each kind."""
    return [
        b'address,name\r\nalice@example.org,"A, B"\r\n',
        "\ufeffname;e-mail\nÄ;bob@example.org\n".encode(),
        b"a@b.example, c@d.example\tx\n\n<e@f.example>",
    ]


def cursors() -> Iterable[bytes]:
    """One that was given, and JSON that was not."""
    return [written(LISTING, (1, "A" * 40), 7).encode(), b"WzEsMl0", json.dumps([1]).encode()]


def framed() -> Iterable[bytes]:
    """Frames and payloads."""
    sent = frames.write(frames.FrameKind.DATA, 3, b"hello") + frames.pieces(4, b"x" * 100)
    return [b"\0\3" + sent, b"\0\0" + frames.pack({"a": 1}, [b"x", b"yz"])]


TARGETS = {
    "dane-answer": Target(read_answer, dns_answers, 2048, dns_records),
    "socketmap": Target(speak_socketmap, netstrings, 2048, mutators.behind_a_cut(mutators.netstrings)),
    "recipients": Target(read_recipients, recipient_lists, 2048),
    "cursor": Target(read_cursor, cursors, 512),
    "process-frames": Target(read_frames, framed, 2048),
}
