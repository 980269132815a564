"""Certificate revocation lists read and verified (RFC 5280 section 5). Pure; for any octets, at any size.

Nothing recurses, and nothing is looked into before the authority's signature is verified, but for the head.
"""

from __future__ import annotations

import binascii
from array import array
from collections.abc import Callable, Iterator

from keyserver.model import Malformed
from keyserver.smime import ber, names, signing
from keyserver.smime.crl import (
    BUCKETS,
    MASK,
    OFFSET,
    REASON_CODE,
    Authority,
    RevocationList,
    comparable,
    of_entry,
    reason_of,
    shortest,
    signed,
    span,
)
from keyserver.smime.reading import time_of

MOST = 64 << 20
"""Octets of a list; its places have as many as fit in OFFSET bits."""

AHEAD = 300  # seconds by which the authority's clock may be before ours
_AT_ONCE = 1000  # entries read between two pauses
_MAX_SERIAL = 127  # octets
_MOST_KNOWN = 64  # extensions of entries that are remembered as harmless
_MAX_HEAD = 65536  # octets of anything else than entries
_TIMES = (0x17, 0x18)
_EXTENSIONS = 0xA0
_REMOVED = b"\x0a\x01\x08"  # removeFromCRL
_KEY_COMPROMISE = b"\x06\x03\x55\x1d\x15\x04\x03\x0a\x01\x01"  # the one reason that looks like a BOOLEAN
_HOLD_INSTRUCTION, _INVALIDITY_DATE, _CERTIFICATE_ISSUER = (f"2.5.29.{n}" for n in (23, 24, 29))
_NUMBER, _DELTA, _SCOPE, _AUTHORITY_KEY = (f"2.5.29.{n}" for n in (20, 27, 28, 35))


def read_list(octets: bytes, issuer: Authority, now: int, pause: Callable[[], None] = lambda: None) -> RevocationList:
    """A complete list, DER or PEM, that this authority has signed. Raises Malformed with the reason for people.

    now: Unix seconds; pause: called every millisecond or two, to let others run."""
    try:
        return _read(_der(octets), issuer, now, pause)
    except (IndexError, ValueError) as problem:  # cut off within an entry; too few parts
        raise problem if isinstance(problem, Malformed) else Malformed("a list of which a part is broken") from problem


def _read(data: bytes, issuer: Authority, now: int, pause: Callable[[], None]) -> RevocationList:
    if len(data) > MOST:
        raise Malformed(f"larger than {MOST >> 20} MiB")
    outer, start, end = span(data, 0, len(data))
    body, inside, after = span(data, start, end)
    if outer != ber.SEQUENCE or body != ber.SEQUENCE or end != len(data):
        raise Malformed("no revocation list")
    algorithm, signature = list(_parts(data, after, end))
    head, entries, extensions = _fields(data, inside, after)
    inner, name, issued, ends = head
    if inner.octets != algorithm.octets:
        raise Malformed("it names two different signature algorithms")
    if comparable(name) != issuer.name:
        raise Malformed(f"another authority's list: {names.written(names.distinguished(name))}")
    if (why := signing.weakness(algorithm)) is not None:
        raise Malformed(why)
    if not signed(issuer.key, algorithm, signature, memoryview(data)[start:after]):
        raise Malformed("the signature is not that of the authority in issuer_file")
    number = _number(extensions)
    begins, over = time_of(issued), time_of(ends)
    if begins > now + AHEAD:
        raise Malformed("issued in the future")
    if over < begins:
        raise Malformed("it ends before it begins")
    buckets, count = _index(data, *entries, pause)
    return RevocationList(begins, over, number, count, data, *entries, buckets)


def _fields(data: bytes, at: int, end: int) -> tuple[list[ber.Element], tuple[int, int], list[ber.Element]]:
    """(algorithm, issuer, thisUpdate, nextUpdate), begin and end of the entries, the extensions."""
    head: list[ber.Element] = []
    entries, extensions = (end, end), list[ber.Element]()
    if data[at] == ber.INTEGER:
        _, begin, at = span(data, at, end)
        if data[begin:at] != b"\x01":
            raise Malformed("a list of an unknown version")
    while at < end and len(head) < 4:
        part = next(_parts(data, at, end))
        if len(head) == 3 and part.tag not in _TIMES:
            raise Malformed("it does not say when the next one comes (nextUpdate)")
        head.append(part)
        at += len(part.octets)
    if len(head) < 4:
        raise Malformed("it does not say when the next one comes (nextUpdate)")
    if at < end and data[at] == ber.SEQUENCE:
        _, begin, at = span(data, at, end)
        entries = (begin, at)
    if at < end and data[at] == _EXTENSIONS:
        (wrapped,) = _parts(data, at, end)
        extensions, at = ber.opened(ber.first(wrapped.content), ber.SEQUENCE), end
    if at != end:
        raise Malformed("a list with a strange end")
    return head, entries, extensions


def _number(extensions: list[ber.Element]) -> int | None:
    """The list's number. Raises Malformed where an extension says that it is not a complete list of one authority."""
    number = None
    for extension in extensions:
        type_, *flag, value = ber.opened(extension, ber.SEQUENCE)
        named = ber.dotted(type_)
        if named == _DELTA:
            raise Malformed("a delta list: only what has changed since another one")
        if named == _SCOPE:
            _check_scope(value.content)
        elif named == _NUMBER:
            number = ber.number(ber.first(value.content))
        elif any(any(f.content) for f in flag) and named != _AUTHORITY_KEY:
            raise Malformed(f"an unknown critical extension {named}")
    return number


def _check_scope(value: bytes) -> None:
    """The issuing distribution point (RFC 5280 section 5.2.5). Raises Malformed."""
    said = {part.tag for part in ber.inside(value, ber.SEQUENCE) if part.tag in (0xA0, 0x83) or any(part.content)}
    refused = {
        0x82: "a list of authorities' certificates only",
        0x83: "a list for some reasons only",
        0x84: "an indirect list: other authorities' certificates are on it, too",
        0x85: "a list of attribute certificates only",
    }
    for tag in sorted(said - {0xA0, 0x81}):
        raise Malformed(refused.get(tag, "a list of an unknown scope"))


def _index(data: bytes, at: int, end: int, pause: Callable[[], None]) -> tuple[tuple[array[int], ...], int]:
    """For each entry its serial number's hash and its place, sorted; and how many there are. Raises Malformed.

    One pass, without a call for an ordinary entry: sequence, serial number, date, and extensions seen before."""
    buckets = tuple(array("Q") for _ in range(BUCKETS))
    add = [bucket.append for bucket in buckets]
    harmless: set[bytes] = set()
    count = 0
    while at < end:
        if count % _AT_ONCE == 0:
            pause()
        count += 1
        size, begin = data[at + 1], at + 2
        stop = begin + size
        if size >= 0x80:
            _, begin, stop = span(data, at, end)
        size, first = data[begin + 1], begin + 2
        date = first + size
        rest = date + 2 + data[date + 1]
        if data[at] != 0x30 or data[begin] != 0x02 or not 0 < size <= _MAX_SERIAL or stop > end:
            raise Malformed("an entry that cannot be read")
        if data[date] not in _TIMES or data[date + 1] >= 0x80 or rest > stop:
            raise Malformed("an entry without a date")
        if rest != stop and (more := data[rest:stop]) not in harmless:
            _check_entry(more)
            if _REMOVED in more and reason_of(more) == _REMOVED[-1]:
                at = stop
                continue
            if len(harmless) < _MOST_KNOWN:
                harmless.add(more)
        serial = data[first:date]
        if size > 1 and serial[0] in (0, 0xFF):
            serial = shortest(serial)
        hashed = hash(serial) & MASK
        add[hashed % BUCKETS](hashed // BUCKETS << OFFSET | at)
        at = stop
    return tuple(map(_sorted, buckets, (pause for _ in buckets))), count


def _sorted(bucket: array[int], pause: Callable[[], None]) -> array[int]:
    pause()
    return array("Q", sorted(bucket))


def _check_entry(extensions: bytes) -> None:
    """Raises Malformed where one of them forbids to use the list without understanding it (RFC 5280 section 5.3)."""
    others = extensions.replace(_KEY_COMPROMISE, b"")
    if b"\x01\x01" not in others and b"\x55\x1d\x1d" not in others:
        return  # nothing in it is critical (a BOOLEAN), nor is it another authority's certificate
    for named, critical, _ in of_entry(extensions):
        if named == _CERTIFICATE_ISSUER:
            raise Malformed("an indirect list: other authorities' certificates are on it, too")
        if critical and named not in (REASON_CODE, _INVALIDITY_DATE, _HOLD_INSTRUCTION):
            raise Malformed(f"an entry with an unknown critical extension {named}")


def _parts(data: bytes, at: int, end: int) -> Iterator[ber.Element]:
    """The elements from here on, none of them large. Raises Malformed, IndexError."""
    while at < end:
        tag, begin, stop = span(data, at, end)
        if stop - at > _MAX_HEAD:
            raise Malformed("a part of that size")
        yield ber.Element(tag, data[at:stop], data[begin:stop])
        at = stop


def _der(octets: bytes) -> bytes:
    """A list as it is signed: what a PEM block holds, where it is one (RFC 7468 section 6)."""
    if octets[:1] == b"\x30":
        return octets
    head, _, rest = octets.partition(b"-----BEGIN X509 CRL-----")
    block, found, _ = rest.partition(b"-----END")
    try:
        return binascii.a2b_base64(block) if found and not head.strip() else octets
    except binascii.Error:
        return octets
