"""What policy engines are told over HTTP: one word or JSON, from memory while it is true."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from keyserver.model import Failed, Source
from keyserver.verdict.deciding import Kinds, Policy
from keyserver.verdict.named import NamedPolicy
from support.openpgp import make
from support.resolving import Ground, sends, until
from support.verdict_faces import YES, policies, verdict_faces

ALICE = make(["Alice <alice@example.org>"], seed="alice")
ASK = "/verdict?address=alice@example.org"


async def test_one_word(ground: Ground) -> None:
    peer = ground.peer("u")
    peer.answers |= {"alice@example.org": sends(ALICE), "down@example.org": Failed("connection refused")}
    async with verdict_faces(
        ground, NamedPolicy(Policy(), YES), NamedPolicy(Policy("s", kinds=Kinds.SMIME), YES)
    ) as face:
        for target, word in (
            (ASK, b"yes\n"),
            (f"{ASK}&policy=encrypt", b"yes\n"),
            (f"{ASK}&policy=s", b"no\n"),
            ("/verdict?address=nobody@example.org", b"no\n"),
            ("/verdict?policy=encrypt&address=ALICE%40Example.ORG", b"yes\n"),
            ("/verdict?address=nonsense", b"no\n"),
        ):
            for _ in range(3):
                status, headers, body = await face.get(target)
                assert (status, body) == (200, word), target
                assert headers["content-type"] == "text/plain; charset=utf-8"
                assert "access-control-allow-origin" not in headers
        status, headers, body = await face.get("/verdict?address=down@example.org")
        assert (status, body, headers["cache-control"]) == (200, b"unknown\n", "no-store")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/verdict", 400),
        ("/verdict?address=", 400),
        ("/verdict?address=%20", 400),
        ("/verdict?address=a@example.org&address=b@example.org", 400),
        (f"{ASK}&policy=encrypt&policy=encrypt", 400),
        (f"{ASK}&policy=elsewhere", 404),
        (f"{ASK}&policy=", 404),
        ("/", 404),
        ("/pks/lookup?op=get&search=alice@example.org", 404),
    ],
)
async def test_what_is_no_question(ground: Ground, target: str, status: int) -> None:
    peer = ground.peer("u")
    async with verdict_faces(ground) as face:
        found, headers, _ = await face.get(target)
        assert (found, headers.get("cache-control")) == (status, "no-store")
    assert peer.asked == []


async def test_json_says_why(ground: Ground) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with verdict_faces(ground) as face:
        for _ in range(3):
            assert (await face.get(ASK))[2] == b"yes\n"
            status, headers, body = await face.get(ASK, "Accept: application/json")
            assert (status, headers["content-type"]) == (200, "application/json; charset=utf-8")
            assert headers["cache-control"] == "no-store"
            said = json.loads(body)
            (certificate,) = said.pop("certificates")
            assert (certificate["fingerprint"], certificate["kind"]) == (ALICE.fingerprint, "openpgp")
            assert (certificate["source"], certificate["origin"], certificate["approved"]) == ("local", "admin", True)
            assert said.pop("reason")
            assert (said.pop("text"), said.pop("missing")) == ("", [])
            assert said == {"address": "alice@example.org", "policy": "encrypt", "verdict": "yes"}
        said = json.loads((await face.get("/verdict?address=bob@example.org", "Accept: application/json"))[2])
        assert (said["verdict"], said["reason"]) == ("no", "nobody has a certificate for it")


async def test_known_verdicts_come_from_memory_until_something_changes(ground: Ground) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with verdict_faces(ground) as face:
        for _ in range(4):
            status, headers, body = await face.get(ASK)
            assert (status, body) == (200, b"yes\n")
            assert headers["cache-control"].startswith("max-age=")
        assert len(face.notes) == 1
        face.servers["verdict"].second()
        assert face.hits["verdict"] == 3
        assert "openpgp:addr:alice@example.org" in face.resolver.take_asked(), "prefetch hears of it"
        await ground.store.delete(ALICE.fingerprint, ground.now)
        for _ in range(3):
            assert (await face.get(ASK))[2] == b"no\n"
        await ground.put(ALICE, Source.LOCAL, "admin")
        assert (await face.get(ASK))[2] == b"yes\n"
        await ground.store.block(ALICE.fingerprint, ground.now)
        assert (await face.get(ASK))[2] == b"no\n"


async def test_the_first_policy_is_asked_where_none_is_named(ground: Ground) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    named = NamedPolicy(Policy("s", kinds=Kinds.SMIME), YES), NamedPolicy(Policy("encrypt"), YES)
    async with verdict_faces(ground, *named) as face:
        assert (await face.get(ASK))[2] == b"no\n"
        assert (await face.get(f"{ASK}&policy=encrypt"))[2] == b"yes\n"
        face.rules = replace(face.rules, policies=policies())
        face.budget.clear()
        assert (await face.get(ASK))[2] == b"yes\n"


async def test_who_may_not_ask_gets_no_reply(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    async with verdict_faces(ground) as face:
        server = face.servers["verdict"]
        monkeypatch.setattr("keyserver.faces.verdict.asking.Asking.may", lambda *_: False)
        with pytest.raises((ConnectionError, ValueError, IndexError)):
            await face.get(ASK)
        async with face.client() as client:
            assert await client.closed()
        await until(lambda: server.refused == 1)
        assert face.servers["socketmap"].refused == 1
