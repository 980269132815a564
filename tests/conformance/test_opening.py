"""A store is opened by its URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyserver.changes import Changes
from keyserver.store.base import StoreRefused
from keyserver.store.opening import open_store
from tests.conformance.conftest import HYGIENE, Made


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


async def test_what_is_not_built_is_refused_in_one_line_without_its_password() -> None:
    with pytest.raises(StoreRefused, match="postgresql is not built yet") as refused:
        await open_store("postgresql://u:geheim@db.example/k", HYGIENE, Changes(), 1 << 30)
    assert "geheim" not in str(refused.value)
    assert "\n" not in str(refused.value)
