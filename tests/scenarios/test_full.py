"""A full cache answers what it finds, every time: what was not cached is no "found, and nothing to tell"."""

from __future__ import annotations

from pathlib import Path

from keyserver.model import How, State
from scenarios.world import World


async def test_what_a_full_cache_could_not_take_is_found_again(tmp_path: Path) -> None:
    world = World(tmp_path, max_size="1 KiB")
    world.upstream("a")
    alice = world.certificate("alice", "Alice <alice@example.org>")
    await world.start()
    try:
        await world.play("always a alice")
        for term in (alice.fingerprint, "alice@example.org"):
            for _ in range(2):
                answer = await world.get(term)
                assert (answer.state, answer.how, answer.keep) == (State.FOUND, How.MISS, False)
    finally:
        await world.stop()
