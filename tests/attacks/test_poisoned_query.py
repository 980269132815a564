"""One query that makes an upstream fail: an asker chooses what he asks, and takes nothing from the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.openpgp import make
from support.running import Service
from support.scripted import NOT_FOUND, Behaviour, Scripted, key, reply, slow

POISON = "poison@example.org"
OTHERS = [f"p{n}@example.org" for n in range(70)]
PEOPLE = make([f"<{address}>" for address in OTHERS], seed="people", encryption=None)


def damaged() -> Behaviour:
    """A block that cannot be read."""
    block = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==AAAA!!\n-----END PGP PUBLIC KEY BLOCK-----\n"
    return reply(200, block, Content_Type="application/pgp-keys")


@pytest.mark.parametrize(
    "poison",
    [
        reply(500),
        reply(429, Retry_After="600"),
        reply(403),
        slow(10, NOT_FOUND),
        reply(200, b"\x99garbage"),
        damaged(),
        reply(200, "<html>no</html>"),
    ],
    ids=["500", "429", "403", "slow", "garbage", "damaged", "page"],
)
async def test_one_poisoned_query_and_seventy_others(poison: Behaviour, tmp_path: Path) -> None:
    """At least 69 of 70 are answered; before, 66 failed."""
    async with Scripted({POISON: poison, "*": key(PEOPLE.octets)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings={"cache.deadline": '"3s"'}) as service:
            for _ in range(6):
                assert (await service.lookup(POISON))[0] == 500
            answered = []
            for number in range(0, 70, 10):
                mixed = [service.lookup(term) for term in (POISON, *OTHERS[number : number + 10])]
                answered += [status for status, _, _ in (await asyncio.gather(*mixed))[1:]]
            assert sum(status == 200 for status in answered) >= 69, answered


async def test_refused_certificates_of_many_names_harm_no_other_lookup(tmp_path: Path) -> None:
    """27 different fingerprints whose answers are damaged, secret or refused; before, 1,447 lookups failed."""
    wrong = [reply(200, b"\x99garbage"), damaged(), reply(200, b"\x95\x01\x00secret")]
    routes: dict[str, Behaviour] = {f"{n:02X}" * 20: wrong[n % 3] for n in range(27)}
    async with Scripted({**routes, "*": key(PEOPLE.octets)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            await asyncio.gather(*(service.lookup(f"0x{term}") for term in routes))
            answers = await asyncio.gather(*(service.lookup(address) for address in OTHERS))
            assert all(status == 200 for status, _, _ in answers)


async def test_a_dead_host_still_opens_the_circuit(tmp_path: Path) -> None:
    async with Scripted({"*": reply(500)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            for address in OTHERS[:20]:
                assert (await service.lookup(address))[0] == 500
            assert sum(upstream.asked(address) for address in OTHERS) == 4
            (row,) = (await service.api("/api/v1/upstreams"))["upstreams"]
            assert row["state"] == "open"


async def test_one_clients_hanging_queries_leave_places_to_others(tmp_path: Path) -> None:
    """A stranger's sixty slow queries wait for each other, and nobody waits for them."""
    hanging = [f"slow{n}@example.org" for n in range(60)]
    settings = {"limits.proxies": '["127.0.0.0/8"]', "limits.misses_per_minute": "1000", "cache.deadline": '"3s"'}
    async with Scripted({**dict.fromkeys(hanging, slow(10, NOT_FOUND)), "*": key(PEOPLE.octets)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=settings) as service:
            stranger, others = {"X-Forwarded-For": "192.0.2.7"}, {"X-Forwarded-For": "198.51.100.7"}
            waiting = [asyncio.ensure_future(service.lookup(term, headers=stranger)) for term in hanging]
            await asyncio.sleep(0.5)
            answers = await asyncio.gather(*(service.lookup(term, headers=others) for term in OTHERS[:20]))
            assert [status for status, _, _ in answers] == [200] * 20
            await asyncio.gather(*waiting)
