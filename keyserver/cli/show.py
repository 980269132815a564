"""How results look on a terminal. Names inside certificates are hostile: nothing unprintable reaches the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keyserver.clocks import Clocks

_COLOURS = {
    **dict.fromkeys(("found", "hit", "HIT", "fresh", "valid", "closed", "local", "kept", "new"), "green"),
    **dict.fromkeys(("absent", "negative", "stale", "STALE", "expired", "half-open", "held", "not found"), "yellow"),
    **dict.fromkeys(("failed", "blocked", "revoked", "open", "refused", "busy", "unavailable", "deadline"), "red"),
    "paused": "red",
    **dict.fromkeys(("MISS", "searched", "joined"), "cyan"),
}
_WIDE = 200  # columns when nobody looks: nothing is cut or wrapped in a pipe


def console(*, stderr: bool = False) -> Console:
    """Where results go: as wide as the terminal, or wide enough for everything in a pipe."""
    found = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDE)


def print_json(value: Any) -> None:
    """A result for machines: ASCII only, so that no terminal is led astray."""
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def safe(text: object) -> str:
    """Text without anything that moves a cursor or turns the writing direction."""
    return "".join(c if c.isprintable() else "\ufffd" for c in str(text))


def toml(value: object) -> str:
    """A setting's value as one writes it in the file; None: there is no such table."""
    return "none" if value is None else safe(json.dumps(value, ensure_ascii=False))


def word(text: object, style: str = "") -> Text:
    """Plain text, never markup, coloured where its word has a colour."""
    return Text(safe(text), style=style or _COLOURS.get(str(text), ""))


def grid(*columns: str) -> Table:
    """A table without frame; the columns called fingerprint keep their width."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        narrow = column in ("fingerprint", "time", "source", "status", "state")
        table.add_column(column, no_wrap=narrow, overflow="fold", justify="right" if column in _NUMBERS else "left")
    return table


_NUMBERS = frozenset({"time", "priority", "found", "absent", "failed", "p50", "p99"})


def when(instant: int | None, now: float | None = None) -> str:
    """An instant as people say it: `2026-11-24 17:03 (in 23 h)`; None is never."""
    if instant is None:
        return "never"
    away = instant - (Clocks.system().now() if now is None else now)
    stamp = time.strftime("%Y-%m-%d %H:%M", time.localtime(instant)) if abs(instant) < 1 << 40 else str(instant)
    return f"{stamp} ({span(away)})"


def span(seconds: float) -> str:
    """`in 23 h`, `5 min ago`, `now`."""
    size = abs(seconds)
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if size >= unit:
            return f"in {size // unit:.0f} {name}" if seconds > 0 else f"{size // unit:.0f} {name} ago"
    return "now"


def steps(rows: Sequence[dict[str, Any]]) -> Table:
    """The trace of a lookup: when, who, what, why."""
    table = grid("time", "who", "what", "why")
    for row in rows:
        table.add_row(f"{row['at']:.1f} ms", word(row["who"], "bold"), word(row["what"]), word(row["why"], "dim"))
    return table


def cluster(rows: Sequence[dict[str, Any]]) -> Table:
    """The nodes that share a cache, one line for each, and one for each setting that differs."""
    table = grid("node", "version", "since", "last seen", "lag", "role", "differs in")
    for row in rows:
        differs = [f"{d['key']}: {d['there'] or 'none'} there, {d['here'] or 'none'} here" for d in row["differences"]]
        role = "leads" if row["leads"] else "follows"
        table.add_row(
            word(row["name"] + (" (this one)" if row["here"] else ""), "bold"),
            word(row["version"]),
            when(row["since"]),
            when(row["seen"]),
            f"{row['lag']:.1f} s",
            word(role if row["living"] else "gone", "" if row["living"] else "red"),
            word("; ".join(differs), "yellow"),
        )
    return table


def entries(rows: Sequence[dict[str, Any]], *, header: bool = True) -> Table:
    """Cache entries, one line each."""
    table = grid("fingerprint", "identity", "source", "origin", "cached", "expires", "status")
    table.show_header = header
    for row in rows:
        identities = row["identities"]
        more = f" +{len(identities) - 1}" if len(identities) > 1 else ""
        table.add_row(
            word(row["fingerprint"]),
            word((identities[0] if identities else "") + more),
            word(row["source"]),
            word(row["origin"]),
            when(row["cached_at"]),
            when(row["expires_at"]),
            word("approved" if row["approved"] and row["status"] == "fresh" else row["status"]),
        )
    return table
