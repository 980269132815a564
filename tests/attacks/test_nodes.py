"""Three nodes under faults, in Jepsen's way: what their clients were told is judged by `support.history`."""

from __future__ import annotations

import random
import secrets
import time
from pathlib import Path

import pytest

from support.nodes import Nodes, nodes

SHORT = 6.0  # seconds of work in one run
LONG = 12.0


async def run(cluster: Nodes, seed: int, seconds: float) -> list[str]:
    """What was wrong, if anything, with the seed."""
    cluster.begin(random.Random(seed))
    await cluster.work(seconds)
    wrong = await cluster.settle()
    return [f"seed {seed}: {line}" for line in (*wrong, *(cluster.hurts if wrong else ()))]


def table(cluster: Nodes, runs: int, wrong: list[str]) -> str:
    """The checker's."""
    lines = [f"runs: {runs}, violations: {len(wrong)}"]
    lines.append("faults: " + ", ".join(f"{number} {name}" for name, number in sorted(cluster.faults.items())))
    lines.append("operations: " + ", ".join(f"{number} {name}" for name, number in sorted(cluster.done.items())))
    return "\n".join(lines)


async def _runs(folder: Path, capsys: pytest.CaptureFixture[str], count: int, seconds: float) -> None:
    wrong: list[str] = []
    first = secrets.randbelow(1 << 30)
    async with nodes(folder) as cluster:
        for seed in range(first, first + count):
            wrong += await run(cluster, seed, seconds)
            with capsys.disabled():
                print(
                    f"\n{time.strftime('%H:%M:%S')} seed {seed}: {len(wrong)} violations so far", *wrong[:20], sep="\n"
                )
    with capsys.disabled():
        print(f"\n{table(cluster, count, wrong)}")
    assert not wrong, "\n".join(wrong)


async def test_a_history_of_three_nodes_under_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await _runs(tmp_path, capsys, 1, SHORT)


@pytest.mark.soak
async def test_histories_of_three_nodes_under_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config
) -> None:
    await _runs(tmp_path, capsys, pytestconfig.getoption("--histories"), LONG)
