"""Plays the scenario files beside this one: upstream answers, questions and time, in lines a mail admin can read."""

from pathlib import Path

import pytest

from scenarios.world import World

FILES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
async def test_scenario(file: Path, tmp_path: Path) -> None:
    world = World(tmp_path)
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


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 10
