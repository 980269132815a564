"""Where a configuration came from, so that it can be read again, and each value shown with its origin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from keyserver.config.problem import Problem


class Origin(StrEnum):
    """What said a value; the later ones win."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    COMMAND_LINE = "command line"


@dataclass(frozen=True, slots=True)
class Where:
    """The origin of one value: the file's name, the environment's variable, or the option."""

    origin: Origin
    name: str = ""


def no_mistakes(upstream: Any) -> Iterable[Problem]:
    """Nothing is known of upstreams' protocols."""
    return ()


@dataclass(frozen=True, slots=True)
class Sources:
    """What `loading.load` was given, and what it found where. origins: by key as people write it; others are
    defaults."""

    file: Path | None = None
    settings: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    upstreams: tuple[str, ...] = ()
    mistakes: Callable[[Any], Iterable[Problem]] = no_mistakes
    origins: Mapping[str, Where] = field(default_factory=dict)
