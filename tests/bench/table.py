"""The one table of a run, for people and for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass

from bench.figures import Row

_HEADS = ("workload", "who", "requests/s", "p50 ms", "p99 ms", "CPU µs", "reached", "asked", "")


@dataclass(frozen=True, slots=True)
class Report:
    """All rows of a run, and where and how it was made."""

    machine: str
    how: str
    rows: tuple[Row, ...]


def text(report: Report) -> str:
    """A Markdown table: readable in a terminal, and as it stands in a document."""
    lines = [_cells(row) for row in report.rows]
    shown = ""
    for cells in lines:  # a workload's name once, at its first row
        shown, cells[0] = cells[0], "" if cells[0] == shown else cells[0]
    widths = [max(len(cells[i]) for cells in [list(_HEADS), *lines]) for i in range(len(_HEADS))]
    ruler = ["-" * width for width in widths]
    table = "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
        for cells in [list(_HEADS), ruler, *lines]
    )
    notes = [f"- {row.workload}, {row.subject}: {row.note}" for row in report.rows if row.note]
    asked = [row.figure.met for row in report.rows if row.figure is not None and row.figure.met is not None]
    summary = f"{sum(asked)} of {len(asked)} figures met"
    return "\n".join([report.machine, report.how, "", table, "", *notes, summary])


def said(row: Row) -> str:
    """One row as a line: what is lost with a run that is broken off can be read there."""
    cells = zip(_HEADS, _cells(row), strict=True)
    return "; ".join([*(f"{head} {cell}".strip() for head, cell in cells if cell), *filter(None, [row.note])])


def as_json(report: Report) -> str:
    """Stable: one object per row, None where something was not measured."""
    rows = [
        {
            "workload": row.workload,
            "who": row.subject,
            "rate": row.rate,
            "p50_ms": row.p50,
            "p99_ms": row.p99,
            "cpu_us": row.cpu,
            "value": row.figure.value if row.figure else None,
            "unit": row.figure.unit if row.figure else None,
            "least": row.figure.least if row.figure else None,
            "most": row.figure.most if row.figure else None,
            "met": row.figure.met if row.figure else None,
            "note": row.note,
        }
        for row in report.rows
    ]
    return json.dumps({"machine": report.machine, "how": report.how, "rows": rows}, indent=1, ensure_ascii=False) + "\n"


def _cells(row: Row) -> list[str]:
    figure = row.figure
    verdict = {True: "met", False: "NOT MET", None: ""}[figure.met if figure else None]
    return [
        row.workload,
        row.subject,
        f"{row.rate:,.0f}" if row.rate is not None else "",
        _short(row.p50),
        _short(row.p99),
        f"{row.cpu:.1f}" if row.cpu is not None else "",
        figure.reached if figure else "",
        figure.asked if figure else "",
        verdict,
    ]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"
