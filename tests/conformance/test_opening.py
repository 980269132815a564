"""A store is opened by its URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyserver.changes import Changes
from keyserver.store.base import StoreRefused
from keyserver.store.opening import open_store
from support.postgres import PASSWORD, shared
from tests.conformance.conftest import HYGIENE, Backend, Made


async def test_three_slashes_are_below_the_working_directory_and_four_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for n, url in enumerate(["sqlite:///var/k.db", f"sqlite:///{tmp_path}/var/k.db"]):
        store = await open_store(url, HYGIENE, Changes(), 1 << 30)
        await store.put([Made(n).find()], [], await store.begin(), 1)
        assert (await store.stats()).certificates == n + 1
        await store.close()
    assert (tmp_path / "var" / "k.db").exists()


async def test_postgresql_is_opened_by_its_url(backend: Backend) -> None:
    for n in range(2):
        store = await open_store(backend.url, HYGIENE, Changes(), 1 << 30)
        await store.put([Made(n).find()], [], await store.begin(), 1)
        assert (await store.stats()).certificates == n + 1
        await store.close()


@pytest.mark.parametrize("right", [True, False])
async def test_a_password_is_given_beside_the_url_and_not_shown(right: bool) -> None:
    cluster = shared()
    database = cluster.create()
    url = cluster.url(database, user="guarded", loopback=True)
    if right:
        store = await open_store(url, HYGIENE, Changes(), 1 << 30, PASSWORD)
        await store.close()
    else:
        with pytest.raises(StoreRefused, match="password") as refused:
            await open_store(url, HYGIENE, Changes(), 1 << 30, "Falsch-1")
        assert "Falsch-1" not in str(refused.value)
        assert "\n" not in str(refused.value)
    cluster.give_back(database)


@pytest.mark.parametrize(
    "url", ["postgresql://u:geheim@db.example/k", "postgresql://db.example/k?password=geheim", "mysql://u:geheim@h/k"]
)
async def test_what_is_not_accepted_is_refused_in_one_line_without_its_password(url: str) -> None:
    with pytest.raises(StoreRefused, match="accepted is") as refused:
        await open_store(url, HYGIENE, Changes(), 1 << 30)
    assert "geheim" not in str(refused.value)
