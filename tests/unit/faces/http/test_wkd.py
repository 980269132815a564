"""Web Key Directory: whose word is passed on, in both forms, and what strangers may write into a request."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock
from urllib.parse import quote

import pytest

from keyserver import openpgp
from keyserver.faces.http.hashes import HashIndex
from keyserver.model import Certificate, Change, Failed, Source, UpstreamSpec, View
from keyserver.store.base import StoreError
from keyserver.upstreams.wkd.upstream import Wkd
from keyserver.wire.wkd import advanced, direct, hash_of
from support.http_faces import Faces, faces
from support.internet import PUBLIC, Internet, names
from support.openpgp import make
from support.resolving import Ground, sends
from support.scripted import NOT_FOUND, Route, Scripted
from support.scripted import reply as scripted
from support.tls import Authority

OURS = {"own_domains": ("example.org", "*.example.org")}
ALICE = make(("Alice <alice@example.org>", "Alice <alice@home.example>", "Alice"), seed="alice")
BOB = make(("Bob <bob@partner.example>",), seed="bob")
SIX = make(("Alice <alice@example.org>",), version=6, seed="six")


def ours(ground: Ground, **changes: Any) -> None:
    ground.change(terms=replace(ground.terms, internal_domains=("example.org",)), **changes)


def read(octets: bytes, now: int) -> list[Certificate]:
    return [c for c in openpgp.clean(octets, now) if isinstance(c, Certificate)]


async def told(face: Faces, domain: str, local: str) -> tuple[int, list[Certificate]]:
    """Status and certificates, which are the same by both forms and from memory."""
    status, body = await face.asked(advanced(domain, local))
    assert await face.asked(direct(local), host=f"{domain.upper()}:443") == (status, body)
    return status, read(body, face.ground.now) if status == 200 else []


async def test_a_local_certificate_with_that_address_alone_and_the_rest_from_memory(ground: Ground) -> None:
    ours(ground)
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground, **OURS) as face:
        status, (certificate,) = await told(face, "example.org", "alice")
        assert (status, certificate.fingerprint) == (200, ALICE.fingerprint)
        assert [claim.text for claim in certificate.proof.claims] == ["Alice <alice@example.org>"]
        assert face.hits == 5, "all but the first: both forms are one in memory"
        reply = await face.get(advanced("example.org", "alice"))
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.headers["access-control-allow-origin"] == "*"
        assert not reply.body.startswith(b"-----")
        assert face.notes[0][0] == "wkd"


async def test_only_the_address_that_was_asked_for_counts_in_memory_too(ground: Ground) -> None:
    ours(ground)
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground, own_domains=("example.org", "home.example")) as face:
        for domain in ("example.org", "home.example", "example.org"):
            _, (certificate,) = await told(face, domain, "alice")
            assert [claim.address for claim in certificate.proof.claims] == [f"alice@{domain}"]
        status, _ = await face.asked(direct("alice"), host="other.example")
        assert status == 404
        assert (await face.get(direct("alice"), host="")).status == 400, "HTTP/1.1 without a Host"
        assert (await face.raw(f"GET {direct('alice')} HTTP/1.0\r\n\r\n".encode())).status == 404
        old = f"GET {direct('alice')} HTTP/1.0\r\nHost: example.org\r\n\r\n".encode()
        assert (await face.raw(old)).status == 200


async def test_what_changes_is_not_remembered_in_either_form(ground: Ground) -> None:
    ours(ground)
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground, **OURS) as face:
        assert (await told(face, "example.org", "alice"))[0] == 200
        await ground.store.delete(ALICE.fingerprint, ground.now)
        assert (await told(face, "example.org", "alice"))[0] == 404


async def test_for_our_domains_an_upstream_counts_that_lists_them_and_no_other(ground: Ground) -> None:
    public = ground.peer("public")
    inside = ground.peer("inside", domains=("example.org",))
    public.answers = {"alice@example.org": sends(ALICE)}
    ours(ground)
    async with faces(ground, **OURS) as face:
        assert (await told(face, "example.org", "alice"))[0] == 404
        assert (inside.asked, public.asked) == (["alice@example.org"], [])
        ground.now += 1000
        inside.answers = {"alice@example.org": sends(ALICE)}
        status, (certificate,) = await told(face, "example.org", "alice")
        assert (status, certificate.fingerprint) == (200, ALICE.fingerprint)


async def test_other_domains_are_not_looked_up(ground: Ground) -> None:
    public = ground.peer("public")
    public.answers = {"bob@partner.example": sends(BOB)}
    await ground.put(BOB, Source.LOCAL, "admin")
    async with faces(ground, **OURS) as face:
        assert (await told(face, "partner.example", "bob"))[0] == 404
        assert public.asked == []
        assert face.notes == []


RELAY = View("relay")


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({}, 404),
        ({"by_owner": True}, 200),
        ({"domains": ("partner.example",)}, 200),
        ({"domains": ("*.partner.example",)}, 404),
    ],
)
async def test_a_relay_passes_on_the_owners_word(ground: Ground, spec: dict[str, Any], status: int) -> None:
    peer = ground.peer("peer", **spec)
    peer.answers = {"bob@partner.example": sends(BOB)}
    async with faces(ground, view=RELAY, relaying=frozenset({"relay"}), **OURS) as face:
        assert (await face.get("/pks/lookup?op=get&search=bob@partner.example")).status == (
            200 if spec.get("domains") != ("*.partner.example",) else 404
        ), "HKP is another matter"
        assert (await told(face, "partner.example", "bob"))[0] == status


async def test_a_relay_does_not_ask_those_whose_word_it_cannot_pass_on(ground: Ground) -> None:
    public, owner = ground.peer("public"), ground.peer("owner", by_owner=True)
    public.answers = {"bob@partner.example": sends(BOB)}
    async with faces(ground, view=RELAY, relaying=frozenset({"relay"}), **OURS) as face:
        assert (await told(face, "partner.example", "bob"))[0] == 404
        assert (public.asked, owner.asked) == ([], ["bob@partner.example"])


async def test_the_owners_silence_is_no_absence_whatever_others_have(ground: Ground) -> None:
    public, owner = ground.peer("public"), ground.peer("owner", by_owner=True)
    public.answers = {"bob@partner.example": sends(BOB)}
    owner.otherwise = Failed("no route to host")
    async with faces(ground, view=RELAY, relaying=frozenset({"relay"}), **OURS) as face:
        assert (await face.get("/pks/lookup?op=get&search=bob@partner.example")).status == 200
        assert (await told(face, "partner.example", "bob"))[0] == 500
        assert (await told(face, "partner.example", "bob"))[0] == 500


async def test_a_relay_passes_on_what_is_local_and_no_mail(ground: Ground) -> None:
    view = View("relay", answer_mailflow=True)
    ground.change(views={"relay": view})
    await ground.put_mail(BOB, "bob@partner.example")
    async with faces(ground, view=view, relaying=frozenset({"relay"}), **OURS) as face:
        assert (await face.get("/pks/lookup?op=get&search=bob@partner.example")).status == 200
        assert (await told(face, "partner.example", "bob"))[0] == 404
        await ground.put(BOB, Source.LOCAL, "admin")
        assert (await told(face, "partner.example", "bob"))[0] == 200
        target = advanced("partner.example", "bob").partition("?")[0]
        assert (await face.get(target)).status == 404, "a relay needs the local part"


async def test_a_relay_before_the_web_key_directory_of_a_domain(
    ground: Ground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real upstream, from the domain's web host to our reply: absence, silence, and user IDs cut off."""
    internet, authority = Internet(monkeypatch), Authority(tmp_path / "ca")
    dora = make(("Dora <dora@partner.example>", "Dora <dora@elsewhere.example>"), seed="dora")
    routes: dict[str, Route] = {"*": NOT_FOUND, "dora": scripted(200, dora.octets), "erin": scripted(500)}
    host = "openpgpkey.partner.example"
    async with Scripted(routes, authority.server(host)) as directory:
        upstream = Wkd(
            UpstreamSpec("wkd", template=True, by_owner=True),
            clock=lambda: ground.now,
            monotonic=ground.monotonic,
            names=names({host: [PUBLIC]}),
            tls_ca_file=authority.ca_file,
            port=directory.port,
            special_use=frozenset(),
        )
        terms = replace(ground.terms, upstreams={"wkd": upstream.spec})
        ground.change(terms=terms, upstreams={"wkd": upstream})
        try:
            async with faces(ground, view=RELAY, relaying=frozenset({"relay"}), **OURS) as face:
                status, (certificate,) = await told(face, "partner.example", "dora")
                assert (status, certificate.fingerprint) == (200, dora.fingerprint)
                assert [claim.text for claim in certificate.proof.claims] == ["Dora <dora@partner.example>"]
                assert (await told(face, "partner.example", "bob"))[0] == 404
                assert (await told(face, "partner.example", "erin"))[0] == 500
        finally:
            await upstream.close()
        assert [directory.asked(local) for local in ("dora", "bob")] == [1, 1], "both forms are one question"
        assert directory.requests[0].target == advanced("partner.example", "dora")
        assert set(internet.connected) == {PUBLIC}


async def test_without_the_local_part_the_hash_alone_finds_what_is_cached(ground: Ground) -> None:
    ours(ground)
    await ground.put(ALICE, Source.LOCAL, "admin")
    carol = make(("Carol <carol+x@sub.example.org>",), seed="carol")
    async with faces(ground, **OURS) as face:
        for local, domain, status in (
            ("alice", "example.org", 200),
            ("nobody", "example.org", 404),
            ("carol+x", "sub.example.org", 404),
        ):
            advanced_path, direct_path = advanced(domain, local).split("?")[0], direct(local).split("?")[0]
            assert (await face.asked(advanced_path))[0] == status
            assert (await face.asked(direct_path, host=domain))[0] == status
        await ground.put(carol, Source.LOCAL, "admin")
        assert (await face.asked(advanced("sub.example.org", "carol+x").split("?")[0]))[0] == 200


async def test_a_store_that_cannot_be_read_is_no_absence(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    ours(ground)
    await ground.put(ALICE, Source.LOCAL, "admin")
    path = advanced("example.org", "alice").split("?")[0]
    async with faces(ground, **OURS) as face:
        with monkeypatch.context() as broken:
            broken.setattr(ground.store, "addresses", AsyncMock(side_effect=StoreError("away")))
            assert (await face.asked(path))[0] == 500
        assert (await face.asked(path))[0] == 200


async def test_one_read_of_a_domain_serves_until_everything_changes(ground: Ground) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    reads: list[str] = []
    addresses = ground.store.addresses

    class Counting:
        async def addresses(self, domain: str, limit: int) -> tuple[str, ...]:
            reads.append(domain)
            return await addresses(domain, limit)

    index = HashIndex(Counting(), ground.changes, most=2)  # type: ignore[arg-type]
    for local in ("alice", "bob", "alice"):
        assert (await index.find("example.org", hash_of(local))) == ("alice" if local == "alice" else None)
    assert reads == ["example.org"]
    dave = make(("Dave <dave@example.org>",), seed="dave")
    await ground.put(dave, Source.LOCAL, "admin")
    assert await index.find("example.org", hash_of("dave")) == "dave"
    assert reads == ["example.org"], "a change says what it names"
    names = frozenset(f"openpgp:addr:x{n}@example.org" for n in range(9))
    ground.changes.publish(Change(99, names))
    assert await index.find("example.org", hash_of("x1")) is None, "more names than may be kept: read again"
    ground.changes.publish(Change(100, frozenset(), everything=True))
    assert await index.find("example.org", hash_of("dave")) == "dave"
    assert reads == ["example.org"] * 3
    for _ in range(2):
        assert await index.find("nowhere.example", hash_of("dave")) is None
    assert await index.find("home.example", hash_of("alice")) == "alice"
    assert await index.find("example.org", hash_of("alice")) == "alice"
    assert reads[-1] == "example.org", "the domain that was read first had to leave"


async def test_a_v6_certificate_only_where_there_is_no_other(ground: Ground) -> None:
    ours(ground)
    await ground.put(SIX, Source.LOCAL, "admin")
    async with faces(ground, **OURS) as face:
        _, (certificate,) = await told(face, "example.org", "alice")
        assert certificate.proof.version == 6
        await ground.put(ALICE, Source.LOCAL, "admin")
        _, (certificate,) = await told(face, "example.org", "alice")
        assert certificate.proof.version == 4, "beside a v6 certificate gpg would import neither"


async def test_policy_and_submission_address(ground: Ground) -> None:
    async with faces(ground, **OURS) as face:
        for target, host in (
            ("/.well-known/openpgpkey/example.org/policy", "keys.example"),
            ("/.well-known/openpgpkey/policy", "example.org"),
        ):
            reply = await face.get(target, host=host)
            assert (reply.status, reply.body) == (200, b"")
            assert reply.headers["content-length"] == "0"
            assert (await face.get(target, host=host, method="HEAD")).status == 200
        assert (await face.get("/.well-known/openpgpkey/partner.example/policy")).status == 404
        assert (await face.get("/.well-known/openpgpkey/policy", host="partner.example")).status == 404
        assert (await face.get("/.well-known/openpgpkey/example.org/submission-address")).status == 404


async def test_head_options_and_conditional(ground: Ground) -> None:
    ours(ground)
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground, **OURS) as face:
        target = direct("alice")
        got = await face.get(target, host="example.org")
        head = await face.get(target, host="example.org", method="HEAD")
        assert head.headers["content-length"] == str(len(got.body))
        again = await face.get(target, f"If-None-Match: {got.headers['etag']}", host="example.org")
        assert again.status == 304
        options = await face.get(target, host="example.org", method="OPTIONS")
        assert (options.status, options.headers["allow"]) == (200, "GET, HEAD, OPTIONS")
        assert (await face.get(target, "Content-Length: 0", host="example.org", method="POST")).status == 405


async def test_a_domain_in_letters_of_its_own(ground: Ground) -> None:
    made = make(("Jörg <jörg@bücher.example>",), seed="j")
    await ground.put(made, Source.LOCAL, "admin")
    async with faces(ground, own_domains=("xn--bcher-kva.example",)) as face:
        target = f"/.well-known/openpgpkey/{{}}/hu/{hash_of('jörg')}?l=j%C3%B6rg"
        for domain in (
            "xn--bcher-kva.example",
            "XN--BCHER-KVA.example",
            quote("bücher.example"),
            quote("BÜCHER.example"),
        ):
            assert (await face.asked(target.format(domain)))[0] == 200, domain
        assert (await face.asked(direct("jörg"), host="xn--bcher-kva.example"))[0] == 200


HASH = hash_of("alice")
ROOT = "/.well-known/openpgpkey"
HOSTILE = (
    f"{ROOT}/example.org/hu/{HASH}?l=bob",
    f"{ROOT}/example.org/hu/{HASH}?l=",
    f"{ROOT}/example.org/hu/{HASH}?l=alice%00",
    f"{ROOT}/example.org/hu/{HASH}?l=%ff",
    f"{ROOT}/example.org/hu/{HASH}?l=%",
    f"{ROOT}/example.org/hu/{HASH}?l=alice@example.org",
    f"{ROOT}/example.org/hu/{HASH}?l=bob&l=alice",
    f"{ROOT}/example.org/hu/{HASH.upper()}?l=alice",
    f"{ROOT}/example.org/hu/{HASH[:-1]}?l=alice",
    f"{ROOT}/example.org/hu/{HASH}/?l=alice",
    f"{ROOT}/example.org/hu/{'y' * 3000}?l=alice",
    f"{ROOT}/{'a' * 3000}/hu/{HASH}?l=alice",
    f"{ROOT}/example.org%2F/hu/{HASH}?l=alice",
    f"{ROOT}/example.org%00/hu/{HASH}?l=alice",
    f"{ROOT}/example.org%ff/hu/{HASH}?l=alice",
    f"{ROOT}/example.org./hu/{HASH}?l=alice",
    f"{ROOT}/../openpgpkey/example.org/hu/{HASH}?l=alice",
    f"{ROOT}//example.org/hu/{HASH}?l=alice",
    f"{ROOT}/%65xample.org/hu/%{HASH[:1]}?l=alice",
    f"/.well-known/%6fpenpgpkey/example.org/hu/{HASH}?l=alice",
    f"/.well-known/openpgpkey/%68u/{HASH}?l=alice",
    f"/.well-known/%6fpenpgpkey/hu/{HASH}?l=alice",
    f"{ROOT}/example.org/%68u/{HASH}?l=alice",
    f"{ROOT}/example.org/hu%2F{HASH}?l=alice",
    f"{ROOT}",
    f"{ROOT}/",
    f"{ROOT}/example.org",
    f"{ROOT}/example.org/hu/",
)


@pytest.mark.parametrize("target", HOSTILE)
async def test_nothing_else_finds_the_certificate(ground: Ground, target: str) -> None:
    ours(ground)
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground, **OURS) as face:
        for host in ("example.org", "keys.example"):
            status, body = await face.asked(target, host=host)
            assert status == 404
            assert ALICE.octets[:40] not in body
        assert face.notes == []


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("example.org", True),
        ("EXAMPLE.org:8443", True),
        ("example.org.", True),
        ("example.org.:443", True),
        ("example.org:", True),
        ("example.org..", False),
        (".example.org", False),
        ("example.org:443:443", False),
        ("example.org:x", False),
        ("example.org/", False),
        ("example.org@keys.example", False),
        ("example.org, keys.example", False),
        ("[::1]", False),
        ("127.0.0.1", False),
        ("ex%61mple.org", False),
        ("a" * 300, False),
    ],
)
async def test_the_host_of_the_direct_form(ground: Ground, host: str, found: bool) -> None:
    ours(ground)
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground, **OURS) as face:
        first = await face.get(direct("alice"), host=host)
        again = await face.get(direct("alice"), host=host)
        assert first.status == again.status
        assert (first.status == 200) is found
        assert first.status in (200, 400, 404)


async def test_two_hosts_and_octets_that_are_no_text(ground: Ground) -> None:
    ours(ground)
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground, **OURS) as face:
        assert (await face.get(direct("alice"), host="example.org")).status == 200
        assert (await face.get(direct("alice"), host="example.org")).status == 200
        for other in ("example.org", "other.example"):
            reply = await face.get(direct("alice"), f"Host: {other}", host="example.org")
            assert reply.status in (400, 404)
        for raw in (b"\xff", b"\xc3\xa4", b"\xed\xb3\xbf"):
            target = b"%b/%b/hu/%b?l=%b" % (ROOT.encode(), raw, HASH.encode(), raw)
            assert (await face.get(target)).status in (400, 404)
        whole = f"GET http://example.org{direct('alice')} HTTP/1.1\r\nHost: other.example\r\n\r\n"
        assert (await face.raw(whole.encode())).status in (400, 404), "what a proxy is told"


async def test_memory_says_what_the_handler_says_whatever_host_and_spelling_come_in_turn(ground: Ground) -> None:
    """A header that memory does not know has the handler answer."""
    ours(ground)
    other = make(("Alice <alice@hu>", "Alice <alice@sub.example.org>"), seed="other")
    for made in (ALICE, other):
        await ground.put(made, Source.LOCAL, "admin")
    hosts = ("example.org", "EXAMPLE.org:443", "home.example", "sub.example.org", "hu", "hu.", "x", "[::1]", "a/b")
    paths = (
        direct("alice"),
        direct("alice").replace("?l=alice", ""),
        direct("alice").replace("/hu/", "/h%75/"),
        direct("alice") + "&l=bob",
        advanced("hu", "alice"),
        advanced("example.org", "alice"),
        advanced("Example.org", "alice"),
        advanced("home.example", "alice"),
        f"{ROOT}/example.org/hu/hu/{HASH}?l=alice",
        f"{ROOT}/hu/hu/hu/{HASH}?l=alice",
        f"{ROOT}//hu/{HASH}?l=alice",
    )
    turns = [(host, path, method) for host in hosts for path in paths for method in ("GET", "HEAD")]
    random.Random(7).shuffle(turns)
    async with faces(ground, own_domains=("example.org", "*.example.org", "home.example", "hu")) as face:
        for _ in range(3):
            for host, path, method in turns:
                told = await face.get(path, host=host, method=method)
                true = await face.get(path, "X-Unknown: x", host=host, method=method)
                assert (told.status, told.body) == (true.status, true.body), (method, host, path)
                assert told.headers.get("etag") == true.headers.get("etag"), (method, host, path)
        assert face.hits > 100
