"""Who was told what: exact while there is little, honest about its error beyond, bounded, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import pytest

from keyserver.query import ByAddress, ByFingerprint, ByHash, ByKeyId, ByText, Query
from keyserver.resolver import disclosures
from keyserver.resolver.disclosures import Count, Disclosed, Disclosures
from keyserver.resolver.distinct import Distinct
from keyserver.store.base import StoreError


def hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def counted(texts: range, size: int = 1024) -> Distinct:
    found = Distinct(size)
    for n in texts:
        found.add(hashed(str(n)))
    return found


class Kept:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.counts: dict[str, bytes] = {}
        self.writes = 0
        self.full = False

    async def told(self) -> Mapping[str, bytes]:
        return dict(self.counts)

    async def keep_told(self, upstream: str, before: bytes | None, counts: bytes) -> bool:
        if self.full:
            raise StoreError("full")
        if self.counts.get(upstream) != before:
            return False
        self.counts[upstream] = counts
        self.writes += 1
        return True

    async def pauses(self) -> Mapping[str, int]:
        return {}

    async def pause(self, upstream: str, now: int) -> int:
        return now

    async def resume(self, upstream: str, now: int | None = None) -> bool:
        return False


def told(kept: Kept, *queries: Query, now: int = 100) -> Disclosures:
    made = Disclosures(kept, hashed, lambda: now)
    for query in queries:
        made.note("one", query)
    return made


def only(made: Disclosures) -> Disclosed:
    (row,) = made.shown()
    return row


def test_exact_up_to_its_size_and_each_value_once() -> None:
    count = counted(range(1024))
    for n in range(1024):
        count.add(hashed(str(n)))
    assert (count.count, count.error) == (1024, 0.0)


@pytest.mark.parametrize("number", [1025, 5_000, 100_000])
def test_an_estimate_says_how_far_it_may_be_off(number: int) -> None:
    count = counted(range(number))
    assert 0.03 <= count.error <= 0.032
    assert abs(count.count - number) <= 3 * count.error * number


def test_two_counts_as_one() -> None:
    """Overlapping, of different sizes, exact or not."""
    both = counted(range(300))
    both.take(counted(range(200, 500)))
    assert (both.count, both.error) == (500, 0.0)
    small = counted(range(10_000, 20_000), size=64)
    both.take(small)
    assert both.error > 0
    assert abs(both.count - 10_500) <= 3 * both.error * 10_500


def test_a_count_goes_on_after_it_was_written() -> None:
    whole, half = counted(range(6000)), counted(range(3000))
    again = Distinct.read(half.written(), 1024)
    for n in range(2000, 6000):
        again.add(hashed(str(n)))
    assert (again.count, again.error) == (whole.count, whole.error)
    for text in ("", "AAAA", "?", "A" * 11):
        with pytest.raises(ValueError):
            Distinct.read(text, 1024)


def test_each_sort_of_question_is_counted_by_itself() -> None:
    alice = ByAddress("alice", "example.org")
    shown = only(
        told(
            Kept(),
            *(alice, alice, ByAddress("bob", "example.org"), ByAddress("carol", "example.net")),
            *(ByFingerprint("A" * 40), ByKeyId("A" * 16), ByText("alice"), ByHash("ihash", "00")),
        )
    )
    assert (shown.since, shown.questions) == (100, 8)
    counts = (shown.addresses, shown.fingerprints, shown.key_ids, shown.other)
    assert counts == (Count(3, 0.0), Count(1, 0.0), Count(1, 0.0), Count(2, 0.0))
    assert [(d.domain, d.questions, d.addresses.count) for d in shown.domains] == [
        ("example.org", 3, 2),
        ("example.net", 1, 1),
    ]
    assert (shown.other_domains.questions, shown.other_domains.domains) == (0, Count(0, 0.0))


def test_the_hundred_domains_with_the_most_addresses_and_the_others_together() -> None:
    queries = [ByAddress(f"n{n}", f"d{d}.example") for d in range(150) for n in range(1 + (d == 149))]
    shown = only(told(Kept(), *queries))
    assert len(shown.domains) == 100
    assert shown.domains[0].domain == "d149.example"
    others = shown.other_domains
    assert (others.domains.count, others.questions, others.addresses.count) == (50, 50, 50)
    assert shown.addresses.count == sum(d.addresses.count for d in shown.domains) + others.addresses.count


async def test_memory_is_bounded_and_who_is_asked_about_much_stays() -> None:
    kept = Kept()
    made = told(kept, *(ByAddress(f"n{n}", "partner.example") for n in range(20)))
    for n in range(3 * disclosures.DOMAINS):
        made.note("one", ByAddress("a", f"junk{n}.example"))
    shown = only(made)
    assert (shown.domains[0].domain, shown.domains[0].addresses.count) == ("partner.example", 20)
    others = shown.other_domains
    assert others.questions == 3 * disclosures.DOMAINS - 99
    assert abs(others.domains.count - others.questions) <= max(1, 3 * others.domains.error * others.questions)
    await made.keep()
    assert len(json.loads(kept.counts["one"])["domains"]) == disclosures.DOMAINS


async def test_counts_survive_a_restart_and_hold_nothing_in_clear() -> None:
    kept = Kept()
    first = told(kept, *(ByAddress(f"somebody{n}", "example.org") for n in range(100)), ByFingerprint("F" * 40))
    await first.keep()
    await first.keep()
    assert kept.writes == 1, "what has not changed is not written again"
    assert b"somebody" not in kept.counts["one"]
    assert b"F" * 40 not in kept.counts["one"]
    second = told(kept, now=999)
    await second.load()
    assert second.shown() == first.shown()
    second.note("one", ByAddress("somebody7", "example.org"))
    assert (only(second).since, only(second).questions, only(second).addresses.count) == (100, 102, 100)


async def test_what_cannot_be_read_is_counted_anew() -> None:
    kept = Kept()
    for broken in (b"", b"[]", b"{}", b'{"since": 1, "questions": 2, "sorts": {}, "domains": {}, "others": [1, 2]}'):
        kept.counts = {"one": broken}
        made = told(kept)
        await made.load()
        assert made.shown() == ()


async def test_what_could_not_be_kept_is_kept_the_next_time() -> None:
    kept = Kept()
    made = told(kept, ByKeyId("A" * 16))
    kept.full = True
    with pytest.raises(StoreError, match="full"):
        await made.keep()
    kept.full = False
    await made.keep()
    assert kept.writes == 1


async def test_nodes_that_share_a_cache_count_together() -> None:
    kept = Kept()
    first, second = Disclosures(kept, hashed, lambda: 100), Disclosures(kept, hashed, lambda: 50)
    for n in range(6):
        first.note("one", ByAddress(f"n{n}", "example.org"))
        second.note("one", ByAddress(f"n{n + 3}", f"{n}.example.org"))
    second.note("two", ByKeyId("A" * 16))
    for _ in range(3):
        await first.keep()
        await second.keep()
        first.note("one", ByAddress("late", "example.org"))
        second.note("one", ByAddress("late", "example.org"))
    await first.keep()
    await second.keep()
    await first.keep()
    assert first.shown() == second.shown()
    again = Disclosures(kept, hashed, lambda: 999)
    await again.load()
    one, two = again.shown()
    assert (one.since, one.questions, one.addresses.count) == (50, 12 + 6, 13)
    assert two.upstream == "two"
    assert second.shown() == again.shown()


async def test_what_was_told_while_it_could_not_be_kept_is_not_lost() -> None:
    kept = Kept()
    made = told(kept, ByKeyId("A" * 16))
    kept.full = True
    with pytest.raises(StoreError):
        await made.keep()
    made.note("one", ByKeyId("B" * 16))
    kept.full = False
    await made.keep()
    assert (only(made).questions, only(made).key_ids.count) == (2, 2)
