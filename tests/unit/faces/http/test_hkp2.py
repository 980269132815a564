"""HKP v2, rule by rule of the draft; sections are those of draft-gallagher-openpgp-hkp-10."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from keyserver.model import Failed, Source
from support.http_faces import Faces, Reply, faces
from support.openpgp import CREATED, make
from support.resolving import Ground, sends

V2 = "/pks/v2"
ALICE = make(("Alice <alice@example.org>", "Alice <alice@home.example>"), seed="alice", expires=10**9)
SIX = make(("Alice <alice@example.org>",), version=6, seed="six")
GONE = make(("Bob <bob@example.org>",), seed="bob", revoked=0)


def four(ground: Ground) -> bytes:
    return ground.clean(ALICE).octets


async def put(ground: Ground) -> None:
    for made in (ALICE, SIX, GONE):
        await ground.put(made, Source.LOCAL, "admin")


async def bodies(face: Faces, *paths: str) -> list[Reply]:
    return [await face.get(f"{V2}/{path}") for path in paths]


async def test_by_versioned_fingerprint_in_both_spellings(ground: Ground) -> None:
    """§5.1.2"""
    await put(ground)
    async with faces(ground) as face:
        four, six = ground.clean(ALICE).octets, ground.clean(SIX).octets
        for identifier, octets in (
            (f"04{ALICE.fingerprint}", four),
            (f"04{ALICE.fingerprint.lower()}", four),
            (f"4/{ALICE.fingerprint}", four),
            (f"04/{ALICE.fingerprint}", four),
            (f"06{SIX.fingerprint}", six),
            (f"6/{SIX.fingerprint}", six),
            (f"04{ALICE.subkeys[0].fingerprint}", four),
        ):
            before = face.hits
            assert await face.asked(f"{V2}/certs/by-vfingerprint/{identifier}") == (200, octets), identifier
            assert face.hits == before + 2, "from memory"
        for identifier in (
            ALICE.fingerprint,
            f"06{ALICE.fingerprint}",
            f"04{SIX.fingerprint}",
            f"4{ALICE.fingerprint}",
            f"0x04{ALICE.fingerprint}",
            f"04{ALICE.fingerprint}/",
            f"05{SIX.fingerprint}",
            "04",
            f"04{ALICE.fingerprint[:-1]}g",
        ):
            assert (await face.get(f"{V2}/certs/by-vfingerprint/{identifier}")).status == 404, identifier


async def test_by_key_id_nothing_above_version_4(ground: Ground) -> None:
    """§5.1.3"""
    await put(ground)
    async with faces(ground) as face:
        assert await face.asked(f"{V2}/certs/by-keyid/{ALICE.key_id}") == (200, four(ground))
        assert await face.asked(f"{V2}/certs/by-keyid/{ALICE.key_id.lower()}") == (200, four(ground))
        for identifier in (
            SIX.key_id,
            SIX.fingerprint[:16],
            f"0x{ALICE.key_id}",
            ALICE.fingerprint,
            ALICE.key_id[8:],
        ):
            assert (await face.get(f"{V2}/certs/by-keyid/{identifier}")).status == 404, identifier


async def test_by_identity_every_version_and_only_the_whole_address(ground: Ground) -> None:
    """§5.1.9"""
    await put(ground)
    async with faces(ground) as face:
        for identity in ("alice@example.org", "ALICE%40Example.ORG", "Alice%20%3Calice@example.org%3E"):
            status, body = await face.asked(f"{V2}/certs/by-identity/{identity}")
            assert status == 200
            assert len(body) == len(four(ground)) + len(ground.clean(SIX).octets)
            assert four(ground) in body
        for identity in (
            "alice",
            "example.org",
            "alice@example.or",
            ALICE.fingerprint,
            "a@example.org%20b@example.org",
            "alice%00@example.org",
            "alice%ff@example.org",
            "alice@example.org%0a",
            "alice@example.org/",
            "x" * 4000,
        ):
            assert (await face.get(f"{V2}/certs/by-identity/{identity}")).status == 404, identity


async def test_octets_and_headers(ground: Ground) -> None:
    """§7.1, §5.1.8"""
    await put(ground)
    async with faces(ground) as face:
        path = f"{V2}/certs/by-keyid/{ALICE.key_id}"
        got, head = await face.get(path), await face.get(path, method="HEAD")
        assert got.headers["content-type"] == "application/pgp-keys;armor=no"
        assert got.headers["x-key-source"] == "local"
        for name in ("content-type", "content-length", "etag", "access-control-allow-origin"):
            assert head.headers[name] == got.headers[name]
        replies = await bodies(
            face, "certs/by-keyid/0000000000000000", "certs", "index", "nothing", "prefixlog/2026-01-01", "canonical/x"
        )
        assert [reply.status for reply in replies] == [404, 403, 403, 501, 501, 404]
        assert {reply.headers["access-control-allow-origin"] for reply in replies} == {"*"}


async def test_the_index(ground: Ground) -> None:
    """§5.1.5, §7.1.1"""
    await put(ground)
    async with faces(ground) as face:
        reply = await face.get(f"{V2}/index/alice@example.org")
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        certificates = {c["version"]: c for c in json.loads(reply.body)}
        one = certificates[4]
        assert one["fingerprint"] == ALICE.fingerprint.lower()
        assert one["algorithm"] == {"code": 22, "name": "EdDSALegacy", "bitLength": 256}
        assert one["creation"] == "2020-09-13T12:26:40Z" if CREATED == 1_600_000_000 else one["creation"].endswith("Z")
        assert len(one["creation"]) == len(one["expiration"]) == 20
        assert not one["isRevoked"]
        assert [u["uidString"] for u in one["userIDs"]] == ["Alice <alice@example.org>", "Alice <alice@home.example>"]
        assert one["subkeys"][0]["fingerprint"] == ALICE.subkeys[0].fingerprint.lower()
        assert certificates[6]["fingerprint"] == SIX.fingerprint.lower()
        assert "expiration" not in certificates[6]
        (gone,) = json.loads((await face.get(f"{V2}/index/bob@example.org")).body)
        assert gone["isRevoked"] is True
        assert (await face.get(f"{V2}/index/nobody@example.org")).status == 404


async def test_canonical_is_the_word_of_the_addresss_own_domain(ground: Ground) -> None:
    """§5.1.4"""
    public, owner = ground.peer("public"), ground.peer("owner", by_owner=True)
    public.answers = {"alice@example.org": sends(ALICE)}
    async with faces(ground) as face:
        assert (await face.asked(f"{V2}/certs/by-identity/alice@example.org"))[0] == 200
        assert (await face.asked(f"{V2}/canonical/alice@example.org"))[0] == 404
        ground.now += 1000
        owner.answers = {"alice@example.org": sends(ALICE)}
        status, body = await face.asked(f"{V2}/canonical/alice@example.org")
        assert status == 200
        assert b"alice@home.example" not in body
        ground.now += 10**5
        owner.answers = {"alice@example.org": Failed("away")}
        await ground.store.purge_all(ground.now)
        assert (await face.asked(f"{V2}/canonical/alice@example.org"))[0] == 500


@pytest.mark.parametrize("category", ["certs", "certs/by-vfingerprint", "certs/by-keyid", "certs/by-identity", "index"])
async def test_without_an_identifier_and_what_a_category_takes(ground: Ground, category: str) -> None:
    """§5.1.7"""
    async with faces(ground) as face:
        for slash in ("", "/"):
            assert (await face.get(f"{V2}/{category}{slash}")).status == 403
            options = await face.get(f"{V2}/{category}{slash}", method="OPTIONS")
            assert (options.status, options.headers["allow"]) == (200, "GET, HEAD, OPTIONS")
            assert options.headers["access-control-allow-methods"] == "GET, HEAD, OPTIONS"
            assert (await face.get(f"{V2}/{category}{slash}", method="DELETE")).status == 405


@pytest.mark.parametrize(
    "path", ["prefixlog", "prefixlog/2026-01-01", "certs/by-fingerprint/" + ALICE.fingerprint, "keys", "", "certsx"]
)
async def test_unknown_categories(ground: Ground, path: str) -> None:
    """§4.2"""
    async with faces(ground) as face:
        for method in ("GET", "HEAD", "OPTIONS", "POST"):
            reply = await face.get(f"{V2}/{path}", "Content-Length: 0", method=method)
            assert reply.status == 501, method
            assert reply.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "certs"), ("PUT", "canonical/alice@example.org"), ("POST", "sendtoken")]
)
async def test_submissions_are_read_and_refused(ground: Ground, method: str, path: str) -> None:
    """§5.2"""
    async with faces(ground) as face:
        body = ALICE.octets * 100
        head = f"{method} {V2}/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        reply = await face.raw(head.encode() + body)
        assert (reply.status, list(json.loads(reply.body))) == (403, ["error"])
        assert reply.headers["content-type"].startswith("application/json")
        assert reply.headers["access-control-allow-origin"] == "*"
        assert (await ground.store.stats()).certificates == 0


async def test_failure_is_500_and_mail_answers_where_the_view_says_so(ground: Ground) -> None:
    ground.peer("peer").otherwise = Failed("away")
    async with faces(ground) as face:
        reply = await face.get(f"{V2}/certs/by-identity/alice@example.org")
        assert reply.status == 500
        assert reply.headers["cache-control"] == "no-store"
    ground.change(views={"default": replace(face.context.view, answer_mailflow=True)})
    await ground.put_mail(ALICE, "alice@example.org")
    async with faces(ground) as face:
        assert (await face.get(f"{V2}/certs/by-identity/alice@example.org")).status == 200
        assert (await face.get(f"{V2}/canonical/alice@example.org")).status == 404, "nobody speaks for the domain"


@pytest.mark.parametrize(
    "path", ["/pks/%762/certs/by-keyid/{}", "/pks/v2/c%65rts/by-keyid/{}", "/pks/v2/certs%2Fby-keyid/{}"]
)
async def test_other_spellings_of_the_path_find_nothing(ground: Ground, path: str) -> None:
    await put(ground)
    async with faces(ground) as face:
        assert (await face.get(path.format(ALICE.key_id))).status in (404, 501)
