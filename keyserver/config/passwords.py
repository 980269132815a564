"""Passwords that the configuration names by file."""

from __future__ import annotations

import logging
from pathlib import Path

_log = logging.getLogger(__name__)


def read_password(key: str, file: Path) -> bytes:
    """What stands in a password file, without space around it. A file that everybody may read is remarked upon.

    Raises OSError. `key`: of the configuration, for the remark."""
    mode = file.stat().st_mode & 0o777
    if mode & 0o007:
        _log.warning("%s: everybody on this machine may read or change %s (mode %04o); make it 0600", key, file, mode)
    return file.read_bytes().strip()
