"""The core lets fronts go first where both share processors, and starts all the same where it may not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from keyserver.app import several
from support.running import Service


class Pinned(Service):
    """A service on the first of our processors alone; the processes of other tests keep theirs."""

    def command(self, *words: str) -> list[str]:
        pinned = f"import os, sys; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[:1]}); "
        return [sys.executable, "-c", pinned + "from keyserver.cli import main; sys.exit(main())", *words]


def niceness(directory: Path) -> dict[str, int]:
    """How nice the core and one front are where they share a processor."""
    with Pinned(directory, settings={"server.workers": "1"}) as service:
        return {node["kind"]: os.getpriority(os.PRIO_PROCESS, node["pid"]) for node in service.nodes()}


def test_the_core_is_nicer_than_fronts_that_share_its_processor(tmp_path: Path) -> None:
    found = niceness(tmp_path)
    assert found["front"] == found["supervisor"] == os.getpriority(os.PRIO_PROCESS, 0)
    assert found["core"] == min(19, found["front"] + several.CORE_NICE)


def test_where_each_has_a_processor_they_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(increment: int) -> int:
        raise AssertionError(increment)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    monkeypatch.setattr(os, "nice", refuse)
    several.give_way(2)


def test_where_it_is_not_permitted_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(increment: int) -> int:
        asked.append(increment)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(os, "nice", refuse)
    several.give_way(1)
    assert asked == [several.CORE_NICE]
