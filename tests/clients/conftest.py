"""The service in both of its shapes, for tests that say `usefixtures("both_shapes")`."""

from __future__ import annotations

import pytest

from support.ldap_memory import Face
from support.running import Service


@pytest.fixture(params=[0, 1], ids=["one process", "front and core"])
def both_shapes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with one process for all, then with a front beside a core."""
    monkeypatch.setattr(Service, "fronts", request.param)
    monkeypatch.setattr(Face, "apart", bool(request.param))
