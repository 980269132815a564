"""Time is handed in: one module reads the machine's clocks, and only who starts a process makes them.

Not meant is the event loop's own time, by which its timers and `asyncio.timeout` run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "keyserver"

READS = ("clocks.py",)
MAKES = ("app/running.py", "cli/admin_client.py", "cli/show.py")
"""The service's composition root, and the command line's own parts."""

CLOCKS = frozenset(
    """
    clock_gettime clock_gettime_ns monotonic monotonic_ns perf_counter perf_counter_ns time time_ns
    """.split()  # noqa: SIM905
)
NEEDS = {"ctime": 1, "gmtime": 1, "localtime": 1, "strftime": 2, "formatdate": 1}
"""Functions that read a clock when they are called with fewer arguments."""

NOWS = frozenset({"now", "today", "utcnow"})


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def dated(value: ast.expr) -> bool:
    return ast.unparse(value).rpartition(".")[2] in ("date", "datetime")


def readings(source: str) -> Iterator[tuple[int, str]]:
    """(line, what) of whatever names a clock of the machine."""
    tree = ast.parse(source)
    modules = {"time"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname for alias in node.names if alias.name == "time" and alias.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in CLOCKS)
        elif isinstance(node, ast.Attribute) and node.attr in CLOCKS and ast.unparse(node.value) in modules:
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.Call) and len(node.args) < NEEDS.get(called(node), 0):
            yield node.lineno, f"{called(node)}() of this moment"
        elif isinstance(node, ast.Attribute) and node.attr in NOWS and dated(node.value):
            yield node.lineno, ast.unparse(node)


def modules() -> dict[str, str]:
    return {str(f.relative_to(PACKAGE)): f.read_text(encoding="utf-8") for f in sorted(PACKAGE.rglob("*.py"))}


def test_nobody_else_reads_a_clock() -> None:
    found = {where: list(readings(source)) for where, source in modules().items()}
    assert all(found[where] for where in READS), "the list names who does not"
    wrong = [f"keyserver/{w}:{line}: {what}" for w, all_of in found.items() if w not in READS for line, what in all_of]
    assert not wrong, "take a clock as an argument:\n" + "\n".join(wrong)


def test_only_who_starts_a_process_makes_the_clocks() -> None:
    assert {where for where, source in modules().items() if "Clocks.system(" in source} == set(MAKES)


@pytest.mark.parametrize(
    "source",
    [
        "import time\nt = time.time()",
        "import time\ndef f(clock=time.monotonic): ...",
        "import time as t\nt.time_ns()",
        "from time import perf_counter",
        "from datetime import datetime\nd = datetime.now(UTC)",
        "import datetime\nd = datetime.date.today()",
        "import time\ntime.strftime('%H')",
        "import time\ntime.localtime()",
        "from email.utils import formatdate\nformatdate(usegmt=True)",
    ],
)
def test_a_reading_is_seen(source: str) -> None:
    assert list(readings(source))


@pytest.mark.parametrize(
    "source",
    ["import time\ntime.sleep(1)", "import time\ntime.localtime(instant)", "asyncio.get_running_loop().time()"],
)
def test_what_reads_no_clock_is_let_be(source: str) -> None:
    assert not list(readings(source))
