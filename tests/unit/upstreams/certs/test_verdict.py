"""What a certificate store's answers mean, row by row, and what hostile ones do not do."""

from __future__ import annotations

import base64
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, Raw
from keyserver.smime import pack
from keyserver.upstreams.certs.verdict import MAX_BODY, contents, verdict
from support.x509 import person

ALICE, BOB = person("alice@example.org"), person("bob@example.org")
NOW = 1_800_000_000
MIXED = "multipart/mixed; boundary=x"
PKIX = "Content-Type: application/pkix-cert"
PKCS7 = pack([ALICE.der, BOB.der])


def judged(status: int = 200, body: bytes = b"", **headers: str) -> Outcome:
    return verdict(status, CIMultiDict({n.replace("_", "-"): v for n, v in headers.items()}), body, NOW)


def found(*octets: bytes) -> Found:
    return Found(tuple(Raw(Kind.X509, o) for o in octets))


def mixed(
    *parts: bytes, head: str = "Content-Type: application/pkix-cert", end: str = "\r\n", last: bool = True
) -> bytes:
    """Parts between delimiters `x`."""
    begin = f"--x{end}{head}{end}{end}".encode()
    return b"".join(begin + part + end.encode() for part in parts) + (f"--x--{end}".encode() if last else b"")


@pytest.mark.parametrize("claimed", ["application/pkix-cert", "text/html", "", MIXED, "application/pkcs7-mime"])
@pytest.mark.parametrize("body", [ALICE.der, PKCS7, ALICE.pem, ALICE.pem.replace(b"\n", b"\r\n")])
def test_a_certificate_is_found_whatever_its_type(body: bytes, claimed: str) -> None:
    assert judged(200, body, Content_Type=claimed) == found(body)
    assert judged(203, body, Content_Type=claimed) == found(body)


def test_text_before_pem_is_passed_over() -> None:
    assert judged(200, b"Bag Attributes\n" + ALICE.pem) == found(ALICE.pem)


@pytest.mark.parametrize(
    ("body", "octets"),
    [
        (mixed(ALICE.der, BOB.der), [ALICE.der, BOB.der]),
        (mixed(ALICE.der, BOB.der, end="\n"), [ALICE.der, BOB.der]),
        (b"This is a preamble\r\n" + mixed(ALICE.der), [ALICE.der]),
        (mixed(ALICE.der, last=False), [ALICE.der + b"\r\n"]),
        (mixed(ALICE.pem, BOB.pem), [ALICE.pem, BOB.pem]),
        (mixed(PKCS7), [PKCS7]),
        (mixed(base64.b64encode(ALICE.der), head="Content-Transfer-Encoding: base64"), [ALICE.der]),
        (mixed(ALICE.der, head="Content-Transfer-Encoding: binary"), [ALICE.der]),
        (mixed(b"broken", ALICE.der), [b"broken", ALICE.der]),  # it says what it should have been
        (mixed(b"\x31\x80", head=f"{PKIX}\r\nContent-Transfer-Encoding: x"), [b"\x31\x80"]),
    ],
)
def test_several_in_parts(body: bytes, octets: list[bytes]) -> None:
    assert judged(200, body, Content_Type=MIXED) == found(*octets)
    if body.startswith(b"--x"):
        assert judged(200, body, Content_Type="application/octet-stream") == found(*octets)
        assert judged(200, b"\r\n" + body) == found(*octets)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "it sent an empty answer"),
        (b" \r\n", "it sent an empty answer"),
        (b"<html>No certificates found</html>", "it sent a page without a certificate"),
        (b"\n<html><pre>" + ALICE.pem + b"</pre></html>", "it sent a page without a certificate"),
        (b"0 certificates", "it sent text without a certificate"),
        (b"--", "it sent text without a certificate"),
        (b'--"', "it sent text without a certificate"),
        (mixed(), "it sent text without a certificate"),
        (mixed(b"nobody", head="Content-Type: text/plain"), "it sent text without a certificate"),
        (mixed(b"nobody", head="") + mixed(ALICE.der), "it sent text without a certificate"),  # behind the end
    ],
)
def test_an_answer_without_a_certificate_is_no_absence(body: bytes, reason: str) -> None:
    for claimed in ("application/pkix-cert", MIXED):
        assert judged(200, body, Content_Type=claimed) == Failed(reason)


@pytest.mark.parametrize(
    ("status", "headers", "outcome"),
    [
        (404, {}, Absent("it answered 404")),
        (410, {}, Absent("it answered 410")),
        (404, {"Cache_Control": "no-store"}, Absent("it answered 404", remember=False)),
        (400, {}, Absent("it cannot be asked that (it answered 400)", remember=False)),
        (401, {}, Failed("it wants credentials (it answered 401)", Fault.CONFIGURATION)),
        (429, {"Retry_After": "7"}, Failed("it asks for a pause (it answered 429)", Fault.BUSY, 7.0)),
        (503, {"Retry_After": "7"}, Failed("it asks for a pause (it answered 503)", Fault.BUSY, 7.0)),
        (204, {}, Failed("it answered 204")),
        (500, {}, Failed("it answered 500")),
    ],
)
def test_other_statuses(status: int, headers: dict[str, str], outcome: Outcome) -> None:
    page = b"<h1>HTTP Status 500</h1>certificate not found"  # what servlets say of a page of theirs
    assert judged(status, page, **headers) == outcome
    assert judged(status, b"", **headers) == outcome


def test_compression_is_undone_within_bounds() -> None:
    assert judged(200, gzip.compress(ALICE.der), Content_Encoding="gzip") == found(ALICE.der)
    assert judged(404, b"not gzip", Content_Encoding="gzip") == Absent("it answered 404")
    for body in (b"not gzip", gzip.compress(bytes(50 << 20)), zlib.compress(ALICE.der)):
        outcome = judged(200, body, Content_Encoding="gzip")
        assert isinstance(outcome, Failed)
        assert outcome.fault is Fault.LOCAL


@pytest.mark.parametrize(
    "body",
    [
        b"--x\r\n\r\n" * (MAX_BODY // 7),
        b"--x" * (MAX_BODY // 3),
        b"\n--x!" * (MAX_BODY // 5),
        b"--x\r\n" + b"A: b\r\n" * (MAX_BODY // 6),
        b"--x\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n" * (MAX_BODY // 50),
        b"-----BEGIN " * (MAX_BODY // 11),
        b"\n" * MAX_BODY,
        mixed(base64.b64encode(bytes(MAX_BODY // 2)), head="Content-Transfer-Encoding: base64"),
    ],
    ids=["parts", "one line", "likenesses", "fields", "nested", "PEM", "empty lines", "base64"],
)
def test_hostile_bodies_are_bounded(body: bytes) -> None:
    tracemalloc.start()
    try:
        outcome = judged(200, body, Content_Type=MIXED)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 6 * MAX_BODY
    assert isinstance(outcome, Failed) or len(outcome.raw) <= 500  # type: ignore[union-attr]


@given(st.binary(max_size=200), st.sampled_from(["", MIXED, "multipart/mixed", 'multipart/x; boundary="', "é/\r\n"]))
def test_whatever_comes_has_a_verdict(noise: bytes, claimed: str) -> None:
    for body in (noise, b"\x30" + noise, b"--x\r\n" + noise, b"-----BEGIN " + noise, mixed(noise, ALICE.der)):
        assert isinstance(contents(body, claimed), Found | Failed)
