"""What is counted of how long upstreams take."""

from __future__ import annotations

from pathlib import Path

from keyserver.model import Absent, Failed, Fault, Found
from keyserver.query import ByAddress
from keyserver.resolver.circuit import CircuitBreaker
from keyserver.resolver.paces import Paces
from keyserver.store.upstreams import FAILED
from support.resolving import Ground

DAY = 86400


def test_counted_by_day_and_by_how_long_it_took() -> None:
    now = 100 * DAY
    paces = Paces(lambda: now)
    paces.note("a", Found(()), 0.004)
    paces.note("a", Absent("none"), 0.005)
    paces.note("b", Failed("it is down"), 5)
    paces.note("b", Failed("not asked", Fault.LOCAL), 5)
    now += DAY
    paces.note("a", Found(()), 60)
    assert paces.take() == {(100, "a", 0): 2, (100, "b", FAILED): 1, (101, "a", 20): 1}
    assert paces.take() == {}


async def test_every_question_to_an_upstream_is_counted(tmp_path: Path) -> None:
    ground = Ground(tmp_path)
    peer, paces = ground.peer("a"), Paces(lambda: DAY)
    circuit = CircuitBreaker(ground.monotonic, lambda: 0.5, pace=paces.note)
    await circuit.ask(peer, ByAddress("ann", "example.org"), 5.0, "here")
    peer.otherwise = Failed("it is down")
    await circuit.ask(peer, ByAddress("ben", "example.org"), 5.0, "here")
    counts = paces.take()
    assert sum(counts.values()) == 2
    assert counts[1, "a", FAILED] == 1
