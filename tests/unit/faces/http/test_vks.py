"""VKS: the certificates that HKP v1 answers, and the refusal of uploads in the protocol's own form."""

from __future__ import annotations

import json

import pytest

from keyserver.faces.http import question
from keyserver.model import Failed, Source
from keyserver.openpgp.armor import dearmor
from support.http_faces import faces
from support.openpgp import make
from support.resolving import Ground, sends

ALICE = make(("Alice <alice+x@example.org>",), seed="alice")
SIX = make(("Six <six@example.org>",), version=6, seed="six")
NAMELESS = make((), seed="nameless")


async def test_by_fingerprint_key_id_and_address_as_hkp_answers_them(ground: Ground) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground) as face:
        hkp = await face.get(f"/pks/lookup?op=get&options=mr&search=0x{ALICE.fingerprint}")
        for path in (
            f"by-fingerprint/{ALICE.fingerprint}",
            f"by-fingerprint/{ALICE.fingerprint.lower()}",
            f"by-fingerprint/{ALICE.subkeys[0].fingerprint}",
            f"by-keyid/{ALICE.key_id}",
            "by-email/alice%2Bx%40example.org",
            "by-email/alice%2bx@EXAMPLE.org",
            "by-email/alice+x@example.org",
        ):
            before = face.hits
            assert await face.asked(f"/vks/v1/{path}") == (200, hkp.body), path
            assert face.hits == before + 2, "from memory"
        reply = await face.get(f"/vks/v1/by-keyid/{ALICE.key_id}", method="HEAD")
        assert reply.headers["content-type"] == "application/pgp-keys"
        assert reply.headers["content-length"] == str(len(hkp.body))
        assert reply.headers["x-key-source"] == "local"
        assert {note[0] for note in face.notes} == {"hkp", "vks"}


async def test_version_6_by_its_whole_fingerprint_only(ground: Ground) -> None:
    await ground.put(SIX, Source.LOCAL, "admin")
    async with faces(ground) as face:
        reply = await face.get(f"/vks/v1/by-fingerprint/{SIX.fingerprint}")
        assert (reply.status, dearmor(reply.body)) == (200, (ground.clean(SIX).octets,))
        assert (await face.get("/vks/v1/by-email/six%40example.org")).status == 404
        assert (await face.get(f"/vks/v1/by-keyid/{SIX.key_id}")).status == 404


async def test_nothing_failed_and_nameless(ground: Ground) -> None:
    peer = ground.peer("peer")
    peer.answers = {"bob@example.org": Failed("away"), NAMELESS.fingerprint: sends(NAMELESS)}
    async with faces(ground) as face:
        assert (await face.asked("/vks/v1/by-email/nobody%40example.org"))[0] == 404
        assert (await face.asked("/vks/v1/by-email/bob%40example.org"))[0] == 500
        assert (await face.asked(f"/vks/v1/by-fingerprint/{NAMELESS.fingerprint}"))[0] == 200
        reply = await face.get("/vks/v1/by-email/bob%40example.org")
        assert reply.headers["access-control-allow-origin"] == "*"
        assert b"not found" not in reply.body.lower()


@pytest.mark.parametrize(
    "path",
    [
        "by-fingerprint/",
        f"by-fingerprint/0x{ALICE.fingerprint}",
        f"by-fingerprint/{ALICE.fingerprint[:-1]}",
        f"by-fingerprint/{ALICE.fingerprint}/",
        f"by-fingerprint/{ALICE.key_id}",
        f"by-keyid/{ALICE.fingerprint}",
        f"by-keyid/{ALICE.key_id[-8:]}",
        f"by-keyid/%{ALICE.key_id}",
        "by-email/",
        "by-email/alice",
        "by-email/alice%40",
        "by-email/alice%00%40example.org",
        "by-email/alice%ff%40example.org",
        "by-email/alice%2Bx%40example.org/",
        "by-email/%E0%A4%40example.org",
        f"by-email/{'a' * 3000}%40example.org",
        "by-email/Alice%20%3Calice%2Bx%40example.org%3E",
    ],
)
async def test_what_cannot_be_meant_is_refused(ground: Ground, path: str) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground) as face:
        reply = await face.get(f"/vks/v1/{path}")
        assert reply.status == 400
        assert reply.headers["access-control-allow-origin"] == "*"
        assert face.notes == []


@pytest.mark.parametrize("path", ["/vks/v1/%62y-keyid/{}", "/%76ks/v1/by-keyid/{}", "/vks/v1/by%2Dkeyid/{}"])
async def test_other_spellings_of_the_path_find_nothing(ground: Ground, path: str) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with faces(ground) as face:
        assert (await face.get(path.format(ALICE.key_id))).status in (400, 404)


@pytest.mark.parametrize("path", ["/vks/v1/upload", "/vks/v1/request-verify"])
async def test_uploads_are_read_and_refused(ground: Ground, path: str) -> None:
    async with faces(ground) as face:
        body = json.dumps({"keytext": "x" * 100_000}).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        reply = await face.raw(head.encode() + body)
        assert (reply.status, list(json.loads(reply.body))) == (403, ["error"])
        assert reply.headers["content-type"].startswith("application/json")
        assert reply.headers["access-control-allow-origin"] == "*"
        assert (await face.get(path)).status == 405
        options = await face.get(path, method="OPTIONS")
        assert (options.status, options.headers["allow"]) == (200, "OPTIONS, POST")


async def test_an_endless_upload_is_cut(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "MAX_SUBMISSION", 10_000)
    async with faces(ground) as face:
        head = b"POST /vks/v1/upload HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
        reply = await face.raw(head + b"x" * 20_000)
        assert reply.status == 403
        assert reply.headers["connection"] == "close"
