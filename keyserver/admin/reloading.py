"""Reading the configuration again: what an administrator is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from keyserver.admin.problems import Refusal, Unusable
from keyserver.config.problem import Problem
from keyserver.config.settings import KeyChange


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What became of it. `changed` holds by now, everywhere; `restart` needs a restart, and keeps its old value."""

    file: str
    changed: tuple[KeyChange, ...]
    restart: tuple[KeyChange, ...]

    @property
    def text(self) -> str:
        """The same in one line, without values."""
        changed = ", ".join(change.key for change in self.changed) or "nothing"
        needs = ", ".join(change.key for change in self.restart)
        return f"changed: {changed}" + (f"; needs a restart: {needs}" if needs else "")


class Mistaken(Unusable):
    """The configuration has mistakes, so that nothing changed."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        count = len(problems)
        super().__init__(f"{file}: {count} mistake{'' if count == 1 else 's'}; nothing was changed")
        self.mistakes = tuple(problems)


class Reloads(Protocol):
    """Who reads the configuration again."""

    async def reload(self) -> Reloaded:
        """All or nothing. When it returns, no process answers by the old rules. Raises Mistaken, Refusal."""


class NoService:
    """Where no service runs there is nothing to reload."""

    async def reload(self) -> Reloaded:
        raise Refusal("no service runs: it reads its configuration when it is started")
