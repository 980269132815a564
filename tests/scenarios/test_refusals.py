"""What a search brings and the cache may not take: damaged copies, blocked certificates, a full disk, wrong answers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.model import Found, How, Kind, Raw, State
from keyserver.store.base import StoreError
from scenarios.world import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    made.upstream("a")
    yield made
    await made.stop()


async def test_a_copy_that_came_beside_damage_replaces_nothing(world: World) -> None:
    whole = world.certificate("whole", "Alice <alice@example.org>", "Alice <alice@work.example>")
    world.certificates["short"] = world.certificate("whole", "Alice <alice@example.org>")
    assert world.certificates["short"].fingerprint == whole.fingerprint
    world.certificates["whole"] = whole
    await world.start()
    peer = world.upstreams["a"]
    peer.answers[whole.fingerprint] = world.found("whole")
    await world.get(whole.fingerprint)
    short = Raw(Kind.OPENPGP, world.certificates["short"].octets)
    peer.answers[whole.fingerprint] = lambda: Found((short, Raw(Kind.OPENPGP, b"\x99garbage")))
    await world.play("pass 25h")
    answer = await world.get(whole.fingerprint)
    texts = [u.text for u in answer.certificates[0].certificate.proof.user_ids]
    assert len(texts) == 2, "merged, not replaced"
    peer.answers[whole.fingerprint] = lambda: Found((short,))
    await world.play("pass 25h")
    answer = await world.get(whole.fingerprint)
    assert len(answer.certificates[0].certificate.proof.user_ids) == 1, "a whole answer is news"


async def test_damage_beside_a_good_block_is_told_and_replaces_nothing(world: World) -> None:
    whole = world.certificate("whole", "Alice <alice@example.org>", "Alice <alice@work.example>")
    short = world.certificate("whole", "Alice <alice@example.org>")
    world.certificates["whole"] = whole
    await world.start()
    peer = world.upstreams["a"]
    peer.answers[whole.fingerprint] = world.found("whole")
    await world.get(whole.fingerprint)
    await world.play("pass 25h")
    raw = Raw(Kind.OPENPGP, short.octets)
    peer.answers[whole.fingerprint] = lambda: Found((raw,), ("an armored block without its END line",))
    answer = await world.get(whole.fingerprint)
    assert len(answer.certificates[0].certificate.proof.user_ids) == 2
    assert any(step.what == "damaged" and "END line" in step.why for step in answer.steps)


async def test_beside_damage_nothing_is_absent(world: World) -> None:
    """The block that cannot be read may be the one that was asked for."""
    bob = world.certificate("bob", "Bob <bob@example.org>")
    await world.start()
    raw = Raw(Kind.OPENPGP, bob.octets)
    world.upstreams["a"].answers["alice@example.org"] = lambda: Found((raw,), ("an armored block is not base64",))
    answer = await world.get("alice@example.org")
    assert (answer.state, answer.keep) == (State.FAILED, False)
    world.upstreams["a"].answers["alice@example.org"] = lambda: Found((raw,))
    assert (await world.get("alice@example.org")).state is State.ABSENT


async def test_a_blocked_find_does_not_let_a_stranger_answer_for_the_address(world: World) -> None:
    world.upstream("b", priority=20)
    world.certificate("ceo", "Ceo <ceo@partner.example>")
    stranger = world.certificate("stranger", "Ceo <ceo@partner.example>")
    await world.start()
    await world.play("says b fpr(stranger) stranger")
    await world.play("says a ceo@partner.example ceo")
    await world.play("block ceo")
    assert world.named(await world.get(stranger.fingerprint)) == ["stranger"]
    answer = await world.get("ceo@partner.example")
    assert (answer.state, answer.how, answer.certificates) == (State.ABSENT, How.MISS, ())


async def test_reasons_name_nobody_but_the_trace_does(world: World) -> None:
    """An answer's reason goes to the log."""
    mallory = world.certificate("mallory", "Mallory <mallory@example.org>")
    await world.start()
    await world.play("says a alice@example.org mallory")
    answer = await world.get("alice@example.org")
    assert mallory.fingerprint not in answer.reason
    assert any(mallory.fingerprint in step.why for step in answer.steps)


async def test_an_upstream_that_is_not_asked_is_not_called_asked(world: World) -> None:
    await world.start()
    await world.play("always a timeout")
    for n in range(5):
        answer = await world.get(f"p{n}@example.org")
    assert [s.what for s in answer.steps if s.who == "a"] == ["failed"]
    assert "circuit is open" in answer.reason


async def test_store_trouble_is_logged_once_and_so_is_its_end(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [world.certificate(f"c{n}", f"C <c{n}@example.org>") for n in range(4)]
    await world.start()
    for n, each in enumerate(made):
        world.upstreams["a"].answers[each.fingerprint] = world.found(f"c{n}")

    async def full(*_: object) -> None:
        raise StoreError("disk is full")

    with caplog.at_level(logging.WARNING, "keyserver.cache"):
        with monkeypatch.context() as patch:
            patch.setattr(world.store, "put", full)
            for each in made[:3]:
                answer = await world.get(each.fingerprint)
                assert (answer.state, answer.keep) == (State.FOUND, False)
        assert [r.message for r in caplog.records] == ["nothing can be cached: disk is full"]
        await world.get(made[3].fingerprint)
    assert [r.message for r in caplog.records][1:] == ["over: nothing can be cached: disk is full"]
