"""The progress bar of long work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def bar() -> Progress:
    """A bar on stderr, on terminals only, gone when it is done."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from keyserver.cli import show

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    error_console = show.console(stderr=True)
    return Progress(*columns, console=error_console, transient=True, disable=not error_console.is_terminal)
