"""What keyservers' HTTP answers mean, row by row."""

from __future__ import annotations

import gzip
import os
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from multidict import CIMultiDict

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw
from keyserver.upstreams.verdict import verdict
from support.openpgp import armored, make_certificate

NOW = 1_800_000_000
ALICE = make_certificate(["Alice <alice@example.org>"], seed="alice")
BOB = make_certificate(["Bob <bob@example.org>"], seed="bob")
ARMORED = armored(ALICE).encode()
SKS_NONE = (
    b"<html><head><title>Error handling request</title></head>\r\n<body><h1>No results found</h1>No keys found</body>"
)


def judged(status: int = 200, body: bytes = b"", **headers: str) -> Outcome:
    """The verdict on an answer, header names written with `_`."""
    return verdict(status, CIMultiDict({n.replace("_", "-"): v for n, v in headers.items()}), body, NOW)


def found(*certificates: bytes) -> Found:
    return Found(tuple(Raw(Kind.OPENPGP, c) for c in certificates))


@pytest.mark.parametrize(
    "body",
    [
        ARMORED,
        ARMORED.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + ARMORED,
        b"<html><body><pre>\n" + ARMORED + b"</pre></body></html>",
        b"Public Key Server -- Get\n\n" + ARMORED + b"\nnot found elsewhere\n",
        ARMORED.replace(b"-----\n\n", b"-----\nVersion: SKS 1.1.6\nComment: Hostname: keys.example.net\n\n", 1),
        b"\n".join(line + b"   " for line in ARMORED.split(b"\n")),
        b"\n".join(line for line in ARMORED.split(b"\n") if not line.startswith(b"=")),
        ALICE,
    ],
    ids=["armor", "CRLF", "BOM", "HTML", "text", "headers", "spaces", "no CRC", "binary"],
)
def test_a_certificate_is_found(body: bytes) -> None:
    assert judged(200, body) == found(ALICE)
    assert judged(200, body, Content_Type="text/html") == found(ALICE)


def test_several_blocks_are_found_each_by_itself() -> None:
    assert judged(200, ARMORED + b"\n" + armored(BOB).encode()) == found(ALICE, BOB)


@pytest.mark.parametrize("bad", [ARMORED[:-40] + b"\n", ARMORED.replace(b"\n\n", b"\n\n?", 1)])
def test_a_damaged_block_costs_itself_alone(bad: bytes) -> None:
    for body in (bad + armored(BOB).encode(), armored(BOB).encode() + bad):
        outcome = judged(200, body)
        assert isinstance(outcome, Found) and outcome.raw == found(BOB).raw
        assert len(outcome.damaged) == 1


@pytest.mark.parametrize("status", [404, 410])
def test_not_found_is_absent(status: int) -> None:
    outcome = judged(status, b"Not Found", Cache_Control="max-age=60")
    assert isinstance(outcome, Absent) and outcome.remember
    assert isinstance(judged(status, ARMORED), Absent)


@pytest.mark.parametrize("directive", ["no-store", "No-Store", "private, no-store"])
def test_not_found_for_this_request_only_is_not_remembered(directive: str) -> None:
    outcome = judged(404, b"", Cache_Control=directive)
    assert isinstance(outcome, Absent) and not outcome.remember


@pytest.mark.parametrize("status", [400, 501])
def test_what_cannot_be_asked_there(status: int) -> None:
    outcome = judged(status, b"Not supported")
    assert isinstance(outcome, Absent) and not outcome.remember


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, SKS_NONE),
        (500, SKS_NONE),
        (200, b"No keys found\n"),
        (500, b"Key not found"),
        (408, b"no results found"),
        (200, b"info:1:0\n"),
        (200, b"info:1:0\r\n"),
        (200, b"\ninfo:1:0"),
    ],
)
def test_absent_in_words(status: int, body: bytes) -> None:
    outcome = judged(status, body)
    assert isinstance(outcome, Absent) and outcome.remember


@pytest.mark.parametrize("status", [401, 403, 407, 451])
def test_refusals_are_a_matter_of_configuration(status: int) -> None:
    outcome = judged(status, b"not found")
    assert isinstance(outcome, Failed) and outcome.fault is Fault.CONFIGURATION


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("3601", 3600),
        ("99999999999999999999999999", 3600),
        ("Fri, 15 Jan 2027 08:01:30 GMT", 90),  # NOW is 08:00:00
        ("Friday, 15-Jan-27 08:01:30 GMT", 90),
        ("Fri, 15 Jan 2026 08:00:00 GMT", 0),
        ("Fri, 15 Jan 2099 08:00:00 GMT", 3600),
        ("Fri, 15 Jan 99999 08:00:00 GMT", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_busy_with_retry_after(text: str, seconds: float | None) -> None:
    outcome = judged(429, b"no keys found", Retry_After=text)
    assert isinstance(outcome, Failed)
    assert (outcome.fault, outcome.retry_after) == (Fault.BUSY, seconds)


def test_busy_without_retry_after() -> None:
    assert judged(429) == judged(429, b"not found")
    outcome = judged(503, Retry_After="7")
    assert isinstance(outcome, Failed) and (outcome.fault, outcome.retry_after) == (Fault.BUSY, 7)
    outcome = judged(503)
    assert isinstance(outcome, Failed) and outcome.fault is Fault.TRANSIENT


@pytest.mark.parametrize("status", [201, 204, 206, 300, 304, 402, 408, 418, 500, 502, 503, 504, 520, 599, 999])
def test_other_statuses_fail(status: int) -> None:
    outcome = judged(status, b"<html>Internal Server Error</html>")
    assert isinstance(outcome, Failed) and outcome.fault is Fault.TRANSIENT
    assert isinstance(judged(status, ARMORED), Failed)


@pytest.mark.parametrize("body", [b"Insufficiently specific words", b"<p>Too many responses (600)</p>"])
def test_unspecific_searches_are_not_the_upstreams_fault(body: bytes) -> None:
    outcome = judged(500, body)
    assert isinstance(outcome, Failed) and outcome.fault is Fault.LOCAL


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \r\n\t",
        b"\xef\xbb\xbf",
        b"<!DOCTYPE html><html><body>Welcome to the hotel's wireless network</body></html>",
        b"hello",
        b"info:1:1\npub:00:1:2:3::\n",
        b"-----BEGIN PGP MESSAGE-----\n\nlQ==\n-----END PGP MESSAGE-----\n",
        b"\x1f\x8b\x08\x00" + bytes(30),
        b"\0" * 100,
    ],
)
def test_200_without_a_whole_certificate_fails(body: bytes) -> None:
    outcome = judged(200, body)
    assert isinstance(outcome, Failed) and outcome.fault is Fault.TRANSIENT


@pytest.mark.parametrize(
    "body",
    [
        ARMORED[:-40],
        ARMORED[:200],
        ARMORED.replace(b"Z", b"*", 1).replace(b"A", b"!", 1),
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n-----END PGP PUBLIC KEY BLOCK-----\n",
        b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ==\n-----END PGP PRIVATE KEY BLOCK-----\n",
    ],
)
def test_a_damaged_answer_says_nothing_of_the_hosts_health(body: bytes) -> None:
    outcome = judged(200, body)
    assert isinstance(outcome, Failed) and outcome.fault is Fault.LOCAL


def bare(body: bytes) -> bytes:
    """Deflate without zlib's frame, as some servers understand the word."""
    packing = zlib.compressobj(wbits=-15)
    return packing.compress(body) + packing.flush()


PACKED = [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("Deflate", zlib.compress), ("deflate", bare)]


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_compression_that_nobody_asked_for_is_undone(coding: str, pack: Callable[[bytes], bytes]) -> None:
    assert judged(200, pack(ARMORED), Content_Encoding=coding) == found(ALICE)
    assert judged(200, pack(ALICE), Content_Encoding=coding) == found(ALICE)
    assert isinstance(judged(500, pack(SKS_NONE), Content_Encoding=coding), Absent)
    for bad in (ARMORED, pack(ARMORED)[:-10], b""):
        outcome = judged(200, bad, Content_Encoding=coding)
        assert isinstance(outcome, Failed) and coding.lower() in outcome.reason
        assert isinstance(judged(500, bad, Content_Encoding=coding), Failed)


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_bombs_are_not_unpacked(coding: str, pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(ARMORED + bytes(64 << 20))
    tracemalloc.start()
    try:
        outcome = judged(200, bomb, Content_Encoding=coding)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(outcome, Failed) and outcome.fault is Fault.LOCAL and "more than" in outcome.reason
    noise = pack(ARMORED + os.urandom(17 << 20))
    assert isinstance(judged(200, noise, Content_Encoding=coding), Failed)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "\x1b[2j"])
def test_other_codings_are_named(coding: str) -> None:
    outcome = judged(200, ARMORED, Content_Encoding=coding)
    assert isinstance(outcome, Failed) and repr(coding) in outcome.reason
    assert judged(200, ARMORED, Content_Encoding="identity") == found(ALICE)


def test_203_is_an_answer() -> None:
    assert judged(203, ARMORED) == found(ALICE)
    assert isinstance(judged(203, b"<html>"), Failed)


def test_armor_in_millions_of_lines_is_not_taken_apart() -> None:
    begin, end = ARMORED.split(b"\n\n", 1)[0], b"-----END PGP PUBLIC KEY BLOCK-----\n"
    for line in (b"\n", b"A\n", b"AB\r", b"ABCD\r\n"):
        outcome = judged(200, begin + b"\n\n" + line * ((2 << 20) // len(line)) + end)
        assert isinstance(outcome, Failed) and outcome.fault is Fault.LOCAL
    assert judged(200, ARMORED.replace(b"\n", b"\r\n") + b"not found, " * 200_000) == found(ALICE)


def test_phrases_far_inside_a_large_page_are_not_looked_for() -> None:
    assert isinstance(judged(200, b"<html>" + b" " * 100_000 + b"not found"), Failed)
