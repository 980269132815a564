"""What is wrong with a configuration: every mistake is one value and one line."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_USERINFO = re.compile(r"//[^/\s]*@")  # up to the last @: a password may hold one
_SECRET = re.compile(r"pass|secret|token|credential|tls_key|private", re.IGNORECASE)
_SHOWN = 80  # characters of a value


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the key as people write it, its value (already fit to be shown), and what is accepted."""

    key: str
    value: str
    accepted: str
    where: str = ""  # the file, environment variable or option that it came from

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value else ""
        where = f" ({self.where})" if self.where else ""
        return f"{self.key}{shown}{where}: {self.accepted}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` holds every mistake in it, `rest` the `Config` without them."""

    def __init__(self, problems: Sequence[Problem], rest: object = None) -> None:
        self.problems = tuple(problems)
        self.rest = rest
        super().__init__("\n".join(str(problem) for problem in self.problems))


def redacted(text: str) -> str:
    """Without the user and password that a URL may hold."""
    return _USERINFO.sub("//(not shown)@", text)


def show(key: str, value: Any) -> str:
    """A value for a message: short, on one line, without control characters, and never a secret."""
    if _SECRET.search(key.rpartition(".")[2]) and not key.endswith("_file"):
        return "(not shown)"
    if isinstance(value, str) and "PRIVATE KEY" in value:
        return "(a private key, not shown)"
    try:
        text = json.dumps(value, default=str)
    except (ValueError, RecursionError):
        text = "(not shown)"
    text = redacted(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
