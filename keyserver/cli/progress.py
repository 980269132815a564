"""The progress bar of long work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def bar() -> Progress:
    """A bar of octets on stderr, on terminals only, gone when it is done."""
    from rich.progress import DownloadColumn

    return _bar(DownloadColumn())


def counting() -> Progress:
    """A bar of things that are counted, as above."""
    from rich.progress import MofNCompleteColumn

    return _bar(MofNCompleteColumn())


def _bar(amount: ProgressColumn) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from keyserver.cli import show

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), amount, TimeRemainingColumn())
    error_console = show.console(stderr=True)
    return Progress(*columns, console=error_console, transient=True, disable=not error_console.is_terminal)
