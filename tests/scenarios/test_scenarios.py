"""Plays the scenario files beside this one: upstream answers, questions and time, in lines a mail admin can read."""

from pathlib import Path

import pytest

from scenarios.world import World

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("apart", [False, True], ids=["one process", "front and core"])
@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
async def test_scenario(file: Path, apart: bool, tmp_path: Path) -> None:
    world = World(tmp_path, apart=apart)
    await world.start()
    try:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            text = line.partition("#")[0].strip()
            if text:
                try:
                    await world.play(text)
                except AssertionError as wrong:
                    raise AssertionError(f"{file.name}:{number}: {wrong}") from None
    finally:
        await world.stop()


async def test_a_front_answers_scenarios_from_its_own_memory(tmp_path: Path) -> None:
    """What a scenario asks again is not the core's to answer, or the second shape would show nothing of memory."""
    world = World(tmp_path, apart=True)
    await world.start()
    try:
        for line in ("upstream a", "certificate alice 'Alice <alice@example.org>'", "always a alice"):
            await world.play(line)
        assert world.front is not None
        await world.play("get alice@example.org -> found MISS alice")
        world.front.fronts.close()
        await world.play("get alice@example.org once -> found HIT alice")
    finally:
        await world.stop()


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 10
