"""Verdicts for one address, and for very many."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from keyserver.model import Failed
from keyserver.verdict.asking import Verdicts, spread
from keyserver.verdict.deciding import Kinds, Policy, Word
from support.openpgp import make
from support.resolving import Ground, sends

POLICY = Policy(kinds=Kinds.OPENPGP)
ALICE = "alice@example.org"
BY_ALICE = make([f"Alice <{ALICE}>"], seed="alice")


class Asked:
    """A resolver with one upstream, and its verdicts."""

    def __init__(self, directory: Path) -> None:
        self.ground = Ground(directory)
        self.peer = self.ground.peer("a")
        self.peer.answers[ALICE] = sends(BY_ALICE)

    async def __aenter__(self) -> Verdicts:
        await self.ground.store.open()
        ground = self.ground
        self.ground.change(searches=1000)
        return Verdicts(ground.resolver(100_000), lambda: ground.rules(), lambda: ground.now, ground.monotonic)

    async def __aexit__(self, *_: object) -> None:
        await self.ground.cleaner.close()
        await self.ground.store.close()


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    return Asked(tmp_path)


async def test_one_address(asked: Asked) -> None:
    async with asked as verdicts:
        assert (await verdicts.of("Alice <ALICE@Example.org>", POLICY)).word is Word.YES
        assert (await verdicts.of("bob@example.org", POLICY)).word is Word.NO
        asked.peer.otherwise = Failed("it is down")
        assert (await verdicts.of("carol@example.org", POLICY)).word is Word.UNKNOWN
        none = await verdicts.of("0xDEADBEEFDEADBEEF", POLICY)
        assert (none.word, none.reason) == (Word.NO, "it is no e-mail address")


async def test_very_many_each_once_and_only_so_many_at_the_same_time(asked: Asked) -> None:
    addresses = [f"u{n}@d{n % 7}.example" for n in range(200)] + [ALICE, ALICE.upper(), "no address"]
    async with asked as verdicts:
        asked.peer.delay = 0.005
        seen = [v async for v in verdicts.of_many(addresses, POLICY, deadline=30.0, at_once=20)]
    assert sorted(v.address for v in seen) == sorted({a.lower() for a in addresses})
    assert [v.address for v in seen if v.word is Word.YES] == [ALICE]
    assert len(asked.peer.asked) == 201
    assert 10 < asked.peer.most_at_once <= 20


async def test_what_the_deadline_leaves_undecided_is_unknown(asked: Asked) -> None:
    async with asked as verdicts:
        asked.peer.open.clear()
        began = asyncio.get_running_loop().time()
        seen = [
            v async for v in verdicts.of_many([f"u{n}@x.example" for n in range(30)], POLICY, deadline=0.3, at_once=5)
        ]
    assert {v.word for v in seen} == {Word.UNKNOWN}
    assert len(seen) == 30
    assert asyncio.get_running_loop().time() - began < 2


async def test_who_leaves_before_the_end_stops_the_asking(asked: Asked) -> None:
    async with asked as verdicts:
        asked.peer.delay = 0.01
        each = verdicts.of_many([f"u{n}@x.example" for n in range(500)], POLICY, deadline=30.0, at_once=2)
        async for _ in each:
            break
        await each.aclose()
        already = len(asked.peer.asked)
        await asyncio.sleep(0.1)
        assert len(asked.peer.asked) <= already + 2


def test_addresses_of_one_domain_stand_far_from_each_other() -> None:
    given = ["a@x.org", "b@x.org", "c@x.org", "A@x.org", "a@y.org", "b@y.org", "a@z.org"]
    assert spread(given) == ["a@x.org", "a@y.org", "a@z.org", "b@x.org", "b@y.org", "c@x.org"]
