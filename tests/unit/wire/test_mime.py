"""Mail read raw: slices, boundaries, limits, time; who it is from; what our border said of it."""

from __future__ import annotations

import base64
import contextlib
import time
from email import message_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.model import Malformed
from keyserver.wire import authres, autocrypt, mime
from keyserver.wire.mailbox import one_mailbox
from keyserver.wire.mbox import MAX_MAIL, Splitter, is_mbox
from support.memory import octets_held


def body(message: mime.Message, part: mime.Part) -> bytes:
    return message.octets[part.body : part.end]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_parts_are_raw_slices(end: str) -> None:
    mail = end.join(
        ["From: a@b.example", 'Content-Type: multipart/mixed; boundary="x y"', "", "preamble", "--x y", "A: 1", "",
         "one", "", "--x y  ", "", "two", "--x yz", "--x y--", "epilogue", "--x y", "", "three"]
    ).encode()  # fmt: skip
    message = mime.parse(mail)
    one, two = message.root.parts
    assert bytes(message.raw(one)) == end.join(["A: 1", "", "one", ""]).encode()
    assert body(message, two) == f"two{end}--x yz".encode()
    assert one.fields.first("a") == b"1"
    assert not message.problems


def test_nested_parts_empty_parts_and_a_missing_end() -> None:
    mail = (
        b"Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Type: Multipart/Alternative; boundary=ab\n\n"
        b"--ab\n\nx\n--ab\n--ab--\n--a\n--a\nlast: 1\n\nopen"
    )
    message = mime.parse(mail)
    first, second, third = message.root.parts
    assert [p.type for p in message.root.walk()][:2] == ["multipart/mixed", "multipart/alternative"]
    assert [body(message, p) for p in first.parts] == [b"x", b""]
    assert body(message, second) == b""
    assert body(message, third) == b"open"


def test_a_from_line_of_a_mailbox_is_passed_over() -> None:
    message = mime.parse(b"From a@b Mon Jan  1 00:00:00 2024\nSubject: x\n\nbody")
    assert message.root.fields.first("subject") == b"x"


def test_folded_headers_and_odd_lines() -> None:
    fields = mime.read_fields(b"A: 1\r\n\t2\r\nnonsense\r\nB :3\r\n: 4\r\nA: 5\r\n")
    assert fields.all("a") == [b"1\t2", b"5"]
    assert fields.first("b") == b"3"


@pytest.mark.parametrize(
    ("value", "kind", "boundary"),
    [
        (b'multipart/mixed; boundary="a;b"', "multipart/mixed", "a;b"),
        (b"Multipart/Signed ; micalg=x; BOUNDARY=abc ; protocol=y", "multipart/signed", "abc"),
        (b'multipart/mixed; boundary="a\\"b"', "multipart/mixed", 'a"b'),
        (b"multipart/mixed; (comment) boundary=c; boundary=d", "multipart/mixed", "d"),
        (b"multipart/mixed; boundary=c; boundary=d", "multipart/mixed", "c"),
        (b'multipart/mixed; boundary="abc', "multipart/mixed", "abc"),
        (b'multipart/mixed; boundary*0="ab"; boundary*1=cd', "multipart/mixed", "abcd"),
        (b"multipart/mixed; boundary*1=cd; boundary*0=ab", "multipart/mixed", "abcd"),
        (b"multipart/mixed; boundary*=us-ascii'en'a%20b", "multipart/mixed", "a b"),
        (b"multipart/mixed; boundary*0*=us-ascii''a%3Db; boundary*1=c%20", "multipart/mixed", "a=bc%20"),
        (b"multipart/mixed; boundary*0=c; BOUNDARY=plain; boundary*1=d", "multipart/mixed", "plain"),
        (b"multipart/mixed; boundary*0=a; boundary*2=c", "multipart/mixed", "a"),
        (b"multipart/mixed; boundary*1=c", "multipart/mixed", ""),
        (b"nonsense", "text/plain", ""),
        (b"", "text/plain", ""),
        (b"\xff/\xfe; boundary=\xff", "text/plain", ""),
    ],
)
def test_content_types(value: bytes, kind: str, boundary: str) -> None:
    found, parameters = mime.content_type(value)
    assert (found, parameters.get("boundary", "")) == (kind, boundary)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        (b"Content-Type: a/b; name=Key.ASC", "key.asc"),
        (b'Content-Disposition: attachment; filename="x.p7s"\nContent-Type: a/b; name=y', "x.p7s"),
        (b"Content-Disposition: attachment\nContent-Type: a/b; name=y.asc", "y.asc"),
        (b"Content-Disposition: attachment; filename*0*=utf-8''%C3%A9; filename*1=.asc", "\u00e9.asc"),
        (b"Content-Disposition: attachment; filename*=x''%E9.asc", "\u00e9.asc"),
        (b"Content-Type: a/b; name==?utf-8?Q?k=2Easc?=", "k.asc"),
        (b"Content-Type: a/b; name==?no-such-charset?B?eA==?=", "=?no-such-charset?b?ea==?="),
        (b"Subject: x", ""),
    ],
)
def test_file_names(headers: bytes, name: str) -> None:
    assert mime.parse(headers + b"\n\nx").root.file_name == name


MIXED = b"Content-Type: multipart/mixed; boundary="
ODD = {
    "no final boundary": MIXED + b"b\n\n--b\n\none\n--b\n\ntwo",
    "white space behind boundaries": MIXED + b"b\n\n--b \t\n\none\n--b  \n\ntwo\n--b--  \n",
    "carriage returns alone": MIXED + b"b\r\r--b\r\rone\r--b\r\rtwo\r--b--\r",
    "mixed line ends": MIXED + b"b\r\n\n--b\n\r\none\r\n--b\r\n\ntwo\n--b--\r\n",
    "long boundary": MIXED + b"%b\n\n--%b\n\none\n--%b\n\ntwo\n--%b--\n" % ((b"b" * 400,) * 4),
    "boundary in pieces": MIXED.replace(b"y=", b'y*0="b ";\n boundary*1=c')
    + b"\n\n--b c\n\none\n--b c\n\ntwo\n--b c--",
    "8-bit header": b"Subject: \xfc\n" + MIXED + b"b\n\n--b\n\none\n--b\n\ntwo\n--b--\n",
    "two boundaries": MIXED + b"b; boundary=c\n\n--b\n\none\n--b\n\ntwo\n--b--",
    "two types": MIXED + b"b\nContent-Type: text/plain\n\n--b\n\none\n--b\n\ntwo\n--b--",
    "one boundary begins like the other": MIXED
    + b"b\n\n--b\n" + MIXED + b"bb\n\n--bb\n\none\n--bb--\n--b\n\ntwo\n--b--",
    "inner part without its end": MIXED + b"b\n\n--b\n" + MIXED + b"i\n\n--i\n\none\n--b\n\ntwo\n--b--",
}  # fmt: skip


@pytest.mark.parametrize("octets", ODD.values(), ids=ODD.keys())
def test_odd_mail_is_read_as_python_reads_it(octets: bytes) -> None:
    message = mime.parse(octets)
    ours = [body(message, part).strip() for part in message.root.walk() if not part.parts]
    theirs = [part.get_payload(decode=True) for part in message_from_bytes(octets).walk() if not part.is_multipart()]
    assert ours == [one.strip() for one in theirs if isinstance(one, bytes)] == [b"one", b"two"]
    assert not message.problems


def test_transfer_encodings() -> None:
    octets = bytes(range(256)) * 4000
    encoded = base64.encodebytes(octets)
    assert mime.decode(memoryview(encoded), b" BASE64 ", 1 << 21) == octets
    assert mime.decode(memoryview(b"a=3Db=\r\nc"), b"quoted-printable", 100) == b"a=bc"
    assert mime.decode(memoryview(b"a=3D"), b"8bit", 100) == b"a=3D"
    with pytest.raises(Malformed, match="more than"):
        mime.decode(memoryview(encoded), b"base64", 1 << 19)
    with pytest.raises(Malformed, match="encoding"):
        mime.decode(memoryview(b"x"), b"x-uuencode", 10)
    assert mime.decode(memoryview(b"YWJj\r\nZA"), b"base64", 10) == b"abcd"
    assert mime.decode(memoryview(b"YWJjZGU"), b"base64", 10) == b"abcde"
    assert mime.decode(memoryview(b"YW\xff-Jj\xe9ZA!"), b"base64", 10) == b"abcd", "RFC 2045 section 6.8"
    for broken in (b"abcde", b"abcde!", b"abcd\xffe", b"a"):
        with pytest.raises(Malformed, match="not base64"):
            mime.decode(memoryview(broken), b"base64", 10)


def test_canonical_line_ends() -> None:
    for octets in (b"a\nb\r\nc\n", b"\n" * 300_000 + b"\r\n", b"x" * (256 * 1024 - 1) + b"\r\nb\n"):
        whole = bytes(mime.canonical(memoryview(octets)))
        assert whole == octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    ready = memoryview(b"x" * (256 * 1024 - 1) + b"\r\nb\r\n")
    assert mime.canonical(ready) is ready


def deep(levels: int) -> bytes:
    mail = b"x"
    for level in range(levels):
        mail = b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n%s\n--b%d--\n" % (level, level, mail, level)
    return mail


def flood(name: str) -> tuple[bytes, str]:
    """Hostile mail and the problem that is to be noted."""
    many = b"Content-Type: multipart/mixed; boundary=b\n\n"
    alike = b"Content-Type: multipart/mixed; boundary=-\n\n"
    return {
        "nested 1,000 deep": (deep(1000), "deep"),
        "100,000 parts": (many + b"--b\n\nx\n" * 100_000, "parts"),
        "100,000 nested parts": (deep(9)[:-200] + b"--b0\n\nx\n" * 100_000, ""),
        "100 MB of headers": (b"A: b\n" * 20_000_000, "larger"),
        "15 MB of headers": (b"A: b\n" * 3_000_000, "headers"),
        "one header of 15 MB": (b"A: " + b"b" * 15_000_000 + b"\n\nx", "headers"),
        "250 kB of header fields": (b"A:\n" * 85_000 + b"\nx", "fields"),
        "dashes": (alike + b"-" * 15_000_000, ""),
        "likenesses": (alike + b"\n---x" * 3_000_000, "look like"),
        "nested likenesses": ((alike + b"---\n") * 9 + b"\n---x" * 2**21, "look like"),
        "no line ends": (many + b"x" * 15_000_000, ""),
        "line ends": (many + b"\n" * 15_000_000, ""),
        "spaces in a type": (b"Content-Type: multipart/mixed; " + b" " * 250_000 + b"boundary=b\n\n", "boundary"),
        "quotes in a type": (b"Content-Type: multipart/mixed; " + b';a="' * 60_000 + b"\n\n", "boundary"),
        "dashes in a long boundary": (b"Content-Type: multipart/mixed; boundary=" + b"-" * 900 + b"\n\n"
                                      + (b"\n" + b"-" * 903 + b"x") * 16_000, "look like"),
        "pieces of a boundary": (b"Content-Type: multipart/mixed" + b";boundary*1=x" * 300 + b"\n\n", "boundary"),
        "empty boundary": (b'Content-Type: multipart/mixed; boundary=""\n\n--\n\n--\n\n----\n', "boundary"),
    }[name]  # fmt: skip


FLOODS = [
    "nested 1,000 deep", "100,000 parts", "100,000 nested parts", "100 MB of headers", "15 MB of headers",
    "one header of 15 MB", "250 kB of header fields", "dashes", "likenesses", "nested likenesses", "no line ends",
    "line ends", "spaces in a type", "quotes in a type", "empty boundary",
    "dashes in a long boundary", "pieces of a boundary",
]  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_hostile_mail_is_read_in_bounded_time(name: str) -> None:
    octets, problem = flood(name)
    began = time.process_time()
    message = mime.parse(octets)
    taken = time.process_time() - began
    assert taken < 2, taken
    assert len(list(message.root.walk())) <= mime.MAX_PARTS + 1
    assert not problem or any(problem in found for found in message.problems), message.problems


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([b"--b", b"--", b"\n", b"\r\n", b"b", b" ", b"--b--\n", b"A: 1\n", b"\nContent-Type: "
                                 b"multipart/mixed; boundary=b\n\n"]), max_size=60))  # fmt: skip
def test_slices_never_overlap_and_stay_inside(pieces: list[bytes]) -> None:
    octets = b"Content-Type: multipart/mixed; boundary=b\n\n" + b"".join(pieces)
    message = mime.parse(octets)
    for part in message.root.walk():
        assert 0 <= part.start <= part.end <= len(octets)
        assert part.start <= part.body
        at = part.body
        for inner in part.parts:
            assert at <= inner.start <= inner.end <= part.end
            at = inner.end


@settings(deadline=None)
@given(st.binary(max_size=500))
def test_any_octets_are_a_message(octets: bytes) -> None:
    mime.parse(octets)
    mime.parse(b"Content-Disposition: a; filename=" + octets).root.file_name.encode("utf-8", "replace")
    for value in (octets, b"a@b.example " + octets):
        with contextlib.suppress(Malformed):
            one_mailbox([value])
        authres.dmarc_passed([value], "mx", "b.example")
        autocrypt.key_of([value], "a@b.example")


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("Ann@Example.org", "ann@example.org"),
        ("<ann@example.org>", "ann@example.org"),
        ("Ann Lee <ann@example.org>", "ann@example.org"),
        ("Ann Q. Lee <ann@example.org>", "ann@example.org"),
        ('"Lee, Ann" <ann@example.org>', "ann@example.org"),
        ('"boss@partner.example" <eve@evil.example>', "eve@evil.example"),
        ('"<boss@partner.example>" <eve@evil.example>', "eve@evil.example"),
        ("=?utf-8?Q?boss=40partner.example?= <eve@evil.example>", "eve@evil.example"),
        ("=?utf-8?B?PGJvc3NAcGFydG5lci5leGFtcGxlPg==?= <eve@evil.example>", "eve@evil.example"),
        ("ann@example.org (boss@partner.example)", "ann@example.org"),
        ("Ann (a \\) comment (nested)) <ann@example.org> (end)", "ann@example.org"),
        ("Jörg <jörg@münchen.example>", "jörg@xn--mnchen-3ya.example"),
        ("J\tö <ann@example.org>", "ann@example.org"),
        ("ann@example.org <ann@example.org>", "ann@example.org"),
        ("ANN@example.org <ann@Example.org>", "ann@example.org"),
        ("Lee, Ann <ann@example.org>", "ann@example.org"),
        ("Lee, Ann; Dr. <ann@example.org>,", "ann@example.org"),
        ("Re: Ann <ann@example.org>", "ann@example.org"),
        ("Ann @ Work <ann@example.org>", "ann@example.org"),
        ("Ann @ Acme Inc. <ann@example.org>", "ann@example.org"),
        ("@ann <ann@example.org>", "ann@example.org"),
        ("[EXT] Ann <ann@example.org>", "ann@example.org"),
        ('"ann"@example.org', "ann@example.org"),
        ('<"ann"@example.org>', "ann@example.org"),
        ('Taro <"taro..y."@docomo.ne.jp>', "taro..y.@docomo.ne.jp"),
        ("Taro <taro..y.@docomo.ne.jp>", "taro..y.@docomo.ne.jp"),
        ('"ann lee"@example.org', '"ann lee"@example.org'),
        ("Ann < ann @ example.org >", "ann@example.org"),
    ],
)
def test_one_mailbox(value: str, address: str) -> None:
    assert one_mailbox([value.encode()]) == address


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Ann",
        "ann@example.org, boss@partner.example",
        "Ann <ann@example.org>, Boss <boss@partner.example>",
        "<ann@example.org> <boss@partner.example>",
        "boss@partner.example <eve@evil.example>",
        "boss@partner.example eve@evil.example",
        "Ann <ann@example.org> boss@partner.example",
        "Ann <ann@example.org",
        "Ann ann@example.org>",
        "Team: ann@example.org;",
        "Team: ann@example.org, boss@partner.example;",
        "undisclosed-recipients:;",
        "<@relay.example:ann@example.org>",
        "ann @example.org x",
        "an n@example.org",
        "ann@[192.0.2.1]",
        '"open <ann@example.org>',
        "(open <ann@example.org>",
        "ann@example.org\x00",
        "Ann <ann@example.org>\x0dboss",
        "ann@example.org\u202e",
        "Ann \u0085 <ann@example.org>",
        "a" * 3000 + "@example.org",
        "((((((((((((((((((((((((((((((x)))))))))))))))))))))))))))))) ann@example.org",
        "Ann\\ <ann@example.org>",
        "ann@localhost",
        "Ann <ann@localhost>",
        "boss@partner.example, Eve <eve@evil.example>",
        "Eve, boss@partner.example <eve@evil.example>",
        "x: boss@partner.example <eve@evil.example>",
        "boss @ partner.example <eve@evil.example>",
        "boss @ partner . example <eve@evil.example>",
        "boss@partner\u3002example <eve@evil.example>",
        "boss @ partner\uff0eexample <eve@evil.example>",
        "boss(x)@partner.example <eve@evil.example>",
        '"boss"@partner.example <eve@evil.example>',
        '"boss@partner.example"@evil.example',
        "boss@[192.0.2.1] <eve@evil.example>",
        "boss@corp <eve@evil.example>",
        "=?utf-8?q?boss?=@partner.example <eve@evil.example>",
        "Team: Ann <ann@example.org>;",
        "Team:; <ann@example.org>",
        "Lee, ann@example.org",
        "mailto: ann@example.org",
        "Ann <ann@example.org> Lee",
        "<ann@example.org>, <boss@partner.example>",
        '"a" "b"@example.org',
        '"a"b@example.org',
    ],
)
def test_no_mailbox(value: str) -> None:
    with pytest.raises(Malformed):
        one_mailbox([value.encode()])


def test_none_and_two_from_headers() -> None:
    for values in ([], [b"a@b.example", b"a@b.example"]):
        with pytest.raises(Malformed):
            one_mailbox(values)


PASS = b"mx.here.example; dmarc=pass (p=reject dis=none) header.from=Partner.example"


@pytest.mark.parametrize(
    ("values", "passed"),
    [
        ([PASS], True),
        ([b"MX.here.example 1; spf=pass smtp.mailfrom=x@y.example; dkim=pass header.d=x; dmarc=pass "
          b"header.from=partner.example"], True),
        ([b"other.example; dmarc=fail header.from=partner.example", PASS], True),
        ([b"(our) mx.here.example (x); dmarc/1 = pass reason=\"ok; fine\" header.from=\"partner.example\""], True),
        ([b"mx.here.example; none", PASS], False),
        ([b"mx.here.example; dmarc=fail header.from=partner.example", PASS], False),
        ([b"mx.here.example; dmarc=pass header.from=evil.example"], False),
        ([b"mx.here.example; dmarc=pass header.from=sub.partner.example"], False),
        ([b"mx.here.example; dmarc=pass"], False),
        ([b"mx.here.example; dmarc=pass header.from=partner.example header.from=evil.example"], False),
        ([b"mx.here.example; dmarc=fail header.from=x; dmarc=pass header.from=partner.example"], False),
        ([b"mx.here.example; dmarc=none (dmarc=pass header.from=partner.example)"], False),
        ([b"mx.here.example; x=y reason=\"; dmarc=pass header.from=partner.example\""], False),
        ([b"mx.here.example; spf=pass (; dmarc=pass header.from=partner.example"], False),
        ([b"mx.here.example.evil.example; dmarc=pass header.from=partner.example"], False),
        ([b"evil.example; dmarc=pass header.from=partner.example"], False),
        ([b"mx.here.example; xdmarc=pass header.from=partner.example"], False),
        ([], False),
    ],
)  # fmt: skip
def test_authentication_results(values: list[bytes], passed: bool) -> None:
    assert authres.dmarc_passed(values, "mx.here.example", "partner.example") is passed


KEY = base64.b64encode(b"key octets")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b"addr=a@b.example; prefer-encrypt=mutual; keydata=" + KEY], True),
        ([b"addr=A@B.example; keydata= a2V5IG9j\t dGV0cw== "], True),
        ([b"addr=a@b.example; _private=1; keydata=" + KEY + b";"], True),
        ([b"addr=a@b.example; prefer-encrypt=strange; keydata=" + KEY], True),
        ([b"addr=a@b.example; critical=1; keydata=" + KEY], False),
        ([b"addr=c@b.example; keydata=" + KEY], False),
        ([b"keydata=" + KEY], False),
        ([b"addr=a@b.example"], False),
        ([b"addr=a@b.example; keydata=!!!"], False),
        ([b"addr=a@b.example; addr=a@b.example; keydata=" + KEY], False),
        ([b"addr=a@b.example; keydata=" + b"A" * 100_000], False),
        ([b"addr=a@b.example; keydata=" + KEY] * 2, False),
        ([b"addr=c@b.example; keydata=" + KEY, b"addr=a@b.example; keydata=" + KEY], True),
        ([], False),
    ],
)
def test_autocrypt_headers(values: list[bytes], found: bool) -> None:
    assert autocrypt.key_of(values, "a@b.example") == (b"key octets" if found else None)


LINE = b"From MAILER-DAEMON Mon Nov 23 10:00:00 2026\n"


def split(octets: bytes, size: int) -> list[bytes]:
    splitter = Splitter()
    found = [x.octets for at in range(0, len(octets), size) for x in splitter.feed(octets[at : at + size])]
    return found + [x.octets for x in splitter.end()]


def test_mailboxes_are_split_however_they_are_cut() -> None:
    mails = [b"A: 1\n\nFrom the beginning\nFrom x 10:00\n", b"B: 2\n\n\nFrom here on\n", b"C: 3\r\n\r\nx\r\n"]
    quoted = [mails[0].replace(b"\nFrom x", b"\n>From x"), mails[1], mails[2]]
    mbox = b"".join(LINE + m + b"\n" for m in quoted)
    assert is_mbox(mbox)
    assert not is_mbox(b"From: a@b.example\n\n")
    for size in (1, 2, 7, 64, len(mbox)):
        assert split(mbox, size) == mails


def test_a_mail_too_large_for_us_does_not_take_its_neighbours_along() -> None:
    splitter = Splitter()
    found = [*splitter.feed(LINE + b"A: 1\n\n")]
    for _ in range(MAX_MAIL // 65536 + 20):
        found += splitter.feed(b"x" * 65535 + b"\n")
        assert octets_held(splitter) <= MAX_MAIL + 65536
    found += splitter.feed(b"\n" + LINE + b"B: 2\n\nbody\n\n")
    found += splitter.end()
    assert [(x.octets, x.cut) for x in found] == [(b"", True), (b"B: 2\n\nbody\n", False)]
