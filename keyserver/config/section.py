"""What every section of the configuration is made of: keys with a default and a meaning."""

from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Restart(Enum):
    """Which changes of a key need a restart."""

    NEVER = 0
    ALWAYS = 1
    SWITCHED = 2  # from something to nothing, or the other way


def key(default: Any, meaning: str, *, restart: Restart = Restart.NEVER) -> Any:
    """One key: its default as one would write it in the file, and what it does."""
    return Field(default=default, description=meaning, json_schema_extra={_RESTART: restart.value})


def required(meaning: str) -> Any:
    """A key that has no default."""
    return Field(description=meaning)


def restart_of(field: FieldInfo) -> Restart:
    """Which changes of this key need a restart."""
    marks = field.json_schema_extra
    return Restart(marks.get(_RESTART, 0)) if isinstance(marks, dict) else Restart.NEVER


_RESTART = "restart"


class Section(BaseModel):
    """A table of the file: frozen, unknown keys forbidden, defaults read by the same readers."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
