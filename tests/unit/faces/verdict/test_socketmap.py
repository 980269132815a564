"""What a mail server is told by socketmap: each verdict, each setting, from memory, and whatever it sends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from keyserver.faces.verdict import socketmap
from keyserver.faces.verdict.asking import Asking
from keyserver.model import Failed, Source, View
from keyserver.verdict.asking import Verdicts
from keyserver.verdict.deciding import Kinds, Policy
from keyserver.verdict.named import NamedPolicy
from support.openpgp import CREATED, make
from support.resolving import Ground, sends, until
from support.verdict_faces import YES, VerdictFaces, policies, verdict_faces

ALICE = make(["Alice <alice@example.org>"], seed="alice")
MOTHER = "bücher.example"
KARL = make([f"Karl <karl@{MOTHER}>"], seed="karl")
GONE = make(["Gone <gone@example.org>"], seed="gone", revoked=0)

ASK = "encrypt alice@example.org"


def seconds_pass(face: VerdictFaces, seconds: int) -> None:
    for _ in range(seconds):
        face.servers["socketmap"].second()


async def test_three_verdicts(ground: Ground) -> None:
    peer = ground.peer("u")
    peer.answers |= {
        "alice@example.org": sends(ALICE),
        "down@example.org": Failed("connection refused"),
        "gone@example.org": sends(GONE),
    }
    async with verdict_faces(ground) as face:
        replies = await face.ask(
            ASK, "encrypt nobody@example.org", "encrypt down@example.org", "encrypt gone@example.org"
        )
    assert [replies[0], replies[1], replies[3]] == [f"OK {YES}", "NOTFOUND ", "NOTFOUND "]
    assert replies[2].startswith("TEMP u: connection refused")
    assert [word for _, _, word in face.notes] == ["yes", "no", "unknown", "no"]


async def test_unknown_is_not_found_where_mail_may_go_in_clear(ground: Ground) -> None:
    ground.peer("u").otherwise = Failed("connection refused")
    open_ = NamedPolicy(Policy("open"), YES, tempfail=False)
    async with verdict_faces(ground, NamedPolicy(Policy("closed"), YES), open_) as face:
        closed, fails_open = await face.ask("closed alice@example.org", "open alice@example.org")
    assert closed.startswith("TEMP ")
    assert fails_open == "NOTFOUND "


async def test_each_policy_is_a_map(ground: Ground) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    await ground.put_mail(KARL, "karl@xn--bcher-kva.example")
    ground.change(views={"gateways": View("gateways", answer_mailflow=True)})
    named = (
        NamedPolicy(Policy("encrypt"), "{kind}:[{domain}]"),
        NamedPolicy(Policy("smime", kinds=Kinds.SMIME), YES),
        NamedPolicy(Policy("both", kinds=Kinds.BOTH), YES),
        NamedPolicy(Policy("approved", approved=True), "local"),
        NamedPolicy(Policy("mail", view="gateways"), "x{domain}x"),
    )
    async with verdict_faces(ground, *named) as face:
        asked = [f"{one.policy.name} {who}" for one in named for who in ("alice@example.org", f"karl@{MOTHER}")]
        replies = dict(zip(asked, await face.ask(*asked), strict=True))
        assert [request for request, reply in replies.items() if reply != "NOTFOUND "] == [
            "encrypt alice@example.org",
            "approved alice@example.org",
            "mail alice@example.org",
            f"mail karl@{MOTHER}",
        ], "only that view hands out what was seen in mail"
        assert replies["encrypt alice@example.org"] == "OK openpgp:[example.org]"
        assert replies["mail alice@example.org"] == "OK xexample.orgx"
        assert (await face.ask("elsewhere alice@example.org"))[0].startswith("PERM ")
        assert (await face.ask("encrypt"))[0] == "NOTFOUND "
        assert (await face.ask(""))[0].startswith("PERM ")


async def test_the_domain_is_an_a_label(ground: Ground) -> None:
    await ground.put(KARL, Source.LOCAL, "admin")
    async with verdict_faces(ground, NamedPolicy(Policy(), "smtp:[gw.{domain}]")) as face:
        spelled = [
            f"encrypt {who}" for who in (f"karl@{MOTHER}", "KARL@XN--BCHER-KVA.example", f"karl@{MOTHER.upper()}")
        ]
        assert await face.ask(*spelled) == ["OK smtp:[gw.xn--bcher-kva.example]"] * 3


@pytest.mark.parametrize(
    "key",
    [
        *("example.org", ".example.org", "*", "alice", "", "@", "alice@", "@example.org", "alice@[192.0.2.1]"),
        *("Alice <alice@example.org>", "mailto:alice@example.org", "<alice@example.org>", "alice@ex\nample.org"),
        *("alice@example.org bob@x.example", "alice@example.org,bob@example.org", "alice@example.org\x00"),
        "a" * 9000 + "@example.org",
    ],
)
async def test_what_is_no_address_is_searched_nowhere(ground: Ground, key: str) -> None:
    """Postfix asks for domains, too."""
    peer = ground.peer("u")
    peer.otherwise = sends(ALICE)
    async with verdict_faces(ground) as face:
        assert await face.ask(f"encrypt {key}") == ["NOTFOUND "]
    assert peer.asked == []
    assert face.notes == []


async def test_the_second_question_asks_no_resolver(ground: Ground) -> None:
    peer = ground.peer("u")
    peer.answers["alice@example.org"] = sends(ALICE)
    async with verdict_faces(ground, NamedPolicy(Policy(kinds=Kinds.OPENPGP), YES)) as face:
        assert await face.ask(ASK, "encrypt nobody@example.org") == [f"OK {YES}", "NOTFOUND "]
        face.notes.clear()  # of the search, which has changed what is known
        face.resolver.take_asked()
        for _ in range(3):
            assert await face.ask(ASK, "encrypt nobody@example.org") == [f"OK {YES}", "NOTFOUND "]
        assert len(face.notes) == 2
        assert peer.asked == ["alice@example.org", "nobody@example.org"]
        face.resolver.take_asked()
        assert await face.ask(ASK) == [f"OK {YES}"]
        seconds_pass(face, 1)
        assert face.hits["socketmap"] == 5
        assert "openpgp:addr:alice@example.org" in face.resolver.take_asked(), "prefetch hears of it"


async def test_a_change_is_felt_at_once(ground: Ground) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with verdict_faces(ground) as face, face.client() as client:
        for _ in range(2):
            assert await client.ask(ASK) == f"OK {YES}"
        await ground.store.block(ALICE.fingerprint, ground.now)
        assert await client.ask(ASK) == "NOTFOUND "
        await ground.store.unblock(ALICE.fingerprint, ground.now)
        assert await client.ask(ASK) == f"OK {YES}"
        assert await client.ask(ASK) == f"OK {YES}"
        await ground.store.delete(ALICE.fingerprint, ground.now)
        for _ in range(2):
            assert await client.ask(ASK) == "NOTFOUND "
        await ground.put(ALICE, Source.LOCAL, "admin")
        assert await client.ask(ASK) == f"OK {YES}"


async def test_it_holds_no_longer_than_the_certificate(ground: Ground) -> None:
    short = make(["Alice <alice@example.org>"], seed="short", expires=ground.now - CREATED + 100)
    await ground.put(short, Source.LOCAL, "admin")
    named = NamedPolicy(Policy(), YES), NamedPolicy(Policy("hour", valid_for=60), YES)
    async with verdict_faces(ground, *named) as face, face.client() as client:
        for later, expected in ((0, ["OK", "OK"]), (39, ["OK", "OK"]), (40, ["OK", "NOTFOUND"])):
            start = ground.now
            ground.now += later
            for _ in range(2):
                found = [(await client.ask(f"{one.policy.name} alice@example.org")).split()[0] for one in named]
                assert found == expected, later
            ground.now = start
        ground.now += 100
        assert await client.ask(ASK) == "NOTFOUND "


async def test_unknown_is_asked_again(ground: Ground) -> None:
    peer = ground.peer("u")
    peer.otherwise = Failed("connection refused")
    async with verdict_faces(ground) as face, face.client() as client:
        assert (await client.ask(ASK)).startswith("TEMP ")
        await ground.put(ALICE, Source.LOCAL, "admin")
        assert await client.ask(ASK) == f"OK {YES}"


async def test_other_policies_hold_at_once_after_a_reload(ground: Ground) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with verdict_faces(ground) as face, face.client() as client:
        for _ in range(2):
            assert await client.ask(ASK) == f"OK {YES}"
        face.rules = replace(face.rules, policies=policies(NamedPolicy(Policy(), "elsewhere:")))
        face.budget.clear()  # as the change of everything does that comes with other rules
        assert await client.ask(ASK) == "OK elsewhere:"


async def test_replies_leave_in_order(ground: Ground) -> None:
    """A request that has to wait holds back those behind it, also what memory has."""
    peer = ground.peer("u")
    peer.answers["alice@example.org"] = sends(ALICE)
    async with verdict_faces(ground) as face, face.client() as client:
        assert await client.ask(ASK) == f"OK {YES}"
        peer.open.clear()
        client.send("encrypt slow@example.org", *[ASK] * 500, "nowhere x@example.org", "encrypt example.org")
        await until(lambda: "slow@example.org" in peer.asked)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.readexactly(1), 0.1)
        peer.open.set()
        found = [await client.read() for _ in range(503)]
    assert found[0] == "NOTFOUND "
    assert found[1:501] == [f"OK {YES}"] * 500
    assert found[501].startswith("PERM ")
    assert found[502] == "NOTFOUND "


async def test_what_was_asked_before_the_end_is_answered(ground: Ground) -> None:
    peer = ground.peer("u")
    peer.answers["alice@example.org"] = sends(ALICE)
    async with verdict_faces(ground) as face, face.client() as client:
        client.send(ASK, ASK)
        client.writer.write_eof()
        assert [await client.read(), await client.read()] == [f"OK {YES}"] * 2
        assert await client.closed()


@pytest.mark.parametrize("octets", [b"x", b"99999:encrypt", b"3:abcd", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 100])
async def test_hostile_octets_end_a_connection(ground: Ground, octets: bytes) -> None:
    async with verdict_faces(ground) as face, face.client() as client:
        client.writer.write(octets)
        assert await client.closed()
        assert await face.ask("encrypt example.org") == ["NOTFOUND "]


async def test_silence_ends_a_connection(ground: Ground) -> None:
    async with verdict_faces(ground) as face:
        server = face.servers["socketmap"]
        async with face.client() as client:  # nothing at all
            await until(lambda: server.present)
            seconds_pass(face, socketmap.PARTIAL)
            assert server.present
            seconds_pass(face, 1)
            assert await client.closed()
        async with face.client() as client:
            assert await client.ask("encrypt example.org") == "NOTFOUND "
            seconds_pass(face, socketmap.IDLE)
            assert await client.ask("encrypt example.org") == "NOTFOUND "
            client.writer.write(b"10:enc")  # and no more
            await asyncio.sleep(0.1)
            seconds_pass(face, socketmap.PARTIAL)
            assert server.present
            client.writer.write(b"r")
            await asyncio.sleep(0.1)
            seconds_pass(face, 1)
            assert await client.closed()


async def test_who_does_not_read_waits_and_then_ends(ground: Ground) -> None:
    await ground.put(ALICE, Source.LOCAL, "admin")
    async with verdict_faces(ground) as face, face.client() as client:
        server = face.servers["socketmap"]
        client.writer.transport.set_write_buffer_limits(1 << 26)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        assert (await face.ask(ASK))[0].startswith("OK")
        client.send(*[ASK] * 300_000)
        passed = 0
        while server.present:
            await asyncio.sleep(0.05)
            seconds_pass(face, 1)
            passed += 1
            assert passed < socketmap.IDLE


async def test_an_error_of_ours_is_no_answer(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("ours")

    async with verdict_faces(ground) as face:
        monkeypatch.setattr(Verdicts, "of", broken)
        (reply,) = await face.ask(ASK)
        assert reply.startswith("TEMP an error of this service")
        status, _, body = await face.get("/verdict?address=alice@example.org")
        assert (status, body) == (200, b"unknown\n")


async def test_strangers_may_not_ask(ground: Ground) -> None:
    async with verdict_faces(ground) as face:
        verdicts = Verdicts(face.resolver, ground.rules, lambda: ground.now, ground.monotonic)
        asking = Asking("socketmap", face.context, verdicts, lambda *line: None, unix=False)
        clients = ("127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.7", "::ffff:192.0.2.7", "2001:db8::1", "", "x")
        assert [client for client in clients if asking.may(client)] == ["127.0.0.1", "::1", "::ffff:127.0.0.1"]
        face.rules = replace(face.rules, verdict_clients=(ip_network("192.0.2.0/24"),))
        assert [client for client in clients if asking.may(client)] == [*clients[:3], "192.0.2.7", "::ffff:192.0.2.7"]
        assert replace(asking, unix=True).may("")


async def test_a_service_that_stops_answers_what_is_under_way(ground: Ground) -> None:
    peer = ground.peer("u")
    peer.answers["alice@example.org"] = sends(ALICE)
    peer.open.clear()
    async with verdict_faces(ground) as face, face.client() as client:
        client.send(ASK)
        await until(lambda: peer.asked)
        closing = asyncio.create_task(face.servers["socketmap"].close(5))
        await asyncio.sleep(0.05)
        peer.open.set()
        assert await client.read() == f"OK {YES}"
        assert await client.closed()
        await closing
