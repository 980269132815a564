"""Tests use what the product shows: no private name of it is imported, read or replaced."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
OURS = ("keyserver", "bench", "support", "scenarios", "tests")

FOREIGN = {
    "_uid": "pgpy shows a user ID's octets nowhere else",
    "_message_counter": "ldap3 tells the number of its next message nowhere else; it is reached through our guard",
}
"""Private names of other projects' objects, where the object alone does not tell whose it is; with the reason."""

ITSELF = ("self", "cls", "super()", "type(self)")
REPLACING = ("setattr", "delattr", "getattr", "hasattr")


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def root(node: ast.expr) -> str:
    """The name that a chain of attributes and calls begins with."""
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def foreign(tree: ast.Module) -> set[str]:
    """Names bound to modules, or what is in modules, that are not of this repository."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [(alias.name, alias.asname or alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = [(node.module or "", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        names |= {bound.split(".")[0] for module, bound in found if module.split(".")[0] not in OURS}
    return names


def own(tree: ast.Module) -> set[str]:
    """Private names that the file itself gives: to functions, to variables, to attributes of `self`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and root(node) in ("self", "cls"):
            names.add(node.attr)
    return names


def reaching(source: str) -> Iterator[str]:
    """Everything in a file that reaches into a private name."""
    tree = ast.parse(source)
    theirs, mine = foreign(tree), own(tree) | FOREIGN.keys()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            yield from (f"{node.lineno}: import of {alias.name}" for alias in node.names if private(alias.name))
        elif isinstance(node, ast.Attribute) and private(node.attr):
            if ast.unparse(node.value) not in ITSELF and root(node) not in theirs and node.attr not in mine:
                yield f"{node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in REPLACING:
            words = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            inside = any(private(part) for word in words for part in word.split("."))
            if inside and not (node.args and root(node.args[0]) in theirs):
                yield f"{node.lineno}: {ast.unparse(node)}"


def test_no_test_reaches_into_a_private_name() -> None:
    found = [
        f"{file.relative_to(TESTS)}:{line}"
        for file in sorted(TESTS.rglob("*.py"))
        for line in reaching(file.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("from keyserver.x import _y", True),
        ("from keyserver import x\nx._y()", True),
        ("store = make()\nstore.reader._rows = 1", True),
        ("made()._y", True),
        ("class A:\n    def f(self):\n        self.store._y", True),
        ("from keyserver import x\nmonkeypatch.setattr(x, '_y', 1)", True),
        ("monkeypatch.setattr('keyserver.x._y', 1)", True),
        ("import aiohttp\naiohttp.Connector._wrap()", False),
        ("class A:\n    def f(self):\n        self._y = 1\nA()._y", False),
        ("x.__class__", False),
    ],
)
def test_reaching_is_seen(source: str, seen: bool) -> None:
    assert bool(list(reaching(source))) == seen
