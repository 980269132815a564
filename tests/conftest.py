"""What holds for all tests: how hard Hypothesis tries, how long the long tests are, and the service in both
of its shapes.

`scripts/test --long` is the slow run: many times the examples, kills and requests (docs/testing.md).
"""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from support.ldap_memory import Face
from support.running import Service

settings.register_profile("ordinary", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile(
    "soak", deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=3, help="how often a process of a service under load is killed")
    parser.addoption("--requests", type=int, default=1_000, help="how many different requests leave nothing behind")
    parser.addoption("--questions", type=int, default=10_000, help="asked of real peers through us and directly")
    parser.addoption("--hockeypuck", default="", help="folder with the programs of a hockeypuck, to be asked as well")
    parser.addoption("--histories", type=int, default=200, help="how often nodes under faults are judged, in the soak")


@pytest.fixture(params=[0, 1], ids=["one process", "front and core"])
def both_shapes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the test with one process for all, then with a front beside a core."""
    monkeypatch.setattr(Service, "fronts", request.param)
    monkeypatch.setattr(Face, "apart", bool(request.param))


def pytest_collection_finish() -> None:
    """What was collected stays until the end: it need not be looked through each time that memory is tidied."""
    gc.collect()
    gc.freeze()
