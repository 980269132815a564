"""A service that was asked for people has notes of whether mail to them could be encrypted, and of its upstreams."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.store.recipients import Coverage
from keyserver.store.sqlite import SqliteStore
from support.openpgp import make
from support.ports import free_port
from support.running import Service


@pytest.mark.parametrize("fronts", [0, 1])
async def test_who_was_asked_for_is_noted_by_the_time_it_stops(tmp_path: Path, fronts: int) -> None:
    files = [tmp_path / "fine", tmp_path / "signer"]
    fine = make(["fine@example.org"], seed="fine")
    files[0].write_text(fine.armored)
    files[1].write_text(make(["signer@example.org"], seed="signer", encryption=None).armored)
    settings = {"policy.internal_domains": '["example.org"]', "server.workers": str(fronts)}
    with Service(tmp_path, upstreams=[f"hkp://127.0.0.1:{free_port()}"], settings=settings) as service:
        service.cli("cache", "import", *map(str, files))
        for name, status in {"fine": 200, "signer": 200, "nobody": 404, f"0x{fine.fingerprint}": 200}.items():
            term = name if name.startswith("0x") else f"{name}@example.org"
            for _ in range(2):  # the second from memory
                assert (await service.lookup(term))[0] == status
        assert (await service.lookup("nobody@down.example"))[0] == 500
        assert service.stop() == 0
    store = SqliteStore(tmp_path / "keyserver.db", hygiene_of(), Changes(), 1 << 30)
    await store.open()
    try:
        assert list(await store.recipients.domains(0, 9)) == [
            Coverage("example.org", 3, 1, 2, 0),
            Coverage("down.example", 1, 0, 0, 1),
        ]
        (pace,) = await store.upstreams.pace(0)
        assert pace.failed > 0
        assert sum(pace.buckets) == 0

    finally:
        await store.close()
