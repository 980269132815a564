"""Where work over certificates is done: on the loop while it is little, else beside it."""

from __future__ import annotations

import asyncio
import threading

from keyserver.resolver.aside import AT_ONCE, SMALL, Aside


class Clock:
    """Seconds that pass when somebody works."""

    def __init__(self) -> None:
        self.now = 0.0

    def work(self, seconds: float = 0.0) -> bool:
        """Is this the loop's thread?"""
        self.now += seconds
        return threading.current_thread() is threading.main_thread()


async def test_the_loop_does_what_is_small_until_its_turn_has_been_long_enough() -> None:
    clock = Clock()
    aside = Aside(lambda: clock.now)
    assert await aside.run(SMALL, clock.work)
    assert not await aside.run(SMALL + 1, clock.work)
    await asyncio.sleep(0)
    turns: list[str] = []

    async def turning() -> None:
        turns.append("another turn")

    async def working(name: str, seconds: float = 0.0) -> None:
        assert await aside.run(1, lambda: clock.work(seconds)), "on the loop"
        turns.append(name)

    each = [working("first", AT_ONCE / 2), working("second", AT_ONCE / 2), working("third"), working("fourth")]
    await asyncio.gather(*each, turning())
    assert turns == ["first", "second", "another turn", "third", "fourth"]


async def test_what_is_large_is_done_one_at_a_time() -> None:
    aside, under_way, most = Aside(lambda: 0.0), 0, 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        threading.Event().wait(0.01)
        with lock:
            under_way -= 1

    await asyncio.gather(*(aside.run(SMALL + 1, work) for _ in range(4)))
    assert most == 1
