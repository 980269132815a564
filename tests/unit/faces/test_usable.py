"""What memory says of a certificate turns in the very second in which nobody can encrypt with it any more."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.faces.ldap.search import Searches
from keyserver.faces.ldap.tree import SearchPlan, Tree
from keyserver.model import Source, View
from keyserver.wire.ldap import Code, Scope, SearchRequest
from keyserver.wire.ldap_filter import Equal
from support.http_faces import faces
from support.ldap_memory import BASE
from support.ldap_messages import write_search
from support.openpgp import CREATED, make
from support.resolving import NOW, Ground

ALICE = "alice@example.org"
TARGET = f"/pks/lookup?op=get&options=mr&search={ALICE}"
SEARCH = SearchRequest(BASE, Scope.SUBTREE, 0, 0, False, Equal("gpgMailbox", ALICE.encode()), ("keyserverCanEncrypt",))
REQUEST = write_search(SEARCH)
GATEWAY = View("gateway", usable_only=True)


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    """Knows a certificate whose subkey is over in a minute."""
    made = Ground(tmp_path)
    await made.store.open()
    certificate = make([f"Alice <{ALICE}>"], seed="alice", subkey_expires=NOW - CREATED + 60)
    await made.put(certificate, Source.LOCAL, "admin")
    yield made
    await made.cleaner.close()
    await made.store.close()


@pytest.mark.parametrize(("view", "after"), [(View(), (200, "no")), (GATEWAY, (404, None))])
async def test_over_http(ground: Ground, view: View, after: tuple[int, str | None]) -> None:
    async with faces(ground, view=view) as one:

        async def asked() -> tuple[int, str | None]:
            reply = await one.get(TARGET)
            return reply.status, reply.headers.get("x-key-usable")

        assert [await asked() for _ in range(3)] == [(200, "yes")] * 3
        ground.now += 59
        hits = one.hits
        assert (await asked(), one.hits) == ((200, "yes"), hits + 1)
        ground.now += 1
        assert [await asked() for _ in range(3)] == [after] * 3
        assert one.hits > hits + 1, "memory says so, too"


async def test_strangers_are_not_told_where_nothing_is_explained(ground: Ground) -> None:
    async with faces(ground, explain=False) as one:
        assert "x-key-usable" not in (await one.get(TARGET)).headers


@pytest.mark.parametrize(("view", "after"), [(View(), [b"FALSE"]), (GATEWAY, [])])
async def test_over_ldap(ground: Ground, view: View, after: list[bytes]) -> None:
    async with faces(ground, view=view) as one:
        searches = Searches(one.context, Tree(BASE, start_tls=False, text_search=lambda: False))

        async def asked() -> list[bytes]:
            plan = searches.plan(SEARCH, REQUEST)
            assert isinstance(plan, SearchPlan)
            reply = await searches.answer(plan, None, False, 0)
            assert reply.code is Code.SUCCESS
            return [word for entry in reply.entries for word in (b"TRUE", b"FALSE") if word in entry]

        assert [await asked() for _ in range(2)] == [[b"TRUE"]] * 2
        ground.now += 59
        assert searches.known(REQUEST) is not None
        ground.now += 1
        assert searches.known(REQUEST) is None
        assert await asked() == after
