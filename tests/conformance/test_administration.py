"""The promises of keyserver/store/administration.py, one by one. Every backend passes all of them, in every run."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from keyserver.store import administration
from keyserver.store.administration import ActFilter, Administration, StoredAct, StoredSession, StoredToken
from keyserver.store.base import Store, StoreError
from keyserver.store.postgres import administration as postgres_administration
from keyserver.store.sqlite import administration as sqlite_administration
from tests.conformance.conftest import Backend, Heard

NOW = 1_800_000_000


@pytest.fixture
def kept(store: Store) -> Administration:
    return store.administration


def token(name: str, **more: Any) -> StoredToken:
    return StoredToken(**{"id": name[:8], "name": name, "role": "viewer", "digest": name.encode() * 4, "made_at": NOW,
                          "made_by": "admin", **more})  # fmt: skip


def session(n: int, of: str = "ops", begun_at: int = NOW, used_at: int = NOW) -> StoredSession:
    return StoredSession(n.to_bytes(32), of, begun_at, used_at, "192.0.2.1")


def act(n: int = 0, **more: Any) -> StoredAct:
    return StoredAct(**{"at": NOW + n, "who": "admin", "way": "cli", "place": "user 0", "act": "delete", **more})


async def numbers(kept: Administration, limit: int = 1000, before: int | None = None, **more: Any) -> list[int]:
    return [row.number for row in await kept.acts(ActFilter(**more), limit, before)]


# --- tokens


async def test_a_token_is_kept_and_found_by_its_id(kept: Administration) -> None:
    ops, view = token("ops", role="operator"), token("grafana")
    assert await kept.add_token(ops)
    assert await kept.add_token(view)
    assert tuple(await kept.tokens()) == (view, ops)  # by name
    assert await kept.token("ops") == ops
    assert await kept.token("nothing") is None


@pytest.mark.parametrize("same", [{"id": "other", "role": "operator"}, {"name": "other", "digest": b"other"}])
async def test_a_taken_name_or_id_changes_nothing(kept: Administration, same: dict[str, Any]) -> None:
    await kept.add_token(token("ops"))
    assert not await kept.add_token(replace(token("ops"), **same))
    assert tuple(await kept.tokens()) == (token("ops"),)


async def test_a_revoked_token_takes_its_sessions_and_no_others_with_it(kept: Administration) -> None:
    for name in ("ops", "grafana"):
        await kept.add_token(token(name))
    await kept.begin_session(session(1, "ops"))
    await kept.begin_session(session(2, "grafana"))
    assert await kept.revoke_token("ops")
    assert not await kept.revoke_token("ops")
    assert await kept.token("ops") is None
    assert await kept.session(session(1).digest) is None
    assert await kept.session(session(2).digest) == session(2, "grafana")
    assert await kept.add_token(token("ops"))  # the name is free again


async def test_other_processes_see_it_at_once(store: Store, other: tuple[Store, Heard]) -> None:
    far = other[0].administration
    await store.administration.add_token(token("ops"))
    await far.begin_session(session(1))
    assert await far.token("ops") == token("ops")
    await store.administration.revoke_token("ops")
    assert await far.token("ops") is None
    assert await far.session(session(1).digest) is None


# --- sessions


async def test_a_session_is_used_forward_only_and_ends(kept: Administration) -> None:
    await kept.begin_session(session(1))
    await kept.use_session(session(1).digest, NOW + 60)
    await kept.use_session(session(1).digest, NOW + 30)
    assert await kept.session(session(1).digest) == session(1, used_at=NOW + 60)
    assert await kept.end_session(session(1).digest)
    assert not await kept.end_session(session(1).digest)
    await kept.use_session(session(1).digest, NOW + 90)
    assert await kept.session(session(1).digest) is None


async def test_all_sessions_of_a_token_end_together(kept: Administration) -> None:
    for n, of in enumerate(["ops", "ops", "grafana"]):
        await kept.begin_session(session(n, of))
    assert await kept.sessions() == {"ops": 2, "grafana": 1}
    assert await kept.end_sessions("ops") == 2
    assert await kept.sessions() == {"grafana": 1}


async def test_a_token_has_fifty_sessions_and_the_latest_stay(kept: Administration) -> None:
    await kept.begin_session(session(1000, "grafana", begun_at=NOW - 999))
    for n in range(administration.MAX_SESSIONS + 3):
        await kept.begin_session(session(n, begun_at=NOW + n))
    assert await kept.sessions() == {"ops": administration.MAX_SESSIONS, "grafana": 1}
    assert [n for n in range(10) if await kept.session(session(n).digest) is None] == [0, 1, 2]


async def test_old_sessions_are_tidied_away(kept: Administration) -> None:
    await kept.begin_session(session(1, begun_at=NOW - 10))
    await kept.begin_session(session(2, used_at=NOW - 10))
    await kept.begin_session(session(3))
    assert await kept.tidy_sessions(NOW, NOW) == 2
    assert await kept.sessions() == {"ops": 1}


# --- acts


async def test_acts_are_numbered_and_come_latest_first(kept: Administration) -> None:
    first = act(certificate="ab", facts={"entries": 3, "source": "örtlich", "all": True})
    given = [await kept.note(first), await kept.note(act(1, refusal=True))]
    assert given[0] < given[1]
    rows = await kept.acts(ActFilter(), 10)
    assert list(rows) == [replace(act(1, refusal=True), number=given[1]), replace(first, number=given[0])]


async def test_acts_are_chosen_by_who_act_and_time(kept: Administration) -> None:
    for n in range(12):
        await kept.note(act(n, who=("admin", "ops")[n % 2], act=("delete", "purge", "block")[n % 3]))
    numbered = {number: row.at - NOW for row in await kept.acts(ActFilter(), 100) if (number := row.number)}
    assert [numbered[n] for n in await numbers(kept, who="ops", act="purge")] == [7, 1]
    assert [numbered[n] for n in await numbers(kept, since=NOW + 3, until=NOW + 6)] == [5, 4, 3]
    assert await numbers(kept, who="nobody") == []


async def test_acts_are_chosen_by_certificate(kept: Administration) -> None:
    given = [await kept.note(act(n, certificate=("AB", "CD", "")[n % 3])) for n in range(6)]
    assert await numbers(kept, certificate="CD") == [given[4], given[1]]
    assert await numbers(kept, certificate="EF") == []


async def test_pages_of_acts_stay_good_while_others_come(kept: Administration) -> None:
    wanted = [await kept.note(act(n)) for n in range(10)][::-1]
    seen: list[int] = []
    while page := await numbers(kept, 3, seen[-1] if seen else None):
        seen += page
        await kept.note(act(99))
    assert seen == wanted


async def test_the_oldest_acts_make_room_and_refusals_only_for_refusals(
    kept: Administration, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sqlite_administration, postgres_administration):
        monkeypatch.setattr(module, "MAX_ACTS", 100)
        monkeypatch.setattr(module, "MAX_REFUSALS", 10)
    done = [await kept.note(act(n)) for n in range(90)]
    refused = [await kept.note(act(n, act="sign in", refusal=True)) for n in range(200)]
    left = await numbers(kept)
    assert set(done) <= set(left)  # strangers push nothing out
    assert 10 <= len(set(refused) & set(left)) <= 10 + 64
    assert refused[-1] in left
    more = [await kept.note(act(n)) for n in range(200)]
    left = [row.number for row in await kept.acts(ActFilter(), 1000) if not row.refusal]
    assert 100 <= len(left) <= 100 + 64
    assert left == (done + more)[::-1][: len(left)]


async def test_acts_go_by_age_but_never_many_at_once(kept: Administration) -> None:
    for n in range(200):
        await kept.note(act(n))
    for _ in range(64):
        await kept.note(act(administration.KEEP_ACTS + 1000))
    assert 200 <= len(await numbers(kept)) < 264


async def test_purging_everything_leaves_administration_alone(store: Store, kept: Administration) -> None:
    await kept.add_token(token("ops"))
    await kept.begin_session(session(1))
    await kept.note(act())
    await store.purge_all(NOW)
    assert len(await kept.tokens()) == len(await kept.sessions()) == len(await numbers(kept)) == 1


async def test_it_is_there_after_a_restart_and_a_closed_store_says_so(backend: Backend) -> None:
    async with backend.opened() as (store, _):
        await store.administration.add_token(token("ops"))
        await store.administration.begin_session(session(1))
        number = await store.administration.note(act())
    with pytest.raises(StoreError, match="not open"):
        await store.administration.token("ops")
    async with backend.opened() as (store, _):
        assert await store.administration.token("ops") == token("ops")
        assert await store.administration.session(session(1).digest) == session(1)
        assert await numbers(store.administration) == [number]
        assert await store.administration.note(act()) > number


async def test_administration_changes_nothing_of_the_cache(store: Store, kept: Administration, heard: Heard) -> None:
    begun = await store.begin()
    await asyncio.gather(kept.add_token(token("ops")), kept.begin_session(session(1)), kept.note(act()))
    await store.poll()
    assert heard == []
    assert await store.begin() == begun


async def test_a_fact_is_forgotten_in_whatever_act_it_stands(kept: Administration) -> None:
    await kept.note(act(facts={"address": 'al"ice@example.org', "entries": 2}))
    await kept.note(act(1, facts={"address": "malice@example.org"}))
    assert await kept.forget('al"ice@example.org') == 1
    assert [row.facts for row in await kept.acts(ActFilter(), 10)] == [
        {"address": "malice@example.org"},
        {"address": administration.FORGOTTEN, "entries": 2},
    ]
    assert await kept.forget("alice@example.org") == 0
