"""What the front says is what aiohttp says: raw requests, valid, odd and malicious, whole, cut and pipelined."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

H = b"Host: k.example\r\n"
A = b"/pks/lookup?op=get&search=alice"
N = b"/pks/lookup?op=get&search=nobody"
GET = b"GET " + A + b" HTTP/1.1\r\n" + H + b"\r\n"
NEG = b"GET " + N + b" HTTP/1.1\r\n" + H + b"\r\n"
HEAD = b"HEAD " + A + b" HTTP/1.1\r\n" + H + b"\r\n"
GPG = b"GET " + A + b" HTTP/1.0\r\n" + H + b"Pragma: no-cache\r\nCache-Control: no-cache\r\n\r\n"
COLD = b"GET /echo?1 HTTP/1.1\r\n" + H + b"Cookie: a=b\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\nhello"
SMUGGLED = b"GET /echo?smuggled HTTP/1.1\r\n" + H + b"\r\n"


def get(*headers: bytes, line: bytes = b"GET " + A + b" HTTP/1.1", host: bytes = H) -> bytes:
    return line + b"\r\n" + host + b"".join(h + b"\r\n" for h in headers) + b"\r\n"


TABLE: dict[str, bytes] = {
    # plain
    "get": GET,
    "negative": NEG,
    "head": HEAD,
    "head of a negative": NEG.replace(b"GET", b"HEAD"),
    "gpg": GPG,
    "http/1.0 bare": b"GET " + A + b" HTTP/1.0\r\n\r\n",
    "http/1.0 negative": NEG.replace(b"1.1", b"1.0"),
    "http/1.0 head": HEAD.replace(b"1.1", b"1.0"),
    "close": get(b"Connection: close"),
    "close, capitals": get(b"CONNECTION: Close"),
    "close, head": get(b"Connection: close", line=b"HEAD " + A + b" HTTP/1.1"),
    "keep-alive": get(b"Connection: keep-alive"),
    "browser": get(b"User-Agent: Mozilla/5.0 (X11)", b"Accept: text/html,*/*;q=0.8", b"Accept-Language: de,en",
                   b"Accept-Encoding: gzip, br", b"DNT: 1", b"Sec-Fetch-Mode: navigate"),
    "empty value": get(b"User-Agent:"),
    "tabs around a value": get(b"User-Agent:\t x \t"),
    "no space behind colon": get(host=b"Host:k.example\r\n"),
    "any host": get(host=b"Host: 127.0.0.1:11371\r\n"),
    "ipv6 host": get(host=b"Host: [::1]:11371\r\n"),
    "no-cache": get(b"Pragma: no-cache", b"Cache-Control: no-cache"),
    "via of another": get(b"Via: 1.1 other.example"),
    "forwarded": get(b"X-Forwarded-For: 192.0.2.7", b"X-Forwarded-Proto: https", b"X-Real-IP: 192.0.2.7"),
    "if-none-match: other": get(b'If-None-Match: "0000"'),
    "if-none-match: any": get(b"If-None-Match: *"),
    "if-none-match: ours": get(b'If-None-Match: "ETAG"'),
    "if-none-match: weak": get(b'If-None-Match: W/"ETAG"'),
    "if-none-match: list": get(b'If-None-Match: "x", "ETAG" , W/"y"'),
    "if-none-match, head": get(b'If-None-Match: "ETAG"', line=b"HEAD " + A + b" HTTP/1.1"),
    "if-none-match, close": get(b'If-None-Match: "ETAG"', b"Connection: close"),
    "if-none-match, 1.0": get(b'If-None-Match: "ETAG"', line=b"GET " + A + b" HTTP/1.0"),
    "if-none-match on negative": get(b"If-None-Match: *", line=b"GET " + N + b" HTTP/1.1"),
    # simple, but not from memory
    "via of ours": get(b"Via: 1.1 other.example, 1.1 ME.example"),
    "unknown header": get(b"X-Strange: 1"),
    "cookie": get(b"Cookie: a=b"),
    "authorization": get(b"Authorization: Basic eDp5"),
    "range": get(b"Range: bytes=0-1"),
    "if-modified-since": get(b"If-Modified-Since: Mon, 01 Jan 2024 00:00:00 GMT"),
    "bad if-none-match": get(b"If-None-Match: ETAG"),
    "two if-none-match": get(b'If-None-Match: "x"', b'If-None-Match: "ETAG"'),
    "two user agents": get(b"User-Agent: a", b"User-Agent: b"),
    "two accepts": get(b"Accept: a/b", b"Accept: c/d"),
    "no host": get(host=b""),
    "empty host": get(host=b"Host:\r\n"),
    "odd host": get(host=b"Host: a b\r\n"),
    "host with user": get(host=b"Host: u@h\r\n"),
    "other path": get(line=b"GET /echo HTTP/1.1"),
    "unknown path": get(line=b"GET /nothing HTTP/1.1"),
    "double slash": get(line=b"GET //echo HTTP/1.1"),
    "dots": get(line=b"GET /a/../echo HTTP/1.1"),
    "fragment": get(line=b"GET /echo?a#b HTTP/1.1"),
    "bad escape": get(line=b"GET /echo?%zz HTTP/1.1"),
    "not utf-8 escaped": get(line=b"GET /echo?a%B9b HTTP/1.1"),
    "quotes in target": get(line=b'GET /echo?<"\'> HTTP/1.1'),
    "error reply": get(line=b"GET /fail HTTP/1.1"),
    "no content": get(line=b"GET /empty HTTP/1.1"),
    "closing reply": get(line=b"GET /bye HTTP/1.1"),
    "method not allowed by head": get(line=b"HEAD /echo HTTP/1.1"),
    "reply without length": get(line=b"GET /stream HTTP/1.1"),
    "reply without length, 1.0": get(line=b"GET /stream HTTP/1.0"),
    "128 headers": get(*(b"X-%d: 1" % n for n in range(120))),
    "200 headers": get(*(b"X-%d: 1" % n for n in range(200))),
    "long line": get(line=b"GET /echo?" + b"a" * 9000 + b" HTTP/1.1"),
    "long header": get(b"User-Agent: " + b"a" * 9000),
    "longer than any head": get(b"User-Agent: " + b"a" * 7000, b"Accept: " + b"a" * 7000, b"Referer: " + b"a" * 7000),
    # foreign
    "http/1.0 keep-alive": get(b"Connection: keep-alive", line=b"GET " + A + b" HTTP/1.0"),
    "http/1.0 close": get(b"Connection: close", line=b"GET " + A + b" HTTP/1.0"),
    "post": POST,
    "post, then smuggled": POST + SMUGGLED,
    "put": b"PUT /echo HTTP/1.1\r\n" + H + b"Content-Length: 1\r\n\r\nx",
    "delete": b"DELETE /echo HTTP/1.1\r\n" + H + b"\r\n",
    "options": b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n",
    "lower-case method": get(line=b"get " + A + b" HTTP/1.1"),
    "unknown method": get(line=b"FROB / HTTP/1.1"),
    "absolute form": get(line=b"GET http://k.example" + A + b" HTTP/1.1"),
    "connect": get(line=b"CONNECT k.example:443 HTTP/1.1"),
    "http/1.2": get(line=b"GET /echo HTTP/1.2"),
    "http/2.0": get(line=b"GET /echo HTTP/2.0"),
    "http/0.9": b"GET /echo\r\n\r\n",
    "prior knowledge h2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lower-case protocol": get(line=b"GET /echo http/1.1"),
    "two spaces in line": get(line=b"GET  /echo HTTP/1.1"),
    "tab in line": get(line=b"GET\t/echo HTTP/1.1"),
    "space in target": get(line=b"GET /echo?a b HTTP/1.1"),
    "utf-8 in target": get(line="GET /echo?ü HTTP/1.1".encode()),
    "get with length 0": get(b"Content-Length: 0"),
    "get with body": get(b"Content-Length: 5") + b"hello",
    "get with request as body": get(b"Content-Length: %d" % len(SMUGGLED), line=b"GET /echo HTTP/1.1") + SMUGGLED,
    "two lengths": get(b"Content-Length: 0", b"Content-Length: 5") + b"hello",
    "bad length": get(b"Content-Length: +5") + b"hello",
    "length and chunked": get(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
    "chunked": get(b"Transfer-Encoding: chunked", line=b"POST /echo HTTP/1.1") + b"5\r\nhello\r\n0\r\n\r\n" + SMUGGLED,
    "chunked get": get(b"Transfer-Encoding: chunked", line=b"GET /echo HTTP/1.1") + b"0\r\n\r\n" + SMUGGLED,
    "odd encoding": get(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "hidden chunked": get(b"Transfer-Encoding : chunked") + b"0\r\n\r\n" + SMUGGLED,
    "chunked with tab": get(b"Transfer-Encoding:\tchunked") + b"0\r\n\r\n" + SMUGGLED,
    "chunked with 0b": get(b"Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n",
    "space before colon": get(b"Accept : */*"),
    "space before name": b"GET " + A + b" HTTP/1.1\r\n Host: x\r\n\r\n",
    "obs-fold": get(b"User-Agent: a\r\n b"),
    "folded chunked": get(b"X: a\r\n Transfer-Encoding: chunked"),
    "no colon": get(b"Accept"),
    "empty name": get(b": x"),
    "two hosts": get(b"Host: other"),
    "two connections": get(b"Connection: close", b"Connection: keep-alive"),
    "connection list": get(b"Connection: close, x-foo"),
    "connection upgrade": get(b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AAAA"),
    "websocket": get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"),
    "expect": get(b"Expect: 100-continue", b"Content-Length: 5", line=b"POST /echo HTTP/1.1") + b"hello",
    "te": get(b"TE: trailers"),
    "nul in value": get(b"Accept: a\0b"),
    "nul in target": get(line=b"GET /echo?\0 HTTP/1.1"),
    "8-bit in value": get(b"Accept: \xff"),
    "del in value": get(b"Accept: \x7f"),
    "bare lf": GET.replace(b"\r\n", b"\n"),
    "bare lf at the end": GET[:-2] + b"\n",
    "bare lf in value": get(b"Accept: a\nTransfer-Encoding: chunked"),
    "bare cr in value": get(b"Accept: a\rTransfer-Encoding: chunked"),
    "crcrlf": GET.replace(b"\r\n\r\n", b"\r\r\n\r\r\n"),
    "empty lines first": b"\r\n\r\n" + GET,
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "noise": bytes(range(256)),
    # pipelines
    "two hot": GET + GET,
    "hot, negative, head": GET + NEG + HEAD + GET,
    "hot, cold, hot": GET + COLD + GET,
    "cold, hot, cold, hot": COLD + GET + COLD + GET,
    "cold, close": COLD + get(b"Connection: close") + GET,
    "hot, close, hot": GET + get(b"Connection: close") + GET,
    "hot, 1.0, hot": GET + GPG + GET,
    "hot, post, hot": GET + POST + GET,
    "hot, garbage": GET + b"\0\0\0",
    "hot, stream, hot": GET + get(line=b"GET /stream HTTP/1.1") + GET,
    "cold, bye, hot": COLD + get(line=b"GET /bye HTTP/1.1") + GET,
    "hot, smuggling, hot": GET + get(b"Content-Length: %d" % len(SMUGGLED)) + SMUGGLED + GET,
    "empty line between": GET + b"\r\n" + GET,
    "fifty": (GET + NEG + COLD + HEAD) * 12 + get(b"Connection: close"),
}  # fmt: skip

WARM = [GET, NEG, GPG, NEG.replace(b"1.1", b"1.0"), b"GET " + A + b" HTTP/1.0\r\n\r\n"]

FORGETS = "aiohttp forgets good requests that came in one segment with a malformed one; the front answers them first"
AFTER = "octets behind a closing request: aiohttp forgets that request for them, the front ignores them (RFC 9112 §9.6)"
DIFFERENT: dict[str, str] = {
    "hot, garbage": FORGETS,
    "cold, close": AFTER,
    "hot, close, hot": AFTER,
    "hot, 1.0, hot": AFTER,
}
"""Cases in which the front says something else than aiohttp alone, and why. Cut into octets, both say the same."""


async def fill(stage) -> bytes:
    """Make the plain requests hot; returns the ETag of alice's reply."""
    for request in WARM:
        said, _ = await stage.feed(request)
    etag = said.partition(b'ETag: "')[2].partition(b'"')[0]
    assert etag
    return etag


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
async def test_the_front_says_what_aiohttp_says(stage, tools, warm) -> None:
    assert len(TABLE) >= 80
    etag = await fill(stage)
    if not warm:
        stage.hot.budget.clear()
    limit = asyncio.Semaphore(24)

    async def both(data: bytes) -> tuple[tuple[bytes, bool], tuple[bytes, bool]]:
        async with limit:
            if not warm:
                stage.hot.budget.clear()
            return await stage.talk(data), await stage.talk(data, plain=True)

    cases = {name: data.replace(b"ETAG", etag) for name, data in TABLE.items()}
    results = await asyncio.gather(*map(both, cases.values()))
    wrong = {}
    for name, (ours, theirs) in zip(cases, results, strict=True):
        if (tools.canonical(ours[0]), ours[1]) != (tools.canonical(theirs[0]), theirs[1]):
            wrong[name] = ours, theirs
    assert wrong.keys() == DIFFERENT.keys(), "\n".join(f"{n}\n  front {o}\n  plain {t}" for n, (o, t) in wrong.items())


HOT = ["get", "negative", "head", "gpg", "http/1.0 bare", "close", "browser", "no-cache", "via of another",
       "if-none-match: any", "if-none-match: ours", "if-none-match: weak", "if-none-match: list",
       "forwarded"]  # fmt: skip


@pytest.mark.parametrize("name", HOT)
async def test_plain_requests_are_answered_from_memory(stage, name) -> None:
    etag = await fill(stage)
    before = stage.world.lookups
    said, _ = await stage.talk(TABLE[name].replace(b"ETAG", etag), quiet=0.05)
    assert said.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
    assert stage.world.lookups == before


COLD_ONLY = ["via of ours", "unknown header", "cookie", "range", "authorization", "bad if-none-match", "no host",
             "two if-none-match", "two user agents", "odd host", "http/1.0 keep-alive", "two hosts", "te",
             "connection list", "obs-fold", "get with length 0", "empty host"]  # fmt: skip


@pytest.mark.parametrize("name", COLD_ONLY)
async def test_doubtful_requests_are_not_answered_from_memory(stage, name) -> None:
    await fill(stage)
    before = stage.hot.counts()
    await stage.talk(TABLE[name], quiet=0.05)
    after = stage.hot.counts()
    assert (after.hits, after.negative_hits) == (before.hits, before.negative_hits)


CUT = ["get", "negative", "head", "gpg", "close", "keep-alive", "if-none-match: any", "cookie", "no host", "post",
       "get with body", "chunked", "obs-fold", "bare lf", "hot, cold, hot", "hot, post, hot", "hot, 1.0, hot",
       "cold, close", "error reply", "closing reply", "expect"]  # fmt: skip


@pytest.mark.parametrize("name", CUT)
async def test_every_cut_gives_the_same_answer(stage, tools, name) -> None:
    await fill(stage)
    data = TABLE[name]

    async def feed(*parts: bytes) -> tuple[bytes, bool]:
        return verdict(tools, await stage.feed(*parts))

    whole = await feed(data)
    assert whole[0]
    for cut in range(1, len(data)):
        assert await feed(data[:cut], data[cut:]) == whole, cut
    assert await feed(*octets(data)) == whole


@pytest.mark.parametrize("name", DIFFERENT)
async def test_documented_differences_vanish_octet_by_octet(stage, tools, name) -> None:
    await fill(stage)
    ours = await stage.feed(TABLE[name])
    theirs = await stage.feed(*octets(TABLE[name]), plain=True)
    assert verdict(tools, ours) == verdict(tools, theirs)


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


BAD = b"HTTP/1.0 400 Bad Request\r\n"


def verdict(tools, result: tuple[bytes, bool]) -> tuple[bytes, bool]:
    """A result without the text of a 400, which quotes the segment."""
    said, closed = result
    return re.sub(BAD + b".*", BAD, tools.canonical(said), flags=re.DOTALL), closed


PIECES = [GET, NEG, HEAD, COLD, POST, GPG, SMUGGLED, b"\r\n", b"\n", b"\0", b"Content-Length: 3\r\n", b"abc", H,
          b"GET " + A + b" HTTP/1.1\r\n", b"Connection: close\r\n", b"Transfer-Encoding: chunked\r\n", b" ", b"\r",
          b"X-Y: z\r\n", b"0\r\n\r\n", b"GET /echo HTTP/1.1\r\n", b"HTTP/1.1", b"\x80", b"HEAD ", b":"]  # fmt: skip


async def test_made_up_requests(stage, tools) -> None:
    """Hypothesis makes byte strings from the pieces above and cuts them; plain aiohttp gets them octet by octet."""
    await fill(stage)
    loop = asyncio.get_running_loop()

    async def both(pieces: list[bytes], cuts: list[int]) -> None:
        data = b"".join(pieces)
        edges = [0, *sorted(c % len(data) for c in cuts), len(data)]
        theirs, closed = verdict(tools, await stage.feed(*octets(data), plain=True))
        assert verdict(tools, await stage.feed(*octets(data))) == (theirs, closed)
        ours = verdict(tools, await stage.feed(*(data[a:b] for a, b in pairwise(edges))))
        if ours != (theirs, closed):  # what aiohttp forgets before a malformed request it forgets behind the front too
            assert ours[0].endswith(BAD) and ours[1]
            assert theirs.startswith(ours[0].removesuffix(BAD))

    @settings(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=7), st.lists(st.integers(0, 4000), max_size=3))
    def compare(pieces: list[bytes], cuts: list[int]) -> None:
        asyncio.run_coroutine_threadsafe(both(pieces, cuts), loop).result(20)

    await loop.run_in_executor(None, compare)
