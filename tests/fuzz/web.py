"""HTTP: heads at the front door, proxies before it, queries, targets, and what upstreams answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from aiohttp import hdrs
from multidict import CIMultiDict

from fuzz import mutators
from fuzz.door import WORDS
from fuzz.target import NOW, Target, joined, parts, unless_malformed
from keyserver.faces.http import certs, vks
from keyserver.faces.http.question import decoded
from keyserver.invite import tokens
from keyserver.invite.bounces import of_message_id
from keyserver.model import Kind
from keyserver.openpgp.armor import armor
from keyserver.query import BadQuery, ByAddress, ByHash, ByText, Query, from_name, parse, parse_address, spellings
from keyserver.upstreams.certs.verdict import verdict as certs_verdict
from keyserver.upstreams.hkp.upstream import search_of
from keyserver.upstreams.hkp.v2 import CERTS, paths_of
from keyserver.upstreams.verdict import verdict as hkp_verdict
from keyserver.upstreams.vks.upstream import path_of as vks_path
from keyserver.upstreams.wkd.upstream import said as wkd_said
from keyserver.wire import forwarded, hkp, hkp2, http_hot, proxy, wkd
from keyserver.wire.certs import hash_text, read_hash
from support.openpgp import make

HEAD = b"GET /pks/lookup?op=get&search=a@b.example HTTP/1.1\r\nHost: x.example:11371\r\nAccept: */*\r\n\r\n"
ANSWERS = (
    *(b"\nContent-Type: ", b"\nContent-Encoding: gzip", b"deflate", b"\nRetry-After: ", b"\nCache-Control: no-store"),
    *(
        b"multipart/mixed; boundary=b",
        b"--b\r\n",
        b"--b--",
        b"info:1:0",
        b"No results found",
        b"-----BEGIN CERTIFICATE-----",
    ),
    *(
        b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n",
        b"-----END PGP PUBLIC KEY BLOCK-----",
        b"Sat, 28 Nov 2026 10:00:00 GMT",
    ),
)
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"


def read_head(octets: bytes) -> None:
    """A head that is whole was lawful at each cut, and its verdict does not depend on what stands behind it."""
    end = http_hot.head_end(octets)
    if isinstance(end, int):
        line_end = octets.index(b"\r\n") + 2
        block = octets[line_end:end]
        said = http_hot.classify(block, b"own")
        assert http_hot.classify(http_hot.without(block, b"x-forwarded-for"), b"own").host == said.host
        for cut in {1, end // 2, end - 1, end - 3} if end > 3 else ():
            assert http_hot.head_end(octets[:cut]) is http_hot.Unread.NEED_MORE, "lawful at its end, not before"
        wkd.hot_line(octets[:line_end], said.domain)
    for bodiless in (False, True):
        reply = http_hot.read_response_head(octets, bodiless)
        if reply is not None:
            assert 0 < reply.size <= len(octets)
            assert reply.closes in (False, True)


def read_proxy(octets: bytes) -> None:
    """PROXY headers of both versions, and the headers in which proxies name clients."""
    head = octets[: proxy.LEAST]
    if len(head) == proxy.LEAST and (version := unless_malformed(lambda: proxy.version(head))):
        if version == 1:
            unless_malformed(lambda: proxy.read_line(octets))
        elif len(octets) >= proxy.FIXED:
            fixed, rest = octets[: proxy.FIXED], octets[proxy.FIXED :]
            if unless_malformed(lambda: proxy.rest_length(fixed)) is not None:
                unless_malformed(lambda: proxy.read_rest(fixed, rest))
    for header in ("forwarded", "x-forwarded-for"):
        assert len(list(forwarded.hops(header, [octets.decode("latin-1")]))) <= forwarded.MAX_HOPS


def read_query(octets: bytes) -> None:
    """Query strings of HKP, and the search terms in them: what a query is stored under leads back to it."""
    text = octets.decode("utf-8", "surrogateescape")
    given = unless_malformed(lambda: hkp.parameters(text))
    for term in {text, (given.search or "") if given else ""}:
        for kind in Kind:
            with contextlib.suppress(BadQuery):
                query = parse(term, kind)
                assert from_name(query.name) == query
                ask_again(query)
                if isinstance(query, ByAddress):
                    assert query in spellings(query)
                    assert parse(query.address, kind) == query, "normal form is not normal"


def ask_again(query: Query) -> None:
    """What we ask of others in each protocol means to us the same when others ask it of us."""
    if any("\ud800" <= character <= "\udfff" or character == hkp.UNREADABLE for character in str(query)):
        return  # of octets that are no text: no face asks for it
    if (asked := search_of(query)) is not None:
        said = hkp.parameters(asked)
        assert said.op == "get" and said.search is not None
        assert said.readable or "%u" in said.search  # as JavaScript escapes: our own face wants none of it
        assert said.search == query.text if isinstance(query, ByText) else parse(said.search, query.kind) == query
    if (path := vks_path(query)) is not None:
        assert vks.read(vks.ROOT + path) == query
    for path in paths_of(query):
        what, _, said_by = path.removeprefix(f"{CERTS}/by-").partition("/")
        match what:
            case "vfingerprint":
                assert hkp2.read_fingerprint(said_by) == query
            case "keyid":
                assert hkp2.read_key_id(said_by) == query
            case _:
                assert parse_address(decoded(said_by)) == str(query)


def read_targets(octets: bytes) -> None:
    """Paths of the other HTTP protocols."""
    text = octets.decode("latin-1")
    wkd.read_target(text)
    wkd.domain_of(text)
    wkd.hash_of(octets.decode("utf-8", "replace"))
    hkp2.read_fingerprint(text)
    hkp2.read_key_id(text)
    vks.read(text)
    with contextlib.suppress(BadQuery):
        if isinstance(query := certs.read(text), ByHash):
            assert query.digest == read_hash(hash_text(query.digest))
    if (token := tokens.read(text)) is not None:
        assert str(token) == text
    assert of_message_id(text) in text


def judge_answer(octets: bytes) -> None:
    """What a keyserver, a Web Key Directory or a certificate store answers becomes an outcome, whatever it is."""
    (head,), body = parts(octets, 1)
    words = head.decode("latin-1").split("\n")
    status = int(words[0]) if words[0].isascii() and words[0].isdigit() and len(words[0]) == 3 else 200
    headers: Mapping[str, str] = CIMultiDict(
        [(name, value) for name, _, value in (word.partition(":") for word in words[1:9]) if name]
    )
    for judge in (hkp_verdict, wkd_said, certs_verdict):
        judge(status, headers, body, NOW)


def heads() -> Iterable[bytes]:
    """Requests and replies, with what else may stand in them."""
    conditional = HEAD.replace(b"Accept: */*", b'If-None-Match: W/"a", "b"\r\nConnection: keep-alive\r\nVia: 1.1 own')
    wkd_head = b"HEAD /.well-known/openpgpkey/hu/iy9q119eutrkn8s1mk4r39qejnbu3n5q?l=joe HTTP/1.0\r\n\r\n"
    return [HEAD, conditional, wkd_head, HEAD + HEAD, REPLY, b"HTTP/1.0 304 Not Modified\r\n\r\n"]


def proxied() -> Iterable[bytes]:
    """Lines, binary headers, lists of hops."""
    binary = proxy.SIGNATURE + b"\x21\x11\0\x0c" + b"\x7f\0\0\1" * 2 + b"\x01\x02\x03\x04"
    return [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", binary, b'for="[2001:db8::1]:80";proto=http, for=_x', b"::1"]


def queries() -> Iterable[bytes]:
    """Query strings and terms."""
    return [
        b"op=get&options=mr&search=alice%40example.org",
        b"op=index&search=0x" + b"ab" * 20,
        b"search=%u4F60&op=vindex&exact=on",
        '"Alice x" <alice@münchen.example>'.encode(),
        b"mailto:%22a%20b%22@example.org?x",
    ]


def targets() -> Iterable[bytes]:
    """Paths and hosts."""
    hash_ = wkd.hash_of("joe.doe").encode()
    return [
        b"/.well-known/openpgpkey/example.org/hu/%b?l=Joe.Doe" % hash_,
        b"/.well-known/openpgpkey/hu/" + hash_,
        b"xn--mnchen-3ya.example:443",
        b"06" + b"ab" * 32,
        b"certHash=" + hash_text("AB" * 20).encode(),
        str(tokens.Token(b"x" * 32)).encode(),
        b"<%b.invitation@here.example>" % (b"0a" * 16),
    ]


def answers() -> Iterable[bytes]:
    """Status, headers, body."""
    block = armor(make(seed="fuzz").octets)
    return [
        joined(b"200\nContent-Type:application/pgp-keys", rest=block),
        joined(b"200\nContent-Encoding:gzip", rest=b"\x1f\x8b\x08\0\0\0\0\0\0\3\3\0\0\0\0\0\0\0\0\0"),
        joined(b"404\nCache-Control:no-store\nRetry-After:60", rest=b"<html>No results found"),
        joined(b"200\nContent-Type:multipart/mixed; boundary=b", rest=b"--b\r\n\r\n0\x82\x01\0\r\n--b--"),
        joined(b"503\n%b:Sat, 28 Nov 2026 10:00:00 GMT" % hdrs.RETRY_AFTER.encode(), rest=b"-----BEGIN "),
    ]


TARGETS = {
    "http-head": Target(read_head, heads, 4096, mutators.lines, WORDS),
    "http-proxy": Target(
        read_proxy, proxied, 512, words=(b"PROXY TCP6 ", b"PROXY UNKNOWN", b"for=", b";by=", proxy.SIGNATURE)
    ),
    "hkp-query": Target(read_query, queries, 512),
    "http-target": Target(read_targets, targets, 512),
    "upstream-answer": Target(
        judge_answer, answers, 8192, mutators.of_fields(mutators.lines, mutators.armored), ANSWERS
    ),
}
