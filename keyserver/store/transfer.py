"""From one store to another, of whatever kind: everything is copied, nothing is overwritten, and all of it is compared.

Both are walked in the order of their keys, a batch at a time. What the target has already must be the source's, so a
copy that was broken off goes on where it was, and a store in use by others is left as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol

from keyserver.store import inviting, noted

Key = tuple[str | int | bytes, ...]
"""What a row is found by; ordered by its UTF-8 octets or numbers, column by column."""

Row = tuple[object, ...]
"""Everything else of it: equal in two stores where it means the same."""

BATCH = 64  # rows: certificates of 1 MiB are the largest
NARROW = 1000  # of those of which there may be millions, and which are short


class Part(StrEnum):
    """What is copied, one part after the other. Deletes that can still be undone are not: they last ten minutes."""

    BLOCKS = "blocks"
    REVOCATIONS = "revocations"
    ENTRIES = "entries"  # with octets, names and vouchers
    RECORDS = "records"
    TOKENS = "tokens"
    SESSIONS = "sessions"
    ACTS = "acts"
    INVITATIONS = "invitations"  # and consents
    PAUSES = "pauses"
    TOLD = "told"
    HISTORY = "history"  # its key, and since when it is whole
    EVENTS = "events"
    PAST_COPIES = "past copies"
    PAST_SPANS = "spans of past copies"
    PAST_NAMES = "past names"
    WORDS = "words of upstreams"
    ANSWERING = "what answers"
    PAST_SETTINGS = "past settings"
    RECEIVERS = "receivers"
    RECIPIENTS = "recipients"
    PACES = "paces of upstreams"


@dataclass(frozen=True, slots=True)
class Table:
    """A part whose rows are those of one table, in both kinds of store: its columns, the key's first."""

    name: str
    key: tuple[str, ...]
    values: tuple[str, ...]
    flags: frozenset[str] = frozenset()  # true or false, whatever the database has for it

    @property
    def columns(self) -> tuple[str, ...]:
        """All of them."""
        return self.key + self.values

    def split(self, row: Sequence[object]) -> tuple[Key, Row]:
        """Key and rest of a row of `columns`."""
        named = zip(self.columns, row, strict=True)
        values = tuple(bool(value) if column in self.flags else value for column, value in named)
        return values[: len(self.key)], values[len(self.key) :]  # type: ignore[return-value]  # keys are never NULL


TABLES: Mapping[Part, Table] = {
    Part.BLOCKS: Table("block", ("fingerprint",), ("at", "reason")),
    Part.REVOCATIONS: Table("revocation", ("fingerprint",), ("octets",)),
    Part.RECORDS: Table("record", ("name", "upstream"), ("found", "at", "asked_at"), frozenset({"found"})),
    Part.TOKENS: Table("token", ("id",), ("name", "role", "digest", "made_at", "made_by")),
    Part.SESSIONS: Table("session", ("digest",), ("token", "begun_at", "used_at", "place")),
    Part.ACTS: Table(
        "act",
        ("number",),
        ("at", "who", "way", "place", "act", "certificate", "facts", "refusal"),
        frozenset({"refusal"}),
    ),
    Part.INVITATIONS: Table("invitation", ("number",), ("confirm", "withdraw", *inviting.COLUMNS)),
    Part.PAUSES: Table("pause", ("upstream",), ("at",)),
    Part.TOLD: Table("told", ("upstream",), ("counts",)),
    Part.HISTORY: Table("history_copied", ("single",), ("key", "whole")),
    Part.EVENTS: Table(
        "event",
        ("number",),
        (
            *("at", "last", "what", "fingerprint", "kind", "source", "origin", "address", "who", "facts"),
            *("cached", "vouchers", "chained", "detail"),
        ),
        frozenset({"chained"}),
    ),
    Part.PAST_COPIES: Table("past_copy", ("digest",), ("octets",)),
    Part.PAST_SPANS: Table("past_span", ("fingerprint", "source", "origin", "upto"), ("copy",)),
    Part.PAST_NAMES: Table("past_name", ("name", "fingerprint"), ()),
    Part.WORDS: Table("word", ("hash", "upstream", "since"), ("last", "word", "gone")),
    Part.ANSWERING: Table("answering", ("name", "view"), ("fingerprint", "at")),
    Part.PAST_SETTINGS: Table("past_settings", ("number",), ("at", "settings")),
    Part.RECEIVERS: Table("delivery", ("receiver",), ("number",)),
    Part.RECIPIENTS: Table("recipient", noted.COLUMNS[:1], noted.COLUMNS[1:], frozenset({"lost"})),
    Part.PACES: Table("pace", ("day", "upstream", "bucket"), ("n",)),
}
"""All but entries: key (fingerprint, source, origin), row (`model.Entry`, {name: rank})."""


class Transfer(Protocol):
    """A store's rows as they are, for copying. Raises StoreError."""

    async def count(self, part: Part) -> int:
        """How many rows there are; may be a few seconds old."""

    async def read(self, part: Part, after: Key | None, upto: Key | None, limit: int) -> Sequence[tuple[Key, Row]]:
        """Rows behind one key (None: from the first) up to another, that one too (None: to the last), in order."""

    async def write(self, part: Part, rows: Sequence[tuple[Key, Row]]) -> None:
        """Add rows whose keys are not there, all or none; counted as if they had come in the usual way."""

    async def finish(self) -> None:
        """What was written is on disk, and every process on this store drops what it remembers."""

    def kept(self, part: Part, row: Row) -> Row:
        """A row as this store would give it back, where its database does not take all text."""


class Differs(Exception):
    """The stores do not hold the same; one clear line."""


Progress = Callable[[Part, int], None]
"""Hears of rows that are done."""


async def check(source: Transfer, target: Transfer) -> None:
    """Nothing is in the target that the source has not, or has otherwise. Raises Differs."""
    for part in Part:
        await _Walk(part, source, target, _ignore).run(lambda _part, _count: None, unfinished=True)


async def copy(source: Transfer, target: Transfer, progress: Progress) -> None:
    """Write what the target lacks: `check` before. Raises Differs."""
    for part in Part:
        await _Walk(part, source, target, partial(target.write, part)).run(progress)
    await target.finish()


async def verify(source: Transfer, target: Transfer, progress: Progress) -> None:
    """Both hold the same, to the octet. Raises Differs."""
    for part in Part:
        await _Walk(part, source, target, partial(_refuse, part)).run(progress)


@dataclass(frozen=True, slots=True)
class _Walk:
    """Through one part of both stores at once. missing: what is done about rows that the target lacks."""

    part: Part
    source: Transfer
    target: Transfer
    missing: Callable[[Sequence[tuple[Key, Row]]], Awaitable[None]]

    async def run(self, progress: Progress, *, unfinished: bool = False) -> None:
        """unfinished: it ends with the target's last row."""
        after: Key | None = None
        batch = NARROW if self.part in (Part.EVENTS, Part.WORDS, Part.RECIPIENTS) else BATCH
        while rows := await self.source.read(self.part, after, None, batch):
            if unfinished and not await self.target.read(self.part, after, None, 1):
                return
            last = rows[-1][0]
            there = dict(await self.target.read(self.part, after, last, len(rows) + 1))
            self._same(rows, there)
            if lacking := [(key, row) for key, row in rows if key not in there]:
                await self.missing(lacking)
            progress(self.part, len(rows))
            after = last
        if further := await self.target.read(self.part, after, None, 1):
            raise Differs(f"{self.part}: {shown(further[0][0])} is not in the store that is copied from")

    def _same(self, rows: Sequence[tuple[Key, Row]], there: Mapping[Key, Row]) -> None:
        wanted = {key: self.target.kept(self.part, row) for key, row in rows}
        for key, row in there.items():
            if key not in wanted:
                raise Differs(f"{self.part}: {shown(key)} is not in the store that is copied from")
            if row != wanted[key]:
                raise Differs(f"{self.part}: {shown(key)} is not the same in both stores")


async def _ignore(_rows: Sequence[tuple[Key, Row]]) -> None:
    """It will come."""


async def _refuse(part: Part, rows: Sequence[tuple[Key, Row]]) -> None:
    raise Differs(f"{part}: {shown(rows[0][0])} is missing in the store that was copied to")


def shown(key: Key) -> str:
    """A key for a message."""
    return " ".join(value.hex() if isinstance(value, bytes) else str(value) for value in key)
