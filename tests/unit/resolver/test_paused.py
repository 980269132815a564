"""Paused upstreams: kept, said aloud, and not asked even where a question was already waiting for its turn."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from keyserver.model import Absent, Failed, Fault, Outcome
from keyserver.query import ByAddress
from keyserver.resolver.circuit import AT_ONCE, CircuitBreaker
from keyserver.resolver.paused import Paused
from support.resolving import Ground, until


async def test_kept_and_said_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ground = Ground(tmp_path)
    await ground.store.open()
    try:
        first = Paused(ground.store.upstreams, lambda: ground.now)
        assert await first.pause("a directory") == ground.now
        assert first.complaint(["a directory", "b"]) == "paused by an administrator, so not asked: a directory"
        ground.now += 90
        again = Paused(ground.store.upstreams, lambda: ground.now)
        with caplog.at_level(logging.WARNING):
            await again.load()
        assert "upstream a directory was paused 90 s ago" in caplog.text
        assert (again.since("a directory"), again.since("b")) == (ground.now - 90, None)
        assert again.complaint(["b"]) == ""
        await again.resume("a directory")
        assert "a directory" not in again
        assert await ground.store.upstreams.pauses() == {}
    finally:
        await ground.store.close()


async def test_what_waits_for_its_turn_is_not_asked_any_more(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    peer = ground.peer("a")
    peer.open.clear()
    paused: set[str] = set()
    told: list[str] = []
    circuit = CircuitBreaker(
        ground.monotonic,
        lambda: 0.5,
        paused=lambda name: 1 if name in paused else None,
        tell=lambda name, query: told.append(str(query)),
    )

    def ask(n: int, *, force: bool = False) -> asyncio.Future[Outcome]:
        return asyncio.ensure_future(circuit.ask(peer, ByAddress(f"n{n}", "example.org"), 5.0, "here", force=force))

    questions = [ask(n) for n in range(AT_ONCE + 3)]
    await until(lambda: len(peer.asked) == AT_ONCE)
    paused.add("a")
    peer.open.set()
    outcomes = await asyncio.gather(*questions)
    assert [type(o) for o in outcomes] == [Absent] * AT_ONCE + [Failed] * 3
    assert told == peer.asked == [f"n{n}@example.org" for n in range(AT_ONCE)]
    refused = await ask(99)
    assert isinstance(refused, Failed)
    assert refused.fault is Fault.LOCAL, "it says nothing of the upstream's health"
    assert isinstance(await ask(99, force=True), Absent)
    status = circuit.status(peer)
    assert (status.state, status.paused_at, status.failed) == ("paused", 1, 0)
