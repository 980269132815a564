"""Mail as it came (RFC 5322, RFC 2045, RFC 2046): raw slices of the parts, never re-serialised, bounded and linear.

A signature over a part is a signature over its very octets, so parts are offsets into the message. What is malformed
is read as far as it goes; what exceeds a limit is left unread, and `problems` says so.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from keyserver.model import Malformed
from keyserver.wire.parameters import read_parameters, spoken

MAX_MESSAGE = 16 << 20  # octets; larger mail is not read for certificates
MAX_HEADERS = 256 << 10  # octets of the message's own headers, and of one part's
MAX_FIELDS = 1000  # header fields of one part
MAX_LINES = 4 * MAX_FIELDS  # of a header, unfolded
MAX_PARTS = 500
MAX_DEPTH = 10
MAX_BOUNDARY = 998  # RFC 2046 section 5.1.1 has 70, some mailers more; this is a line (RFC 5322 section 2.1.1)
MAX_LIKENESSES = 10_000  # lines that begin like a delimiter and are none
MAX_TYPE = 4096  # octets of a Content-Type field
_NOT_BASE64 = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="))
_PIECE = 256 << 10  # octets decoded at once: between pieces other threads have their turn


@dataclass(frozen=True, slots=True)
class Fields:
    """The header fields of one part in their order, values as they came, without the line ends of folding."""

    pairs: tuple[tuple[str, bytes], ...] = ()  # lower-case name, unfolded value

    def all(self, name: str) -> list[bytes]:
        """Every value of a field, topmost first."""
        return [value for found, value in self.pairs if found == name]

    def first(self, name: str) -> bytes:
        """The topmost value of a field, or nothing."""
        return next((value for found, value in self.pairs if found == name), b"")


@dataclass(frozen=True, slots=True)
class Part:
    """One body part: offsets into the message, without the line end before the next boundary."""

    fields: Fields = field(repr=False)
    start: int  # of its headers
    body: int
    end: int
    type: str  # lower-case, such as "multipart/signed"
    parameters: Mapping[str, str]
    parts: tuple[Part, ...] = ()

    @property
    def file_name(self) -> str:
        """The name that its sender gave it (RFC 2183 section 2.3, or RFC 2045's `name`), in lower case."""
        disposition = self.fields.first("content-disposition")[:MAX_TYPE].decode("latin-1")
        named = read_parameters(disposition, disposition.find(";")) if ";" in disposition else {}
        return spoken(named.get("filename") or self.parameters.get("name", "")).strip().lower()

    def walk(self) -> Iterator[Part]:
        """This part and those inside it, outer ones first; nothing inside a nested message is among them."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting.extend(reversed(part.parts))


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message or MIME entity."""

    octets: bytes = field(repr=False)
    root: Part
    problems: tuple[str, ...] = ()

    def raw(self, part: Part) -> memoryview:
        """A part's headers and body as they came: what a signature over it covers, but for bare line feeds."""
        return memoryview(self.octets)[part.start : part.end]

    def decoded(self, part: Part, most: int) -> bytes:
        """A part's body without its transfer encoding. Raises Malformed above `most` octets."""
        body = memoryview(self.octets)[part.body : part.end]
        return decode(body, part.fields.first("content-transfer-encoding"), most)


def parse(octets: bytes) -> Message:
    """The parts of a message. Never raises; a message over MAX_MESSAGE has no parts but itself.

    Where no line ends with a line feed, carriage returns end them."""
    if b"\n" not in octets and len(octets) <= MAX_MESSAGE:
        octets = octets.replace(b"\r", b"\n")
    reader = _Reader(octets)
    start = _after_from_line(octets)
    if len(octets) > MAX_MESSAGE:
        reader.note("larger than 16 MiB")
        return Message(octets, Part(Fields(), start, len(octets), len(octets), "", {}), tuple(reader.problems))
    root = reader.part(start, len(octets), 0, "text/plain")
    return Message(octets, root, tuple(reader.problems))


def _after_from_line(octets: bytes) -> int:
    """Mailbox files and some delivery agents put a line `From sender date` before the headers."""
    if not octets.startswith(b"From "):
        return 0
    end = octets.find(b"\n", 0, 2000)
    return end + 1


class _Reader:
    """Reads the parts of one message and counts what it has read."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._count = 0
        self.problems: list[str] = []

    def note(self, problem: str) -> None:
        if problem not in self.problems:
            self.problems.append(problem)

    def part(self, start: int, end: int, depth: int, default: str) -> Part:
        """The part between two offsets, with its parts."""
        self._count += 1
        body = header_end(self._octets, start, end)
        if body - start > MAX_HEADERS:
            self.note("headers larger than 256 KiB")
            return Part(Fields(), start, end, end, "", {})
        fields = read_fields(self._octets[start:body])
        if len(fields.pairs) >= MAX_FIELDS:
            self.note(f"more than {MAX_FIELDS} header fields")
        kind, parameters = content_type(fields.first("content-type"), default)
        parts: tuple[Part, ...] = ()
        if kind.startswith("multipart/"):
            parts = tuple(self._parts(body, end, depth, kind, parameters))
        return Part(fields, start, body, end, kind, parameters, parts)

    def _parts(self, body: int, end: int, depth: int, kind: str, parameters: Mapping[str, str]) -> Iterator[Part]:
        boundary = parameters.get("boundary", "").rstrip(" ")
        if not 0 < len(boundary) <= MAX_BOUNDARY or not boundary.isascii():
            self.note("a multipart without a usable boundary")
            return
        if depth >= MAX_DEPTH:
            self.note(f"nested more than {MAX_DEPTH} deep")
            return
        default = "message/rfc822" if kind == "multipart/digest" else "text/plain"
        try:
            for start, stop in delimited(self._octets, body, end, boundary.encode()):
                if self._count >= MAX_PARTS:
                    self.note(f"more than {MAX_PARTS} parts")
                    return
                yield self.part(start, stop, depth + 1, default)
        except Malformed as problem:
            self.note(str(problem))


def delimited(octets: bytes, start: int, end: int, boundary: bytes) -> Iterator[tuple[int, int]]:
    """Where the parts between delimiter lines lie (RFC 2046 section 5.1.1); the last may lack its delimiter.

    Raises Malformed where too many lines only look like delimiters."""
    mark = b"--" + boundary
    opened: int | None = None
    likenesses = 0
    at = start if octets.startswith(mark, start, end) else _at_line_start(octets, mark, start, end)
    while at is not None:
        after = at + len(mark)
        closing = octets.startswith(b"--", after)
        line = _REST.match(octets, after + 2 if closing else after, end)
        if line is None:
            likenesses += 1
            if likenesses > MAX_LIKENESSES:
                raise Malformed("too many lines that look like its boundary")
        else:
            if opened is not None:
                yield opened, max(opened, _before_line_end(octets, at))
            if closing:
                return
            opened = line.end()
            after = opened - 1
        at = _at_line_start(octets, mark, after, end)
    if opened is not None:
        yield opened, end


def _at_line_start(octets: bytes, mark: bytes, start: int, end: int) -> int | None:
    found = octets.find(b"\n" + mark, start, end)
    return None if found < 0 else found + 1


_REST = re.compile(rb"[ \t]*(?:\r?\n|\Z)")


def _before_line_end(octets: bytes, at: int) -> int:
    """The line end before a delimiter belongs to the delimiter."""
    if at and octets[at - 1] == 10:
        at -= 1
        if at and octets[at - 1] == 13:
            at -= 1
    return at


def header_end(octets: bytes, start: int, end: int) -> int:
    """Where the body begins: after the first empty line; `end` where there is none.

    Looks no further than MAX_HEADERS; what is longer answers with an offset beyond that."""
    if octets[start : start + 1] == b"\n":
        return start + 1
    if octets[start : start + 2] == b"\r\n":
        return start + 2
    most = min(end, start + MAX_HEADERS + 4)
    at = start
    while True:
        at = octets.find(b"\n", at, most)
        if at < 0:
            return end if end <= most else end + MAX_HEADERS
        at += 1
        if octets[at : at + 1] == b"\n" and at < end:
            return at + 1
        if octets[at : at + 2] == b"\r\n" and at + 1 < end:
            return at + 2


def read_fields(block: bytes) -> Fields:
    """Header fields (RFC 5322 section 2.2), unfolded; lines that are none are passed over, MAX_LINES at most."""
    pairs: list[tuple[str, bytes]] = []
    unfolded = block.replace(b"\r\n", b"\n").replace(b"\n ", b" ").replace(b"\n\t", b"\t")
    for line in unfolded.split(b"\n", MAX_LINES)[:MAX_LINES]:
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t").lower()
        if not colon or not _NAME.fullmatch(name):
            continue
        if len(pairs) >= MAX_FIELDS:
            break
        pairs.append((name.decode("ascii"), value.strip(b" \t")))
    return Fields(tuple(pairs))


_NAME = re.compile(rb"[!-9;-~]+")
_TYPE = re.compile(r"\s*([\w!#$&^.+-]+)\s*/\s*([\w!#$&^.+-]+)\s*", re.ASCII)


def content_type(value: bytes, default: str = "text/plain") -> tuple[str, dict[str, str]]:
    """Type and parameters of a Content-Type field (RFC 2045 section 5.1)."""
    text = value[:MAX_TYPE].decode("latin-1")
    head = _TYPE.match(text)
    if head is None:
        return default, {}
    return f"{head[1]}/{head[2]}".lower(), read_parameters(text, head.end())


def decode(body: memoryview, encoding: bytes, most: int) -> bytes:
    """A body without its transfer encoding (RFC 2045 section 6). Raises Malformed above `most` octets, for an unknown
    encoding and for base64 that is none."""
    name = encoding.decode("latin-1").partition(";")[0].strip().lower()
    if name == "base64":
        return _base64(body, most)
    if len(body) > (3 * most if name == "quoted-printable" else most):
        raise Malformed(f"a part of more than {most} octets")
    if name == "quoted-printable":
        found = binascii.a2b_qp(bytes(body))
        if len(found) > most:
            raise Malformed(f"a part of more than {most} octets")
        return found
    if name in ("", "7bit", "8bit", "binary"):
        return bytes(body)
    raise Malformed("an unknown transfer encoding")


def _base64(body: memoryview, most: int) -> bytes:
    """Characters outside the alphabet are passed over (RFC 2045 section 6.8); some leave the padding out."""
    pieces: list[bytes] = []
    rest, total = b"", 0
    try:
        for at in range(0, len(body), _PIECE):
            text = rest + bytes(body[at : at + _PIECE]).translate(None, _NOT_BASE64)
            whole = len(text) & ~3
            rest = text[whole:]
            pieces.append(binascii.a2b_base64(text[:whole]))
            total += len(pieces[-1])
            if total > most:
                raise Malformed(f"a part of more than {most} octets")
        if left := rest.strip(b"="):
            pieces.append(binascii.a2b_base64(left + b"=="))
    except binascii.Error:
        raise Malformed("a part that is not base64") from None
    return b"".join(pieces)


def canonical(octets: memoryview) -> bytes | memoryview:
    """With CRLF at every line's end, as text is signed (RFC 8551 section 3.1.1); no copy where it has them already."""
    feeds = sum(bytes(octets[at : at + _PIECE]).count(b"\n") for at in range(0, len(octets), _PIECE))
    pairs = sum(bytes(octets[at : at + _PIECE + 1]).count(b"\r\n") for at in range(0, len(octets), _PIECE))
    if feeds == pairs:
        return octets
    return re.sub(rb"(?<!\r)\n", b"\r\n", octets)
