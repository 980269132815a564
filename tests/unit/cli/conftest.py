"""A configuration to run commands over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.shell import Shell, ended, started, written


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """No service runs."""
    return Shell(written(tmp_path))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Shell]:
    """A service runs."""
    config = written(tmp_path)
    process, _ = started(config)
    try:
        yield Shell(config)
    finally:
        ended(process)


@pytest.fixture(params=["alone", "service"])
def either(request: pytest.FixtureRequest) -> Shell:
    """With and without a running service."""
    return request.getfixturevalue("shell" if request.param == "alone" else "service")
