"""What a keyserver's HTTP answer means: pure, from status, headers and body to an Outcome.

The table behind it was made from what keyservers in use really answer: HKP never said much about errors
(draft-shaw-openpgp-hkp-00 §3.1.3), so "not found" comes with any status, and a page of HTML with 200.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime

from keyserver.model import Absent, Failed, Fault, Found, Kind, Malformed, Outcome, Raw
from keyserver.openpgp.armor import read_armor
from keyserver.upstreams.coding import decoded

MAX_BODY = 16 << 20  # octets of an answer, also when it has been unpacked
GOOD = (200, 203)  # 203: a proxy on the way has changed it (RFC 9110 section 15.3.4); signatures tell what counts
MAX_RETRY_AFTER = 3600.0  # seconds; who asks for more is asked again after this

PAGE = Failed("it sent a page without a certificate")
UNASKABLE = (400, 501)  # statuses that say nothing of what it holds
_PHRASES = (b"no results found", b"no keys found", b"not found")
_UNSPECIFIC = (b"insufficiently specific", b"too many responses", b"too many results")
_WORDS = 65536  # octets of a body in which phrases are looked for
_LARGE = 1 << 20  # octets from which on the lines of armor are counted; they have 64 or 76 characters
_EMPTY_INDEX = re.compile(rb"^info:1:0\s*$", re.MULTILINE | re.IGNORECASE)
_BEGIN = b"-----BEGIN PGP "
_BOM = b"\xef\xbb\xbf"
_DENIED = {
    401: "it wants credentials",
    403: "it refuses to answer us",
    407: "the proxy wants credentials",
    451: "it may not answer for legal reasons",
}


def verdict(status: int, headers: Mapping[str, str], body: bytes, now: float) -> Outcome:
    """The Outcome of one complete answer that is no redirect. `headers` compare names without case; `now` is Unix time.

    404 with `Cache-Control: no-store` is true for this request only: a frontend like us says so to a request that went
    round in a circle.
    """
    content = unpacked(headers, body, MAX_BODY)
    if status in GOOD:
        return content if isinstance(content, Failed) else contents(content)
    if (outcome := by_status(status, headers, now)) is not None:
        return outcome
    words = b"" if isinstance(content, Failed) else content
    if says_absent(words):
        return Absent(f"it says that it has no such certificate (with status {status})")
    if any(phrase in words[:_WORDS].lower() for phrase in _UNSPECIFIC):
        return Failed("it finds the search too unspecific", Fault.LOCAL)
    return Failed(f"it answered {status}")


def unpacked(headers: Mapping[str, str], body: bytes, most: int) -> bytes | Failed:
    """A body without its content coding, of at most `most` octets."""
    try:
        return decoded(body, coding, most) if (coding := encoding(headers)) else body
    except Malformed as problem:
        return Failed(f"it sent {problem}", Fault.LOCAL)


def by_status(status: int, headers: Mapping[str, str], now: float) -> Outcome | None:
    """What a status other than GOOD says by itself, whatever stands in the body; None for those that say nothing."""
    if status in (404, 410):
        return Absent(f"it answered {status}", remember="no-store" not in headers.get("Cache-Control", "").lower())
    if status in UNASKABLE:
        return Absent(f"it cannot be asked that (it answered {status})", remember=False)
    if status in _DENIED:
        return Failed(f"{_DENIED[status]} (it answered {status})", Fault.CONFIGURATION)
    wait = retry_after(headers, now)
    if status == 429 or (status == 503 and wait is not None):
        return Failed(f"it asks for a pause (it answered {status})", Fault.BUSY, wait)
    return None


def together(outcomes: Sequence[Outcome]) -> Outcome:
    """What the answers to all spellings of one question say: absent only where each does."""
    found = [outcome for outcome in outcomes if isinstance(outcome, Found)]
    if found:
        raws = dict.fromkeys(raw for outcome in found for raw in outcome.raw)
        damaged = tuple(dict.fromkeys(text for outcome in found for text in outcome.damaged))
        return replace(found[0], raw=tuple(raws), damaged=damaged)
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    for_now = [outcome for outcome in outcomes if isinstance(outcome, Absent) and not outcome.remember]
    return (failed or for_now or outcomes)[0]


def encoding(headers: Mapping[str, str]) -> str:
    """The content coding of an answer, empty for none."""
    coding = headers.get("Content-Encoding", "").strip().lower()
    return "" if coding == "identity" else coding


def contents(body: bytes) -> Outcome:
    """What the body of a 200 holds: armored blocks (HTML and text around them allowed), binary packets, or words."""
    body = body.removeprefix(_BOM)
    if not body.strip():
        return Failed("it sent an empty answer")
    if body[0] & 0x80:
        return Found((Raw(Kind.OPENPGP, body),))
    if _BEGIN in body:
        if len(body) > _LARGE and max(body.count(b"\n"), body.count(b"\r")) > len(body) // 24:
            return Failed("it sent armor in very short lines", Fault.LOCAL)  # millions of them would fill the memory
        armored = read_armor(body, binary=False)
        if armored.blocks:
            return Found(tuple(Raw(Kind.OPENPGP, block) for block in armored.blocks), armored.damaged)
        if armored.damaged:
            # no asker may open the circuit of a host by asking for what is damaged there
            return Failed(f"it sent damaged armor: {armored.damaged[0]}", Fault.LOCAL)
    if says_absent(body):
        return Absent("it says that it has no such certificate")
    if re.match(rb"\s*<", body):
        return PAGE
    return Failed("it sent text without a certificate")


def says_absent(body: bytes) -> bool:
    """Whether a body without a certificate says in words, or as an empty index, that there is none."""
    words = body[:_WORDS].lower()
    return bool(_EMPTY_INDEX.search(words)) or any(phrase in words for phrase in _PHRASES)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait by `Retry-After`, 0 to 3600: a number or a date (RFC 9110 §10.2.3), or None."""
    text = headers.get("Retry-After", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return min(MAX_RETRY_AFTER, float(text[:9]))
    try:
        wait = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(MAX_RETRY_AFTER, max(0.0, wait))
