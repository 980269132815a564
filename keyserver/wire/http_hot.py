"""Which requests may be answered from memory: exactly one plain GET or HEAD with headers that we know.

No HTTP parser: whatever is not provably plain is left to aiohttp, whose word counts. Three verdicts on the bytes of a
connection, from strict to free:

- *plain*: known headers without doubles, none of which changes what the handlers say: memory may answer;
- *simple*: one well-formed GET or HEAD without a body, so both sides agree where it ends: aiohttp answers it, and the
  bytes behind it are ours again;
- *foreign*: anything else (bodies, upgrades, obs-fold, bare CR or LF, 8-bit, absolute-form, other methods …): where it
  ends is aiohttp's to say, so all further bytes of the connection are aiohttp's (RFC 9112 §11.2: request smuggling).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from keyserver.wire.wkd import domain_of

MAX_HEAD = 16 * 1024
"""Octets of a request line with its header block."""

MAX_BLOCK = 8000
"""Octets of a header block that memory may answer; aiohttp refuses single lines of 8,190."""


class Unread(Enum):
    """Why there is no head to be read."""

    NEED_MORE = "need more"  # lawful so far, and incomplete
    FOREIGN = "foreign"


class Answering(Enum):
    """Who may answer a request with this header block."""

    MEMORY = "memory"
    HANDLER = "handler"  # simple, but with a header that may change the answer
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Block:
    """What a header block says, the empty line at its end included."""

    answering: Answering
    host: bool = False
    close: bool = False  # `Connection: close`
    stays: bool = False  # `Connection: keep-alive`
    tags: tuple[bytes, ...] = ()  # of If-None-Match, opaque parts with their quotes; `*` for any
    domain: bytes = b""  # that Host names, as `wkd.domain_of` has it


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The head of a reply that aiohttp wrote, and how many octets follow it (None: its end cannot be counted)."""

    size: int  # of the head
    version: bytes  # b"1.0", b"1.1"
    status: int
    reason: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    named: Mapping[bytes, list[bytes]]  # the values by lower-case name
    length: int | None

    def values(self, name: bytes) -> list[bytes]:
        """All values of the header with this lower-case name."""
        return self.named.get(name, [])

    @property
    def closes(self) -> bool:
        """Will aiohttp close behind it?"""
        said = b",".join(self.values(b"connection")).lower()
        return b"close" in said or (self.version != b"1.1" and b"keep-alive" not in said)


KNOWN = frozenset(
    b"accept accept-charset accept-encoding accept-language cache-control connection dnt forwarded host if-none-match "
    b"origin pragma priority referer sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user sec-gpc traceparent "
    b"tracestate upgrade-insecure-requests user-agent via x-forwarded-for x-forwarded-host x-forwarded-port "
    b"x-forwarded-proto x-real-ip x-request-id".split()
)
"""Headers that do not change what our handlers say (they set no `Vary`); `Via` with our own name does."""

FRAMING = frozenset(
    b"content-length content-encoding expect http2-settings keep-alive proxy-connection te trailer transfer-encoding "
    b"upgrade".split()
)
"""Headers that touch where a message ends, or who speaks next."""

_LINE = re.compile(rb"(GET|HEAD) /[!-~]* HTTP/1\.[01]\r\n")
_PART = re.compile(rb"(?:GET|HEAD) /[!-~]*(?: (?:H|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.|HTTP/1\.[01]\r?)?)?")
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELDS = rb"(?:" + _TOKEN + rb":[\t -~]*\r\n)*"
_BLOCK = re.compile(_FIELDS + rb"\r\n")
_BLOCK_PART = re.compile(_FIELDS + rb"(?:" + _TOKEN + rb"(?::[\t -~]*\r?)?|\r)?")
_HOST = re.compile(rb"[A-Za-z0-9._~:\[\]-]+")
_TAGS = re.compile(rb'(?:W/)?("[!#-~]*")(?:[ \t]*,[ \t]*(?:W/)?"[!#-~]*")*')
_TAG = re.compile(rb'"[!#-~]*"')
_STATUS = re.compile(rb"HTTP/(1\.[01]) ([1-5][0-9][0-9]) ([\t -~]*)\r\n")


def head_end(data: bytes, start: int = 0, limit: int = MAX_HEAD) -> int | Unread:
    """Where the head that begins at `start` ends, its empty line included.

    NEED_MORE as long as what is there can still become such a head of at most `limit` octets. What the headers of a
    well-formed block mean is for `classify` to say.
    """
    end = data.find(b"\r\n\r\n", start, start + limit)
    stop = end + 4 if end >= 0 else min(len(data), start + limit)
    line = data.find(b"\r\n", start, stop)
    if line < 0:
        begun = data[start:stop]
        lawful = _PART.fullmatch(begun) or b"GET /".startswith(begun) or b"HEAD /".startswith(begun)
        return Unread.NEED_MORE if lawful and stop - start < limit else Unread.FOREIGN
    if not _LINE.fullmatch(data, start, line + 2):
        return Unread.FOREIGN
    if end >= 0:
        return stop if _BLOCK.fullmatch(data, line + 2, stop) else Unread.FOREIGN
    fields = _BLOCK_PART.fullmatch(data, line + 2, stop)
    return Unread.NEED_MORE if fields and stop - start < limit else Unread.FOREIGN


def classify(block: bytes, own: bytes = b"") -> Block:
    """The verdict on a header block. `own`: our name in `Via`, lower-case; empty: any `Via` is the handler's."""
    if not _BLOCK.fullmatch(block):
        return Block(Answering.FOREIGN)
    answering = Answering.MEMORY if len(block) <= MAX_BLOCK else Answering.HANDLER
    given: dict[bytes, bytes] = {}
    for line in block[:-4].split(b"\r\n") if len(block) > 2 else ():
        raw, _, value = line.partition(b":")
        name = raw.lower()
        if name in FRAMING or (name in given and name in (b"host", b"connection")):
            return Block(Answering.FOREIGN)
        if name in given or name not in KNOWN:
            answering = Answering.HANDLER
        given[name] = value.strip(b"\t ")
    connection = given.get(b"connection", b"").lower()
    if b"connection" in given and connection not in (b"close", b"keep-alive"):
        return Block(Answering.FOREIGN)
    via = given.get(b"via")
    if via is not None and (not own or own in via.lower()):
        answering = Answering.HANDLER
    if b"host" in given and not _HOST.fullmatch(given[b"host"]):
        answering = Answering.HANDLER
    tags: tuple[bytes, ...] = ()
    if b"if-none-match" in given:
        tags = _tags(given[b"if-none-match"])
        answering = answering if tags else Answering.HANDLER
    domain = domain_of(given.get(b"host", b"").decode("ascii")) or ""
    stays = connection == b"keep-alive"
    return Block(answering, b"host" in given, connection == b"close", stays, tags, domain.encode("ascii"))


def without(block: bytes, header: bytes) -> bytes:
    """A well-formed header block without the lines of one header (its name in lower case).

    For the header in which a proxy names its client: it differs with each of them, and says nothing about the answer.
    What aiohttp would refuse for its size stays."""
    if len(block) > MAX_BLOCK:
        return block
    prefix = header + b":"
    return b"\r\n".join(line for line in block.split(b"\r\n") if line[: len(prefix)].lower() != prefix)


def _tags(value: bytes) -> tuple[bytes, ...]:
    """The opaque parts of an If-None-Match (RFC 9110 §13.1.2); none when it is not well-formed."""
    if value == b"*":
        return (b"*",)
    return tuple(_TAG.findall(value)) if _TAGS.fullmatch(value) else ()


def read_response_head(data: bytes, bodiless: bool) -> ResponseHead | None:
    """The head of the reply that `data` begins with; None when it is incomplete or not HTTP/1.

    `bodiless`: it answers a HEAD. A length is only given where it is certain (RFC 9112 §6.3): no body by status or
    method, or one Content-Length and no Transfer-Encoding.
    """
    end = data.find(b"\r\n\r\n")
    status = _STATUS.match(data) if end >= 0 else None
    if status is None:
        return None
    headers: list[tuple[bytes, bytes]] = []
    named: dict[bytes, list[bytes]] = {}
    for line in data[status.end() : end].split(b"\r\n") if status.end() < end else ():
        name, _, value = line.partition(b":")
        value = value.strip(b"\t ")
        headers.append((name, value))
        named.setdefault(name.lower(), []).append(value)
    code = int(status[2])
    lengths = named.get(b"content-length", [])
    length: int | None = None
    if code >= 200 and b"transfer-encoding" not in named:
        if bodiless or code in (204, 304):
            length = 0
        elif len(lengths) == 1 and lengths[0].isdigit():
            length = int(lengths[0])
    return ResponseHead(end + 4, status[1], code, status[3], tuple(headers), named, length)
