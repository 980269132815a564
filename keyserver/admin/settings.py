"""The running configuration as administrators see it, beside the file as it is now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from keyserver.config import Config, ConfigError, load_again
from keyserver.config.problem import Problem
from keyserver.config.settings import KeyChange, Setting, changes_of, settings_of


@dataclass(frozen=True, slots=True)
class FileNow:
    """What a reload would do now. `name`: empty where no file was read."""

    name: str
    mistakes: tuple[Problem, ...] = ()
    changes: tuple[KeyChange, ...] = ()


@dataclass(frozen=True, slots=True)
class RunningSettings:
    """Every key that holds now, in the order of the file."""

    settings: tuple[Setting, ...]
    file: FileNow


@dataclass(frozen=True, slots=True)
class Settings:
    """Shows them. config: the one that holds now."""

    config: Callable[[], Config]

    async def show(self) -> RunningSettings:
        """Reads the file as it is now; no secret is shown."""
        config = self.config()
        return RunningSettings(settings_of(config), await asyncio.to_thread(_file_now, config))


def _file_now(config: Config) -> FileNow:
    if config.sources is None:
        return FileNow("")
    name = str(config.sources.file or "")
    try:
        return FileNow(name, changes=changes_of(config, load_again(config)))
    except ConfigError as error:
        return FileNow(name, mistakes=error.problems)
