"""Is the database still the file that was opened, and may anything be written beside it?

SQLite goes on happily with a file that was deleted or replaced under it: everything it writes then is lost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

Identity = tuple[int, int] | None
"""Device and inode; None where there is no such file."""


@dataclass(frozen=True, slots=True)
class Presence:
    """The files that a store was opened with."""

    files: tuple[tuple[Path, Identity], ...]

    @classmethod
    def of(cls, path: Path) -> Presence:
        """The database and its log as they are now: open it first, which makes the log."""
        return cls(tuple((file, _identity(file)) for file in (path, log_of(path))))

    def trouble(self) -> str:
        """Empty, or what became of them; two system calls, some microseconds."""
        for file, known in self.files:
            if known is not None and (now := _identity(file)) != known:
                how = "was deleted" if now is None else "was replaced"
                return (
                    f"{file} {how} while it was open: nothing that is written now would last; "
                    "put it back, or restart the service"
                )
        return ""


def log_of(path: Path) -> Path:
    """The write-ahead log beside a database."""
    return path.with_name(f"{path.name}-wal")


def unwritable(path: Path) -> bool:
    """May nothing be made beside this database, and is nobody at work on it?

    The log is there while anybody has the database open, and after a crash: then the file alone is not all of it.
    """
    return not os.access(path.parent, os.W_OK) and not log_of(path).exists()


def hint(path: Path) -> str:
    """What else to say where a database cannot be opened."""
    if not os.access(path.parent, os.W_OK) and log_of(path).exists():
        return f" ({log_of(path).name} is in use or left of a crash, and {path.parent} cannot be written)"
    return ""


def _identity(file: Path) -> Identity:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
