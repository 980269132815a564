"""Cleaning off the loop: in a thread, in a worker, and what happens when that ends badly."""

import asyncio
import functools
import os
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from keyserver.model import Certificate, Kind, Refused
from keyserver.openpgp import clean, clean_brief
from keyserver.resolver.cleaner import AT_ONCE, Cleaner
from keyserver.resolver.worker import Cleaned
from support import hostile
from support.misbehaving import misbehave, where
from support.openpgp import CREATED, make_certificate
from support.processes import family, memory_of

NOW = CREATED + 86400
LARGE = 70_000


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Cleaner]]:
    made: list[Cleaner] = []

    def build(function: Callable[[bytes, int], Cleaned] = clean, **options: float) -> Cleaner:
        made.append(Cleaner({Kind.OPENPGP: function}, monotonic=time.monotonic, **options))  # type: ignore[arg-type]
        return made[-1]

    yield build
    for cleaner in made:
        await cleaner.close()


async def run(cleaner: Cleaner, octets: bytes) -> Certificate | Refused:
    (found,) = await cleaner.clean(Kind.OPENPGP, octets, NOW)
    return found


async def test_small_in_a_thread_large_in_a_process(make: Callable[..., Cleaner]) -> None:
    cleaner = make(where)
    small, large = await run(cleaner, b"x"), await run(cleaner, bytes(LARGE))
    assert isinstance(small, Refused) and isinstance(large, Refused)
    process, thread, nice = small.reason.split()
    assert int(process) == os.getpid() and thread.startswith("clean") and int(nice) == os.nice(0)
    process, thread, nice = large.reason.split()
    assert int(process) != os.getpid() and int(nice) > os.nice(0)


async def test_brief_at_once_but_not_for_long(make: Callable[..., Cleaner]) -> None:
    """What one turn of the loop takes in is bounded: the rest goes to the threads, and the next turn is free again."""
    octets = make_certificate(seed="brief")
    asked = []

    def brief(octets: bytes, now: int) -> Cleaned | None:
        asked.append(threading.current_thread())
        time.sleep(AT_ONCE / 3)
        return clean_brief(octets, now)

    cleaner = make(brief={Kind.OPENPGP: brief})
    for _ in range(2):
        before = len(asked)
        found = await asyncio.gather(*(cleaner.clean(Kind.OPENPGP, octets, NOW) for _ in range(20)))
        assert all(each == clean(octets, NOW) for each in found)
        assert 1 <= len(asked) - before <= 3 and set(asked) == {threading.main_thread()}


@pytest.mark.parametrize("answer", [None, KeyError])
async def test_what_brief_leaves_is_cleaned_as_ever(
    make: Callable[..., Cleaner], answer: type[Exception] | None
) -> None:
    def brief(octets: bytes, now: int) -> Cleaned | None:
        if answer:
            raise answer
        return None

    octets = make_certificate(seed="b")
    assert [await run(make(brief={Kind.OPENPGP: brief}), octets)] == clean(octets, NOW)


async def test_worker_is_reused_until_it_has_grown(make: Callable[..., Cleaner]) -> None:
    cleaner = make(where)
    assert await run(cleaner, bytes(LARGE)) == await run(cleaner, bytes(LARGE))
    grown = make(where, resident=1)
    assert await run(grown, bytes(LARGE)) != await run(grown, bytes(LARGE))


async def test_both_ways_give_the_same(make: Callable[..., Cleaner]) -> None:
    octets = make_certificate(third_party=800)
    assert len(octets) > LARGE
    found = await run(make(), octets)
    assert isinstance(found, Certificate)
    assert [found] == clean(octets, NOW) == [await run(make(small=1 << 20), octets)]


@pytest.mark.parametrize(("how", "words"), [("sleep", "took longer than 0.5 s"), ("die", "process ended")])
async def test_worker_that_ends_badly_is_replaced(make: Callable[..., Cleaner], how: str, words: str) -> None:
    cleaner = make(functools.partial(misbehave, how=how), seconds=0.5)
    await run(cleaner, bytes(LARGE))
    found = await run(cleaner, b"!" + bytes(LARGE))
    assert isinstance(found, Refused) and found.fatal and words in found.reason
    again = await run(cleaner, bytes(LARGE))
    assert isinstance(again, Refused) and not again.fatal


async def test_memory_is_bounded(make: Callable[..., Cleaner]) -> None:
    found = await run(make(functools.partial(misbehave, how="memory")), b"!" + bytes(LARGE))
    assert isinstance(found, Refused) and found.fatal and "memory" in found.reason


@pytest.mark.parametrize("size", [1, LARGE])
async def test_fault_of_ours_costs_one_input(make: Callable[..., Cleaner], size: int) -> None:
    found = await run(make(functools.partial(misbehave, how="raise")), b"!" + bytes(size))
    assert isinstance(found, Refused) and found.fatal and "KeyError" in found.reason


async def test_who_gives_up_does_not_get_anothers_reply(make: Callable[..., Cleaner]) -> None:
    cleaner = make(functools.partial(misbehave, how="sleep"))
    await run(cleaner, bytes(LARGE))
    task = asyncio.create_task(run(cleaner, b"!" + bytes(LARGE)))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await run(cleaner, bytes(LARGE))
    assert isinstance(found, Refused) and found.reason.split()[0].isdigit()


async def test_many_at_once(make: Callable[..., Cleaner]) -> None:
    cleaner = make()
    octets = [make_certificate([f"a{n} <a{n}@x.org>"], third_party=(0, 500)[n % 2]) for n in range(8)]
    found = await asyncio.gather(*(run(cleaner, each) for each in octets))
    assert [f.proof.user_ids[0].address for f in found if isinstance(f, Certificate)] == [
        f"a{n}@x.org" for n in range(8)
    ]


async def test_closed_cleaner_starts_nothing(make: Callable[..., Cleaner]) -> None:
    cleaner = make()
    await run(cleaner, make_certificate(third_party=800))
    await cleaner.close()
    for octets in (make_certificate(), make_certificate(third_party=800)):
        found = await run(cleaner, octets)
        assert isinstance(found, Refused) and found.fatal


async def test_hostile_inputs_leave_worker_and_us_small(make: Callable[..., Cleaner]) -> None:
    """The figure is 250 MB for all processes; the application itself takes up to 120 of them."""
    cleaner = make()
    for name in ("poisoned", "many_signed_user_ids", "markers", "fakes_p521", "many_user_ids"):
        found = await cleaner.clean(Kind.OPENPGP, hostile.HOSTILE[name](), NOW)
        assert not any("memory" in f.reason or "process" in f.reason for f in found if isinstance(f, Refused)), name
        workers = [pid for pid in family(os.getpid()) if pid != os.getpid()]
        assert all(memory_of(pid) < 100 << 20 for pid in workers), name


async def test_loop_hardly_waits_while_a_worker_cleans(make: Callable[..., Cleaner]) -> None:
    """The figure is 20 ms for a hit; the bound here is for a busy machine."""
    cleaner, octets = make(), hostile.HOSTILE["fakes_p521"]()
    await run(cleaner, make_certificate(third_party=800))
    task = asyncio.create_task(cleaner.clean(Kind.OPENPGP, octets, NOW))
    waits = []
    while not task.done():
        start = time.perf_counter()
        await asyncio.sleep(0.001)
        waits.append(time.perf_counter() - start)
    assert isinstance(task.result()[0], Certificate)
    assert sorted(waits)[len(waits) * 9 // 10] < 0.1
