"""The picture of the architecture holds: imports go down, never in circles; pure parts do no I/O and read no clock."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "keyserver"

LADDER: tuple[tuple[str, ...], ...] = (
    ("cli", "__main__"),
    ("app",),
    ("processes",),
    ("faces", "mailflow", "admin"),
    ("outlook",),
    ("verdict", "invite", "events"),
    ("resolver",),
    ("store", "upstreams", "listen"),
    ("tripwire",),
    ("policy", "config", "changes", "hygiene", "install", "rules", "state", "usable"),
    ("wire", "openpgp", "smime", "domains"),
    ("model", "query", "observe", "clocks", "ber", "display", "traffic", "notify"),
)
"""From the top; a unit may import itself and what stands on a lower rung, never its neighbours."""

NEIGHBOURS = {
    ("__main__", "cli"),
    ("query", "model"),
    ("observe", "model"),
    ("observe", "traffic"),
    ("ber", "model"),
}
"""The only imports within a rung."""

RUNG = {unit: number for number, rung in enumerate(LADDER) for unit in rung}

PURE = (
    "display",
    "domains",
    "wire",
    "openpgp",
    "smime",
    "policy",
    "tripwire",
    "usable",
    "hygiene",
    "model",
    "query",
    "ber",
)
"""Units that are pure as a whole; so is every module whose docstring calls it pure."""

FORBIDDEN_MODULES = frozenset(
    """
    aiohttp aiosqlite asyncio asyncpg concurrent ctypes fcntl glob http io ldap3 logging mmap multiprocessing os pathlib
    random requests resource secrets select selectors shutil signal socket socketserver sqlite3 ssl subprocess sys
    tempfile threading time urllib.request uuid uvloop
    """.split()  # noqa: SIM905
)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.Module, file: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, wherever it stands, those for type checkers too."""
    package = ("keyserver", *file.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            # `from keyserver import store` names the unit in the alias
            yield from ((node.lineno, f"{module}.{a.name}" if module == "keyserver" else module) for a in node.names)


def wrong_imports(source: str, file: Path) -> list[str]:
    unit = unit_of(file)
    found = []
    for line, name in imports(ast.parse(source), file):
        parts = name.split(".")
        if parts[0] != "keyserver" or len(parts) == 1 or unit == "__init__" or parts[1].startswith("__version"):
            continue
        other = parts[1]
        down = other == unit or (other in RUNG and RUNG[other] > RUNG[unit]) or (unit, other) in NEIGHBOURS
        if not down:
            found.append(f"{file.relative_to(ROOT)}:{line}: {unit} may not import {other}")
    return found


def impure(source: str, file: Path) -> list[str]:
    tree = ast.parse(source)
    found = [
        f"{file.relative_to(ROOT)}:{line}: {name} in a pure part"
        for line, name in imports(tree, file)
        if any(name == bad or name.startswith(f"{bad}.") for bad in FORBIDDEN_MODULES)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await):
            found.append(f"{file.relative_to(ROOT)}:{node.lineno}: async in a pure part")
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            plain = isinstance(node.func, ast.Name) and called in ("open", "input", "print")
            clock = isinstance(node.func, ast.Attribute) and called in ("now", "today", "utcnow")
            if plain or clock:
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {called}() in a pure part")
    return found


def pure(file: Path) -> bool:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return unit_of(file) in PURE or re.search(r"\bpure\b", docstring, re.IGNORECASE) is not None


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def graph(files: dict[str, tuple[Path, str]]) -> dict[str, set[str]]:
    """What each module (name -> file, source) imports of the others, for type checkers too."""
    found = {}
    for name, (file, source) in files.items():
        tree = ast.parse(source)
        imported = {module for _, module in imports(tree, file)}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                if inner <= files.keys():  # `from keyserver.store import base` is of the module, not its package
                    imported = (imported - {node.module}) | inner
        found[name] = {other for other in imported if other in files and other != name}
    return found


def circles(imported: dict[str, set[str]]) -> set[frozenset[str]]:
    """Sets of modules each of which leads to all others."""

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            fresh = imported[waiting.pop()] - seen
            seen |= fresh
            waiting += fresh
        return seen

    reached = {name: reach(name) for name in imported}
    return {
        frozenset(other for other in reached[name] if name in reached[other]) | {name}
        for name in imported
        if name in reached[name]
    }


def test_every_unit_has_its_rung() -> None:
    unknown = {unit_of(file) for file in modules()} - RUNG.keys() - {"__init__"}
    assert not unknown, f"not on the ladder: {unknown}; say where they stand"


def test_imports_only_go_down() -> None:
    found = [line for file in modules() for line in wrong_imports(file.read_text(encoding="utf-8"), file)]
    assert not found, "\n".join(found)


def test_pure_parts_do_no_io_and_read_no_clock() -> None:
    files = [file for file in modules() if pure(file)]
    assert files
    found = [line for file in files for line in impure(file.read_text(encoding="utf-8"), file)]
    assert not found, "\n".join(found)


def test_imports_never_go_in_circles() -> None:
    found = circles(graph({name_of(file): (file, file.read_text(encoding="utf-8")) for file in modules()}))
    assert not found


def test_circles_are_seen() -> None:
    sources = {
        "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from keyserver.x.b import B",
        "b": "from keyserver.x import c",
        "c": "import keyserver.x.a",
        "d": "from keyserver.x import a, b",
    }
    files = {f"keyserver.x.{name}": (PACKAGE / "x" / f"{name}.py", source) for name, source in sources.items()}
    assert circles(graph(files)) == {frozenset({"keyserver.x.a", "keyserver.x.b", "keyserver.x.c"})}


def test_what_calls_itself_pure_is_looked_at() -> None:
    assert pure(PACKAGE / "mailflow" / "report.py")
    assert pure(PACKAGE / "wire" / "ber.py")
    assert not pure(PACKAGE / "app" / "running.py")


@pytest.mark.parametrize(
    ("where", "source", "complaint"),
    [
        ("faces/x.py", "from keyserver.upstreams.base import Upstream", ""),
        ("upstreams/x.py", "import keyserver.store.base", "upstreams may not import store"),
        ("upstreams/x.py", "def f():\n    from keyserver import store", "upstreams may not import store"),
        ("wire/x.py", "from ..resolver import resolver", "wire may not import resolver"),
        ("model.py", "from keyserver.query import parse", "model may not import query"),
        ("store/x.py", "from . import base\nfrom keyserver.model import Entry", ""),
    ],
)
def test_the_ladder_is_seen(where: str, source: str, complaint: str) -> None:
    found = wrong_imports(source, PACKAGE / where)
    assert (complaint in found[0]) if complaint else not found


@pytest.mark.parametrize(
    "source", ["import socket", "from os import path", "x = open('f')", "d = datetime.now()", "async def f(): ..."]
)
def test_impurity_is_seen(source: str) -> None:
    assert impure(source, PACKAGE / "wire" / "x.py")
