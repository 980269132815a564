"""What a certificate store's answer means (RFC 4387 section 2.2): pure, from status, headers and body to an Outcome.

The body is looked at, whatever its type claims: DER, PKCS#7 and PEM, which are taken apart where they are cleaned, and
multipart/mixed with such parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from keyserver.model import Failed, Found, Kind, Malformed, Outcome, Raw
from keyserver.upstreams.verdict import GOOD, by_status, unpacked
from keyserver.wire import mime

MAX_BODY = 4 << 20  # octets of an answer: 64 certificates, more than are looked at, of 64 KiB
_BEGIN = b"-----BEGIN "


def verdict(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Outcome:
    """The Outcome of one complete answer that is no redirect. `headers` compare names without case; `now` is Unix time.

    Absent is what 404 says alone: no words are looked for in a page.
    """
    content = unpacked(headers, body, MAX_BODY)
    if status in GOOD:
        return content if isinstance(content, Failed) else contents(content, headers.get("Content-Type", ""))
    return by_status(status, headers, now) or Failed(f"it answered {status}")


def contents(body: bytes, content_type: str = "") -> Outcome:
    """What the body of a 200 holds. `content_type` is asked for nothing but a boundary."""
    if not body.strip():
        return Failed("it sent an empty answer")
    if _is_der(body):
        return Found((Raw(Kind.X509, body),))
    if body.lstrip()[:1] == b"<":
        return Failed("it sent a page without a certificate")
    if field := _multipart(body, content_type):
        message = mime.parse(b"Content-Type: " + field + b"\r\n\r\n" + body)
        if raws := tuple(Raw(Kind.X509, octets) for octets in _parts(message)):
            return Found(raws)
    if (start := body.find(_BEGIN)) >= 0:
        return Found((Raw(Kind.X509, body[start:]),))
    return Failed("it sent text without a certificate")


def _is_der(octets: bytes) -> bool:
    """Is this a SEQUENCE of more than 127 octets? Text that begins with the digit 0 is none."""
    return octets[:1] == b"\x30" and octets[1:2] >= b"\x80"


def _multipart(body: bytes, content_type: str) -> bytes:
    """The Content-Type field of a body in parts, whose first line says the boundary where its own type does not."""
    claimed = content_type.encode("latin-1", "replace")
    kind, parameters = mime.content_type(claimed)
    if kind.startswith("multipart/") and parameters.get("boundary"):
        return claimed
    line = body.lstrip()[: mime.MAX_BOUNDARY].partition(b"\n")[0].rstrip()
    if not line.startswith(b"--") or line.startswith(_BEGIN) or b'"' in line or b"\\" in line:
        return b""
    return b'multipart/mixed; boundary="' + line[2:] + b'"'


def _parts(message: mime.Message) -> Iterator[bytes]:
    """The parts that are certificates, and those that claim to be something else than text and cannot be read."""
    for part in message.root.walk():
        if part.parts or part.type.startswith("multipart/"):
            continue
        try:
            octets = message.decoded(part, MAX_BODY)
        except Malformed:
            octets = message.octets[part.body : part.end]
        start = 0 if _is_der(octets) else octets.find(_BEGIN)
        if start >= 0 or not part.type.startswith("text/"):
            yield octets[max(0, start) :]
