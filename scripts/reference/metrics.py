"""The metrics as a page, from where the code declares them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "keyserver"

_HEAD = """\
# Metrics

<!-- Made from the declarations in keyserver/ by scripts/reference/metrics.py. -->

`GET /metrics` on the admin listener, Prometheus text. What to watch, and alerts over it:
[Operating](../operating.md#metrics).

| metric | type | labels | says |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True, order=True)
class Metric:
    """One family, as a Prometheus shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def declared() -> list[Metric]:
    """Every family that the code names, by name."""
    found = {metric for file in sorted(PACKAGE.rglob("*.py")) for metric in _in(file)}
    return sorted(found)


def render() -> str:
    """The whole page."""
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.meaning} |"
        for one in declared()
    ]
    return _HEAD + "\n".join(rows) + "\n"


def _in(file: Path) -> Iterator[Metric]:
    text = file.read_text(encoding="utf-8")
    if '"keyserver_' not in text:
        return
    tree = ast.parse(text)
    names = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            name, meaning = node.args[:2]
            called = _text(name)
            if called.startswith("keyserver_"):
                kind = _kind(node)
                total = "_total" if kind == "counter" else ""
                yield Metric(called + total, kind, _labels(node, names), _text(meaning))


def _text(node: ast.expr) -> str:
    """What a literal says; anything else says nothing."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _kind(call: ast.Call) -> str:
    """By the name of what is called; MemoryValue counts where its fourth argument says so."""
    assert isinstance(call.func, ast.Name)
    called = call.func.id.lower()
    if called == "memoryvalue":
        return "counter" if len(call.args) > 3 else "gauge"
    return next(kind for kind in ("counter", "gauge", "histogram") if called.startswith(kind))


def _labels(call: ast.Call, names: dict[str, ast.expr]) -> tuple[str, ...]:
    """The list that is given third, or by name; a variable is looked up in the same module."""
    given = next((word.value for word in call.keywords if word.arg == "labels"), None)
    given = given or (call.args[2] if len(call.args) == 3 else None)
    if isinstance(given, ast.Name):
        given = names.get(given.id)
    if not isinstance(given, ast.List | ast.Tuple):
        return ()
    return tuple(filter(None, map(_text, given.elts)))
