"""The picture: bars of requests per second, workload by workload, as an SVG that reads on light and dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from bench.figures import OURS, Row
from bench.table import Report

_WIDTH, _LABEL, _BAR, _GAP, _HEAD = 860, 230, 18, 5, 34
_SHOWN = 5  # workloads; a picture of everything shows nothing


def draw(report: Report) -> str:
    """The workloads that compare us with others; each is a group of bars with its own scale."""
    groups = [(workload, list(rows)) for workload, rows in groupby(report.rows, key=lambda row: row.workload)]
    compared = [
        (w, [r for r in rows if r.rate])
        for w, rows in groups
        if any(r.rate and not r.subject.startswith(OURS) for r in rows)
    ]
    parts: list[str] = []
    y = 64
    for workload, rows in compared[:_SHOWN]:
        y = _group(parts, y, workload, rows)
    height = y + 8
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="title">',
            '<title id="title">Requests per second, one worker each</title>',
            "<style>text{font:13px system-ui,sans-serif;fill:#1f2328}.head{font-weight:600}.dim{fill:#59636e}"
            ".ours{fill:#1a7f37}.other{fill:#8c959f}"
            "@media(prefers-color-scheme:dark){text{fill:#f0f6fc}.dim{fill:#9198a1}.ours{fill:#3fb950}"
            ".other{fill:#656c76}}</style>",
            '<text x="12" y="22" class="head">Requests per second, one worker each; ×: our rate over theirs</text>',
            f'<text x="12" y="42" class="dim">{escape(report.machine)}</text>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _group(parts: list[str], y: int, workload: str, rows: Sequence[Row]) -> int:
    """One workload; where the next begins."""
    parts.append(f'<text x="12" y="{y + 16}" class="head">{escape(workload)}</text>')
    y += _HEAD - 8
    most = max(row.rate or 0.0 for row in rows)
    room = _WIDTH - _LABEL - 190
    for row in rows:
        rate = row.rate or 0.0
        width = max(1.0, room * rate / most)
        kind = "ours" if row.subject.startswith(OURS) else "other"
        figure = f"  ({row.figure.value:.2f} ×)" if row.figure and row.figure.unit.startswith("×") else ""
        parts.append(f'<text x="{_LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(row.subject)}</text>')
        parts.append(f'<rect x="{_LABEL}" y="{y}" width="{width:.0f}" height="{_BAR}" rx="2" class="{kind}"/>')
        parts.append(f'<text x="{_LABEL + width + 8:.0f}" y="{y + 14}" class="dim">{rate:,.0f}{figure}</text>')
        y += _BAR + _GAP
    return y + 14
