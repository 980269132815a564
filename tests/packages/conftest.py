"""The packages of this tree and of a version before it, made once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.packaged import ALICE, Tree, before
from support.running import Service


@pytest.fixture(scope="session")
def tree() -> Tree:
    return Tree()


@pytest.fixture(scope="session")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return before(tmp_path_factory.mktemp("candidate"))


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Service]:
    """A keyserver that has Alice's key, for whom it likes."""
    ring = tmp_path / "ring.pgp"
    ring.write_bytes(ALICE.octets)
    with Service(tmp_path, settings={"hkp.listen": '["0.0.0.0:0"]'}) as service:
        service.cli("cache", "import", str(ring))
        yield service
