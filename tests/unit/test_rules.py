"""Rules are replaced as a whole, and whoever acts by earlier ones is waited for."""

from __future__ import annotations

import asyncio

from keyserver.rules import InForce


async def test_who_acts_by_earlier_rules_is_waited_for_and_nobody_else() -> None:
    rules = InForce("first")
    go = {name: asyncio.Event() for name in ("first", "second")}
    acted: list[str] = []

    async def act() -> None:
        with rules.acting() as mine:
            await go[mine].wait()
            acted.append(mine)

    first = [asyncio.ensure_future(act()) for _ in range(2)]
    await asyncio.sleep(0)
    rules.replace("second")
    second = asyncio.ensure_future(act())
    replaced = asyncio.ensure_future(rules.replaced())
    await asyncio.sleep(0)
    assert rules() == "second"
    assert not replaced.done()
    first[0].cancel()
    await asyncio.wait(first[:1])
    assert not replaced.done(), "one is left"
    go["first"].set()
    await asyncio.wait_for(replaced, 1)
    assert acted == ["first"]
    assert not second.done()
    await asyncio.wait_for(rules.replaced(), 1)
    go["second"].set()
    await second
