"""The model of scripts/simulate beside the same played out request by request."""

from __future__ import annotations

import itertools
import math
import random
from collections import OrderedDict
from dataclasses import replace

import pytest

from bench.simulate import MEMORY_PER_ANSWER, Costs, World, main, report

SMALL = World(
    certificates=3000, rate=100.0, zipf=0.9, ttl=300.0, nodes=3, memory=200 * MEMORY_PER_ANSWER, max_connections=100
)


def played(world: World, seconds: float, seed: int = 1) -> tuple[float, float]:
    """Shares of the requests that memory answered, and that were searched, in the second half of the time."""
    dice = random.Random(seed)
    weights = list(itertools.accumulate(rank**-world.zipf for rank in range(1, world.certificates + 1)))
    slots = int(world.memory / MEMORY_PER_ANSWER)
    memories: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(world.nodes)]
    found: dict[int, float] = {}
    hot = searched = counted = 0
    time = 0.0
    while time < seconds:
        time += dice.expovariate(world.rate)
        (number,) = dice.choices(range(world.certificates), cum_weights=weights)
        memory = memories[dice.randrange(world.nodes)]
        late = time > seconds / 2
        counted += late
        fresh = number in found and time - found[number] < world.ttl
        if fresh and number in memory:
            hot += late
        elif not fresh:
            searched += late
            found[number] = time
            for other in memories:  # the change is heard everywhere
                other.pop(number, None)
        memory[number] = None
        memory.move_to_end(number)
        if len(memory) > slots:
            memory.popitem(last=False)
    return hot / counted, searched / counted


@pytest.mark.parametrize("world", [SMALL, replace(SMALL, zipf=0.7, nodes=1), replace(SMALL, rate=20.0, ttl=1000.0)])
def test_the_model_is_near_to_what_is_played(world: World) -> None:
    hot, searched = played(world, 60_000 / world.rate + 2 * world.ttl)
    assert world.hot / world.requests == pytest.approx(hot, abs=0.04)
    assert world.misses / world.requests == pytest.approx(searched, abs=0.02)


def test_bins_stand_for_all_certificates_and_requests() -> None:
    for certificates in (1, 10, 12_345, 10_000_000):
        ranks = World(certificates=certificates).ranks
        assert sum(count for count, _ in ranks) == certificates
        assert math.fsum(count * share for count, share in ranks) == pytest.approx(1.0)


def test_what_is_full_first() -> None:
    assert World(nodes=9).parts["connections of PostgreSQL"] > 1
    assert SMALL.at_most()[1] == "processor of a node's core"
    assert replace(SMALL, workers=1, memory=1e9, ttl=1e9).at_most()[1] == "processor of a worker"
    few = replace(SMALL, costs=Costs(look=1.0))
    assert few.at_most()[1] == "processors of PostgreSQL"
    most = few.at_most()[0]
    assert max(replace(few, rate=0.99 * most).parts.values()) < 1 < max(replace(few, rate=1.01 * most).parts.values())


def test_a_cache_before_it_takes_what_is_asked_again() -> None:
    behind = replace(SMALL, cdn=300.0)
    assert behind.requests < 0.2 * SMALL.requests
    assert behind.misses < SMALL.misses


def test_every_number_can_be_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--certificates", "1000", "--nodes", "2", "--miss", "9.0"]) == 0
    world = World(certificates=1000, nodes=2)
    said = capsys.readouterr().out
    assert said.startswith("1,000 certificates")
    assert said.strip() != report(world)
