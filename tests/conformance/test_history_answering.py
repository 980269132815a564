"""What stores promise about the memory of what answered: set by comparing, noted in batches, ended by a delete."""

from __future__ import annotations

import asyncio

from keyserver.model import Selection, Source
from keyserver.store.base import Store, Undo
from keyserver.store.history import Bounds, What
from tests.conformance.conftest import Heard, Made, addr

ANN = Made(1, ("Ann <ann@a.example>",))
BOB = Made(2, ("Bob <ann@a.example>",))
NAME = addr("ann@a.example")
NOW = 1_800_000_000
K, L = Source.KEYSERVER, Source.LOCAL


async def put(store: Store, *finds: object, now: int = NOW) -> None:
    await store.put(list(finds), [], await store.begin(), now)  # type: ignore[arg-type]


async def remembered(store: Store) -> dict[str, str]:
    return dict((await store.look(NAME)).answering)


async def test_it_is_replaced_only_where_it_is_what_was_seen(store: Store, other: tuple[Store, Heard]) -> None:
    history, carol = store.history, Made(3, ("Carol <ann@a.example>",))
    await put(store, ANN.find(), BOB.find(), carol.find())
    assert await history.answers("v", NAME, ANN.fingerprint, NOW, "") == ""
    assert await history.answers("v", NAME, BOB.fingerprint, NOW, "") == ANN.fingerprint
    assert await history.answers("v", NAME, BOB.fingerprint, NOW, carol.fingerprint) == ANN.fingerprint
    assert await history.answers("v", NAME, "D" * 40, NOW, ANN.fingerprint) == ANN.fingerprint, "it is not cached"
    assert await remembered(store) == {"v": ANN.fingerprint}
    nodes = (store, other[0]) * 3
    said = await asyncio.gather(
        *(
            node.history.answers(
                "v", NAME, (BOB, carol)[n % 2].fingerprint, NOW + 1, ANN.fingerprint, {"origin": "one"}
            )
            for n, node in enumerate(nodes)
        )
    )
    (event,) = [e for e in await history.events(20) if e.what is What.REPLACED]
    assert (await remembered(store))["v"] == event.fingerprint
    assert event.facts == {"view": "v", "old": ANN.fingerprint, "since": NOW, "origin": "one"}
    assert sorted(said) == sorted([ANN.fingerprint, *[event.fingerprint] * 5])


async def test_what_answers_first_is_noted_where_nothing_is(store: Store, heard: Heard) -> None:
    await put(store, ANN.find(), BOB.find())
    await store.history.answers("kept", NAME, BOB.fingerprint, NOW)
    heard.clear()
    fingerprint = ANN.fingerprint
    await store.history.answer_first(
        {("kept", NAME): (fingerprint, NOW + 5), ("v", NAME): (fingerprint, NOW + 5), ("w", NAME): ("D" * 40, NOW + 5)}
    )
    assert await remembered(store) == {"kept": BOB.fingerprint, "v": ANN.fingerprint}
    assert not heard
    assert (await store.history.past(NAME, NOW + 4)).answering == {"kept": BOB.fingerprint}
    assert (await store.history.past(NAME, NOW + 5)).answering == {"kept": BOB.fingerprint, "v": ANN.fingerprint}


async def test_where_no_history_is_kept_nothing_is_noted(store: Store) -> None:
    await put(store, ANN.find())
    store.history.limit(Bounds(0, 0))
    while await store.history.tidy(NOW, 1000):
        pass
    await store.history.answer_first({("v", NAME): (ANN.fingerprint, NOW)})
    assert await store.history.answers("v", NAME, ANN.fingerprint, NOW, "") == ""
    assert await remembered(store) == {}


async def test_a_delete_of_all_of_it_ends_the_memory(store: Store, heard: Heard) -> None:
    await put(store, ANN.find(), ANN.find(L, "administrator"))
    await store.history.answers("v", NAME, ANN.fingerprint, NOW)
    await store.delete(ANN.fingerprint, NOW + 1, L, "administrator")
    assert await remembered(store) == {"v": ANN.fingerprint}, "what is left of it answers"
    await store.delete(ANN.fingerprint, NOW + 2, undo=Undo("u", NOW + 600))
    assert await remembered(store) == {}
    (event,) = [e for e in await store.history.events(10, names=[NAME]) if e.what is What.DELETED and e.address]
    assert (event.fingerprint, event.address, event.at) == (ANN.fingerprint, "ann@a.example", NOW + 2)
    assert (await store.history.past(NAME, NOW + 1)).answering == {"v": ANN.fingerprint}
    assert (await store.history.past(NAME, NOW + 2)).answering == {}
    await store.undo("u", NOW + 3, {})
    assert await remembered(store) == {}
    await store.history.answers("v", NAME, BOB.fingerprint, NOW + 4)
    assert (await store.history.past(NAME, NOW + 1)).answering == {"v": ANN.fingerprint}
    assert (await store.history.past(NAME, NOW + 4)).answering == {"v": BOB.fingerprint}


async def test_what_has_expired_is_remembered_until_it_is_deleted(store: Store, heard: Heard) -> None:
    await put(store, ANN.find())
    await store.history.answers("v", NAME, ANN.fingerprint, NOW)
    await store.purge_expired({(K, None): NOW + 1}, NOW, 10, NOW + 1)
    assert await remembered(store) == {"v": ANN.fingerprint}
    heard.clear()
    assert await store.delete(ANN.fingerprint, NOW + 2) == 0
    assert await remembered(store) == {}
    assert NAME in heard.names


async def test_a_purge_ends_the_memory_of_what_it_takes(store: Store) -> None:
    await put(store, ANN.find(), BOB.find(origin="two"))
    await store.history.answers("v", NAME, ANN.fingerprint, NOW)
    await store.history.answers("w", NAME, BOB.fingerprint, NOW)
    await store.purge(Selection(upstream="one"), NOW + 1)
    assert await remembered(store) == {"w": BOB.fingerprint}
