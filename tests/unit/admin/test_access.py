"""Tokens, sessions and attempts over the real store; the clocks are the test's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyserver.admin import attempts
from keyserver.admin.access import IDLE, LONGEST, Access, FirstToken, Holder, Role, TooManyAttempts
from keyserver.admin.acts import ACTOR, Acts
from keyserver.admin.auditing import Auditing
from keyserver.admin.masking import masked
from keyserver.admin.problems import NotKnown, Refusal, Unusable
from keyserver.admin.tokens import Tokens
from keyserver.changes import Changes
from keyserver.store.administration import ActFilter, Administration
from keyserver.store.base import StoreError
from keyserver.store.sqlite import SqliteStore

FIRST = FirstToken("the first operator's token", "mark-of-it")
NEAR, FAR = "192.0.2.7", "203.0.113.9"


@dataclass
class Clock:
    now: int = 1_800_000_000

    def __call__(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return float(self.now)


@dataclass
class World:
    store: SqliteStore
    kept: Administration
    access: Access
    acts: Acts
    tokens: Tokens
    auditing: Auditing
    clock: Clock

    async def done(self) -> list[tuple[str, dict[str, object]]]:
        page = await self.auditing.list(ActFilter(), 1000)
        return [(row.act, dict(row.facts)) for row in reversed(page.acts)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store, clock = SqliteStore(tmp_path / "cache.db", {}, Changes(), 1 << 30), Clock()
    await store.open()
    kept = store.administration
    access = Access(kept, FIRST, clock, clock.monotonic)
    acts = Acts(kept, lambda text: f"#{text}", clock)
    tokens = Tokens(kept, access, acts, clock)
    yield World(store, kept, access, acts, tokens, Auditing(kept, acts), clock)
    await acts.written()
    await store.close()


# --- tokens


async def test_the_first_token_is_an_operators_and_needs_no_store(world: World) -> None:
    await world.store.close()
    assert await world.access.holder(FIRST.token, NEAR) == Holder("admin", Role.OPERATOR, FIRST.mark)


def test_an_empty_token_is_no_token() -> None:
    with pytest.raises(ValueError, match="token"):
        Access(None, FirstToken("", ""), Clock(), Clock().monotonic)  # type: ignore[arg-type]


async def test_a_made_token_is_shown_once_and_kept_as_its_digest(world: World) -> None:
    made = await world.tokens.add("grafana", "viewer")
    assert len(made.token) == len("ks_12345678_") + 43  # 256 random bits
    assert made.token.startswith(f"ks_{made.id}_")
    (stored,) = await world.kept.tokens()
    assert stored.digest == hashlib.sha256(made.token.encode()).digest()
    assert made.token not in repr(await world.tokens.list())
    assert made.token not in repr(await world.done())
    assert await world.access.holder(made.token, NEAR) == Holder("grafana", Role.VIEWER, made.id)
    for wrong in (made.token[:-1], made.token + "x", made.token.upper(), f"ks_{made.id}_{'A' * 43}", made.id, ""):
        assert await world.access.holder(wrong, FAR) is None
    assert [(row.name, row.role) for row in await world.tokens.list()] == [("admin", "operator"), ("grafana", "viewer")]


async def test_a_revoked_token_is_nobodys_at_once_and_ends_its_sessions(world: World) -> None:
    made = await world.tokens.add("ops", "operator")
    holder = await world.access.holder(made.token, NEAR)
    assert holder is not None
    cookie = await world.access.begin(holder, NEAR)
    assert await world.access.valid(holder)
    await world.tokens.revoke("ops")
    assert await world.access.holder(made.token, NEAR) is None
    assert await world.access.signed_in(cookie) is None
    assert not await world.access.valid(holder)
    assert await world.done() == [
        ("token add", {"token": "ops", "role": "operator"}),
        ("token revoke", {"token": "ops"}),
    ]


@pytest.mark.parametrize(
    ("name", "role", "says"),
    [("", "viewer", "name"), (" a", "viewer", "name"), ("a\n", "viewer", "name"), ("a" * 65, "viewer", "name"),
     ("a", "root", "viewer, operator")],
)  # fmt: skip
async def test_what_is_no_name_or_role_is_refused(world: World, name: str, role: str, says: str) -> None:
    with pytest.raises(Unusable, match=says):
        await world.tokens.add(name, role)


async def test_names_are_taken_once_and_the_first_cannot_be_revoked(world: World) -> None:
    await world.tokens.add("ops", "operator")
    for refused in (world.tokens.add("ops", "viewer"), world.tokens.add("admin", "viewer")):
        with pytest.raises(Refusal, match="another"):
            await refused
    with pytest.raises(Refusal, match=r"admin\.token_file"):
        await world.tokens.revoke("admin")
    with pytest.raises(NotKnown):
        await world.tokens.revoke("nobody")


# --- sessions


async def signed_in(world: World) -> str:
    return await world.access.begin(world.access.first, NEAR)


async def test_a_cookie_is_32_octets_of_which_the_store_has_the_digest(world: World) -> None:
    cookie = await signed_in(world)
    assert len(cookie) == 43
    assert await world.access.signed_in(cookie) == world.access.first
    for forged in ("", "a", "A" * 43, cookie[:-1], cookie + "A", f"{cookie}=", "é" * 43, "\ud800"):
        assert await world.access.signed_in(forged) is None
        assert not await world.access.end(forged)
    octets = base64.urlsafe_b64decode(cookie + "=")
    assert len(octets) == 32
    assert await world.kept.session(hashlib.sha256(octets).digest()) is not None


async def test_a_session_ends_when_idle_and_a_use_keeps_it(world: World) -> None:
    cookie = await signed_in(world)
    world.clock.now += IDLE - 1
    assert await world.access.signed_in(cookie, use=False)
    world.clock.now += 1
    assert await world.access.signed_in(cookie) is None  # being asked for is no use
    cookie = await signed_in(world)
    for _ in range(3):
        world.clock.now += IDLE - 1
        assert await world.access.signed_in(cookie)


async def test_a_session_ends_after_twelve_hours_whatever_happens(world: World) -> None:
    cookie = await signed_in(world)
    for _ in range(LONGEST // (IDLE // 2) - 1):
        world.clock.now += IDLE // 2
        assert await world.access.signed_in(cookie)
    world.clock.now += IDLE // 2
    assert await world.access.signed_in(cookie) is None


async def test_old_sessions_leave_when_somebody_signs_in(world: World) -> None:
    await signed_in(world)
    world.clock.now += IDLE + 1
    await signed_in(world)
    assert await world.kept.sessions() == {FIRST.mark: 1}


async def test_signing_out_here_and_everywhere(world: World) -> None:
    one, two, three = [await signed_in(world) for _ in range(3)]
    assert await world.access.end(one)
    assert await world.access.signed_in(one) is None
    assert await world.access.end_all(world.access.first) == 2
    assert await world.access.signed_in(two) is await world.access.signed_in(three) is None


async def test_sessions_of_another_first_token_are_nobodys(world: World) -> None:
    cookie = await signed_in(world)
    renewed = Access(world.kept, FirstToken("another token", "another mark"), world.clock, world.clock.monotonic)
    assert await renewed.signed_in(cookie) is None


# --- attempts


async def failing(world: World, client: str) -> int:
    """How many wrong tokens a client may try."""
    for n in range(1000):
        try:
            assert await world.access.holder(f"wrong {n}", client) is None
        except TooManyAttempts as many:
            assert many.wait >= 1
            return n
    raise AssertionError("as many as one likes")


async def test_wrong_tokens_of_one_network_are_counted_and_time_gives_them_back(world: World) -> None:
    assert await failing(world, NEAR) == attempts.PER_CLIENT
    with pytest.raises(TooManyAttempts):
        await world.access.holder(FIRST.token, "192.0.2.200")  # a right one could otherwise be found by trying
    assert await world.access.holder(FIRST.token, FAR)
    world.clock.now += 60
    assert await failing(world, NEAR) == attempts.PER_CLIENT


async def test_wrong_tokens_of_all_together_are_counted_but_not_those_of_the_socket(world: World) -> None:
    made = await world.tokens.add("ops", "operator")
    assert await world.access.holder(made.token, FAR)  # once right
    tried = sum([await failing(world, f"198.51.{n}.1") for n in range(attempts.IN_ALL // attempts.PER_CLIENT)])
    assert tried == attempts.IN_ALL
    assert await failing(world, "2001:db8::1") == 0
    assert await world.access.holder(FIRST.token, "")
    assert await world.access.holder("wrong", "") is None
    assert await world.access.holder(made.token, FAR)  # what was right before works on


async def test_right_tokens_are_never_too_many(world: World) -> None:
    made = await world.tokens.add("ops", "operator")
    found = await asyncio.gather(*(world.access.holder(made.token, NEAR) for _ in range(200)))
    assert all(found)


async def test_a_store_that_fails_uses_no_attempts_up(world: World) -> None:
    made = await world.tokens.add("ops", "operator")
    await world.store.close()
    for _ in range(attempts.PER_CLIENT * 2):
        with pytest.raises(StoreError):
            await world.access.holder(made.token, NEAR)


# --- acts


async def test_acts_are_in_the_audit_when_it_is_read(world: World) -> None:
    for n in range(3):
        world.acts.note("delete", "AB" * 20, entries=n)
    assert await world.done() == [("delete", {"entries": n}) for n in range(3)]
    (first, *_), cursor = (page := await world.auditing.list(ActFilter(), 2)).acts, page.next
    assert (first.certificate, first.who, first.at) == ("AB" * 20, ACTOR.get().who, world.clock.now)
    rest = await world.auditing.list(ActFilter(), 2, cursor)
    assert [row.facts["entries"] for row in rest.acts] == [0]
    assert rest.next is None
    assert [row.number async for row in world.auditing.export(ActFilter(act="delete"))] == [3, 2, 1]


async def test_refusals_of_one_place_are_one_row_a_minute(world: World) -> None:
    for _ in range(5):
        world.acts.refuse("page", NEAR, "wrong")
    world.acts.refuse("page", FAR, "wrong")
    world.clock.now += 60
    world.acts.refuse("page", NEAR, "wrong")
    assert [facts["times"] for _, facts in await world.done()] == [1, 1, 5]


async def test_an_act_is_done_though_the_audit_cannot_be_written(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.store.close()
    world.acts.note("delete")
    await world.acts.written()
    assert "could not be kept" in caplog.text


# --- what viewers see


def test_addresses_and_names_become_hashes_and_domains() -> None:
    def hash_(text: str) -> str:
        return f"#{len(text)}"

    shown = masked(
        {
            "identities": ["Alice Example <alice@example.org>", "Alice Example", "a@b.org, c@d.org", '"a b"@c.org'],
            "user_ids": [{"text": "Bob", "address": "bob@example.org", "created": 7, "revoked": False}],
            "message_id": "<123@mail.example.org>",
            "reason": 'nothing for "alice@example.org", ask (bob@example.net)',
            "fingerprint": "AB" * 20,
            "vouchers": [{"address": "alice@example.org", "held": True}],
            "expires_at": None,
        },
        hash_,
    )
    assert shown == {
        "identities": ["#17@example.org", "#13", "#7@b.org, #7@d.org", "#11@c.org"],
        "user_ids": [{"text": "#3", "address": "#15@example.org", "created": 7, "revoked": False}],
        "message_id": "<#20@mail.example.org>",
        "reason": 'nothing for "#17@example.org", ask (#15@example.net)',
        "fingerprint": "AB" * 20,
        "vouchers": [{"address": "#17@example.org", "held": True}],
        "expires_at": None,
    }
