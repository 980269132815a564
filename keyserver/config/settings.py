"""The configuration as administrators look at it: each key with its value, where that comes from, and what is accepted;
and how another configuration differs. No secret is in either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from keyserver.config.kinds import Tables
from keyserver.config.loading import TABLES, models, reader_of, rows_of
from keyserver.config.models import Config
from keyserver.config.problem import redacted
from keyserver.config.section import Restart, Section, restart_of
from keyserver.config.sources import Origin, Sources, Where


@dataclass(frozen=True, slots=True)
class Setting:
    """One key. Values are as one would write them in the file; `restart`: a change of it needs one."""

    key: str
    value: Any
    origin: str
    where: str
    default: Any
    accepted: str
    meaning: str
    restart: bool


@dataclass(frozen=True, slots=True)
class KeyChange:
    """How two configurations differ in one key, or in a whole table of the file (None: there is none)."""

    key: str
    before: Any
    after: Any
    restart: bool


def settings_of(config: Config) -> tuple[Setting, ...]:
    """Every key of parts that exist."""
    origins = (config.sources or Sources()).origins
    found = []
    for prefix, row in _rows(config).items():
        for name, field in _fields(row):
            key = f"{prefix}.{name}"
            reader = reader_of(type(row), name)
            where = origins.get(key, Where(Origin.DEFAULT))
            found.append(
                Setting(
                    key=key,
                    value=_spelled(row, name),
                    origin=where.origin.value,
                    where=where.name,
                    default=None if field.is_required() else field.default,
                    accepted=reader.accepts if reader else "",
                    meaning=str(field.description),
                    restart=restart_of(field) is Restart.ALWAYS,
                )
            )
    return tuple(found)


def changes_of(before: Config, after: Config) -> tuple[KeyChange, ...]:
    """Every key whose value differs, in the order of the declaration."""
    old, new = _rows(before), _rows(after)
    found = []
    for prefix in dict.fromkeys((*old, *new)):
        one, other = old.get(prefix), new.get(prefix)
        if one is None or other is None:
            there = [None if row is None else "a table" for row in (one, other)]
            found.append(KeyChange(prefix, there[0], there[1], restart=prefix.startswith("view[")))
            continue
        for name, field in _fields(one):
            if getattr(one, name) != getattr(other, name):
                needs = _needs_restart(field, getattr(one, name), getattr(other, name))
                found.append(KeyChange(f"{prefix}.{name}", _spelled(one, name), _spelled(other, name), needs))
    return tuple(found)


def at_run_time(before: Config, after: Config) -> Config:
    """`after`, as far as it can be had without a restart: what cannot change has the value of `before`."""
    new = _rows(after)
    mixed = {prefix: _mixed(row, new.get(prefix, row)) for prefix, row in _rows(before).items()}
    sections = {name: row for name, row in mixed.items() if name in models() and name not in TABLES}
    views = tuple(mixed[f"view[{view.name}]"] for view in before.view)
    result = after.model_copy(update={**sections, "view": views})
    return result.with_sources(after.sources)


def _mixed(before: Section, after: Section) -> Section:
    kept = {
        name: getattr(before, name)
        for name, field in _fields(before)
        if _needs_restart(field, getattr(before, name), getattr(after, name))
    }
    return after.model_copy(update=kept)


def _needs_restart(field: FieldInfo, before: Any, after: Any) -> bool:
    match restart_of(field):
        case Restart.ALWAYS:
            return bool(before != after)
        case Restart.SWITCHED:
            return (before is None) != (after is None)
    return False


def _rows(config: Config) -> dict[str, Section]:
    """Each table of the file by the name that messages give it."""
    found: dict[str, Section] = {}
    for name in models():
        found |= {f"{name}[{row.name}]" if name in TABLES else name: row for row in rows_of(config, name)}
    return found


def _fields(row: Section) -> Iterator[tuple[str, FieldInfo]]:
    """Keys that hold a value; tables below a section have rows of their own."""
    for name, field in type(row).model_fields.items():
        if not isinstance(reader_of(type(row), name), Tables):
            yield name, field


def _spelled(row: Section, name: str) -> Any:
    """A value as one would write it in the file."""
    reader, value = reader_of(type(row), name), getattr(row, name)
    spelled = reader.spell(value) if reader is not None else value
    return redacted(spelled) if isinstance(spelled, str) else spelled
