"""Everything of one store to another, of the same kind or not: copied, compared, gone on with after a break."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from keyserver.model import Source, Voucher
from keyserver.store.administration import ActFilter, StoredAct, StoredSession, StoredToken
from keyserver.store.base import Store
from keyserver.store.invitations import Invitation, Quota, Stage
from keyserver.store.recipients import Encryptable, Looked
from keyserver.store.transfer import BATCH, Differs, Key, Part, Row, Transfer, check, copy, verify
from keyserver.store.upstreams import FAILED
from support.listed import listed
from tests.conformance.conftest import KINDS, Backend, Made, addr, said

NOW = 1_800_000_000
ALICE = Made(1, ("Alice <alice@a.example>", "alice@b.example"), revocations=("r1",))
BOB = Made(2, ("Bob <bob@a.example>",))
GONE = Made(3, ("gone@a.example",), revocations=("r3",))
BAD = Made(4, ("bad@a.example",))


class Broken(Exception):
    """A copy that is broken off."""


class Fragile:
    """A store that takes so many batches and no more; knows what it took."""

    def __init__(self, inner: Transfer, batches: int) -> None:
        self._inner, self._left = inner, batches
        self.written: list[tuple[Part, Key]] = []
        self.count, self.read, self.finish, self.kept = inner.count, inner.read, inner.finish, inner.kept

    async def write(self, part: Part, rows: Sequence[tuple[Key, Row]]) -> None:
        if not self._left:
            raise Broken
        self._left -= 1
        await self._inner.write(part, rows)
        self.written += [(part, key) for key, _ in rows]


@pytest.fixture(params=list(itertools.product(KINDS, KINDS)), ids=lambda pair: " to ".join(pair))
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Backend, Backend]]:
    one, other = request.param
    with Backend(one, tmp_path / "from") as source, Backend(other, tmp_path / "to") as target:
        yield source, target


def nothing(_part: Part, _count: int) -> None:
    """Progress that nobody looks at."""


async def migrate(source: Store, target: Store) -> None:
    await check(source.transfer, target.transfer)
    await copy(source.transfer, target.transfer, nothing)
    await verify(source.transfer, target.transfer, nothing)


async def fill(store: Store) -> None:
    """One or more of everything."""
    begun = await store.begin()
    found = said(addr("alice@a.example"), True, NOW)
    held = Voucher("bob@a.example", authenticated=True, held=True, seen_at=NOW)
    await store.put([ALICE.find(), GONE.find()], [found, said(addr("bob@a.example"), False, NOW)], begun, NOW)
    mailed = BOB.find(Source.MAILFLOW, "a.example", vouchers=(held,), detail="<1@a.example>")
    await store.put([mailed], [], begun, 1)
    await store.put([BOB.find(Source.LOCAL, "administrator"), BAD.find()], [], begun, NOW - 5)
    await store.approve(ALICE.fingerprint, Source.KEYSERVER, "one", "alice@b.example")
    await store.delete(GONE.fingerprint, NOW)  # its revocations stay
    await store.block(BAD.fingerprint, NOW, "söme reason")
    await store.touch({found.name: NOW + 7})
    kept = store.administration
    await kept.add_token(StoredToken("ops", "ops", "operator", b"digest", NOW, "admin"))
    await kept.begin_session(StoredSession(b"\x00\xff" * 16, "ops", NOW, NOW + 1, "192.0.2.1"))
    for n in range(3):
        await kept.note(StoredAct(NOW + n, "admin", "cli", "user 0", "block", BAD.fingerprint, {"n": n}, n == 1))
    for n, address in enumerate(("alice@a.example", "alice@b.example")):
        await store.invitations.prepare(invited(n, address), bytes([n]) * 32, bytes([n + 7]) * 32, Quota(9, 9, 9))
    await store.invitations.bounced(invited(0, "").id, NOW + 1, "nö")
    await store.invitations.confirm(bytes([1]) * 32, NOW + 2)
    await store.upstreams.pause("one", NOW)
    for upstream, counts in {"one": b"\x00counts", "two": b""}.items():
        assert await store.upstreams.keep_told(upstream, None, counts)
    for fingerprint in (ALICE.fingerprint, BOB.fingerprint):
        await store.history.answers("default", addr("alice@a.example"), fingerprint, NOW + 1)
    await store.history.settings({"ttl": 1}, NOW + 2)
    await store.history.failed({(addr("bob@a.example"), "two"): NOW + 3})
    await store.history.move("webhook", 3)
    yes = Looked(Encryptable.YES, NOW, ALICE.kind, ALICE.fingerprint, NOW + 5, "it expires")
    await store.recipients.note({"alice@a.example": yes, "bob@a.example": yes})
    await store.recipients.note({"bob@a.example": Looked(Encryptable.NO, NOW + 1, reason="göne")})
    await store.upstreams.add_pace({(20_000, "one", 3): 4, (20_000, "one", FAILED): 1})


def invited(n: int, address: str) -> Invitation:
    about = (address, ALICE.fingerprint, ALICE.kind, Source.KEYSERVER, "one")
    return Invitation(f"{n:032x}", *about, NOW, "örtlich", NOW + 7)


async def all_of(store: Store) -> list[object]:
    """What can be seen of a store, but for the size of its database."""
    made = (ALICE, BOB, GONE, BAD)
    names = sorted({name for one in made for name in one.names})
    kept, about, stats = store.administration, store.upstreams, await store.stats()
    return [
        [await store.look(name) for name in names],
        [(await store.certificate(one.fingerprint)) for one in made],
        await listed(store),
        (stats.certificates, stats.entries, stats.records_found, stats.records_absent, stats.blocked),
        (stats.upstreams, stats.held, stats.approved),
        await store.blocked(),
        await kept.tokens(),
        await kept.sessions(),
        await kept.acts(ActFilter(), 100),
        await store.invitations.invitations(100),
        await about.pauses(),
        await about.told(),
        await about.pace(0),
        await store.recipients.domains(0, 10),
        await store.recipients.ending(NOW, NOW + 10, 0, 10),
        await store.recipients.lost(NOW, 0, 10),
        await store.newest(),
        await store.search("alice", ALICE.kind, 10),
        await store.due({None: NOW + 1}, 10),
        [await store.history.past(name, at) for name in names for at in (NOW - 5, NOW, NOW + 3)],
        await store.history.events(100),
        [await store.history.words(name, 10) for name in names],
        await store.history.cursor("webhook"),
    ]


async def test_everything_is_there_and_in_use(pair: tuple[Backend, Backend]) -> None:
    async with pair[0].opened() as (source, _), pair[1].opened() as (target, _), pair[1].opened() as (other, heard):
        await fill(source)
        await migrate(source, target)
        await other.poll()
        assert any(change.everything for change in heard)
        for store in (target, other):
            assert unbegun(await all_of(store)) == unbegun(await all_of(source))
        last = (await source.administration.acts(ActFilter(), 1))[0].number
        assert await target.administration.note(StoredAct(NOW, "admin", "cli", "", "delete")) > last
        near, far = source.invitations, target.invitations
        newest, confirmed, returned = (await near.invitations(1))[0], await far.by_confirm(b"\1" * 32), b"\0" * 32
        assert confirmed is not None
        assert (confirmed.stage, confirmed.address) == (Stage.CONFIRMED, "alice@b.example")
        assert isinstance(await far.confirm(returned, NOW + 3), Invitation)
        await far.prepare(invited(2, "alice@a.example"), b"c" * 32, b"w" * 32, Quota(9, 9, 9))
        assert (await far.invitations(1))[0].number > newest.number
        assert await target.unblock(BAD.fingerprint, NOW)
        assert await target.delete(ALICE.fingerprint, NOW) == 1
        assert (await target.stats()).certificates == 2


def unbegun(seen: list[object]) -> list[object]:
    """Without the counters of deletions, which are each store's own."""
    looks = seen[0]
    assert isinstance(looks, list)
    return [[(look.entries, look.revocations, look.records) for look in looks], *seen[1:]]


async def test_a_copy_that_was_broken_off_goes_on_where_it_was(pair: tuple[Backend, Backend]) -> None:
    async with pair[0].opened() as (source, _), pair[1].opened() as (target, _):
        await fill(source)
        many = [Made(n, (f"{n}@a.example",)) for n in range(10, 10 + 4 * BATCH)]
        await source.put([one.find() for one in many], [], await source.begin(), NOW)
        written: list[tuple[Part, Key]] = []
        for batches in (3, 2, 100):
            fragile = Fragile(target.transfer, batches)
            await check(source.transfer, fragile)
            if batches < 100:
                with pytest.raises(Broken):
                    await copy(source.transfer, fragile, nothing)
                with pytest.raises(Differs, match="is missing"):
                    await verify(source.transfer, fragile, nothing)
            else:
                await copy(source.transfer, fragile, nothing)
            written += fragile.written
        assert len(written) == len(set(written))  # nothing twice
        await verify(source.transfer, target.transfer, nothing)
        assert unbegun(await all_of(target)) == unbegun(await all_of(source))
        await migrate(source, target)  # and once more changes nothing


@pytest.mark.parametrize("pair", [("sqlite", "postgres"), ("postgres", "sqlite")], indirect=True, ids=" to ".join)
@pytest.mark.parametrize("kept", ["entry", "another copy", "act", "invitation", "pause"])
async def test_a_store_in_use_is_left_as_it_is(pair: tuple[Backend, Backend], kept: str) -> None:
    async with pair[0].opened() as (source, _), pair[1].opened() as (target, _):
        await fill(source)
        match kept:
            case "entry":
                await target.put([Made(9, ("x@y.example",)).find()], [], await target.begin(), NOW)
            case "another copy":
                await target.put([ALICE.find()], [], await target.begin(), NOW + 1)
            case "act":
                await target.administration.note(StoredAct(NOW, "admin", "cli", "", "delete"))
            case "invitation":
                await source.delete(ALICE.fingerprint, NOW)
                await migrate(source, target)
                await source.invitations.withdraw(b"\7" * 32, NOW)
            case "pause":
                await target.upstreams.pause("three", NOW)
        before = await all_of(target)
        with pytest.raises(Differs, match=r"not in the store|not the same"):
            await check(source.transfer, target.transfer)
        assert await all_of(target) == before


async def test_what_changes_meanwhile_is_noticed(pair: tuple[Backend, Backend]) -> None:
    async with pair[0].opened() as (source, _), pair[1].opened() as (target, _):
        await fill(source)
        await copy(source.transfer, target.transfer, nothing)
        await source.delete(ALICE.fingerprint, NOW)
        with pytest.raises(Differs, match=r"entries: [0-9A-F]{40} keyserver one is not in"):
            await verify(source.transfer, target.transfer, nothing)


async def test_progress_comes_to_the_whole(pair: tuple[Backend, Backend]) -> None:
    async with pair[0].opened() as (source, _), pair[1].opened() as (target, _):
        await fill(source)
        done = dict.fromkeys(Part, 0)

        def progress(part: Part, count: int) -> None:
            done[part] += count

        await copy(source.transfer, target.transfer, progress)
        assert done == {part: await source.transfer.count(part) for part in Part}
        assert all(done.values())


async def test_hostile_text_comes_through_as_far_as_the_target_takes_it(pair: tuple[Backend, Backend]) -> None:
    async with pair[0].opened() as (source, _), pair[1].opened() as (target, _):
        made = Made(5, ("\0\ud800 <nul@a.example>", "'; DROP TABLE entry; --"))
        await source.put([made.find(Source.MAILFLOW, "a.example", detail="<\0\ud800>")], [], await source.begin(), NOW)
        await source.block(BAD.fingerprint, NOW, "a\\b\0c" if pair[0].kind == "sqlite" else "a\\b")
        await migrate(source, target)
        (one,), (other,) = [(await store.certificate(made.fingerprint)).entries for store in (source, target)]
        assert other.identities == one.identities
        assert other.octets == one.octets
        assert other.detail in (one.detail, "<\ufffd?>")
        assert (await target.look(addr("nul@a.example"))).entries == (other,)
