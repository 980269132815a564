"""The same act for many entries: for some that were picked, or for all that a filter shows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

from keyserver.admin.explaining import Explaining
from keyserver.admin.problems import NotKnown, Problem
from keyserver.admin.resources import EntryResource
from keyserver.admin.service import Service
from keyserver.admin.undoing import Undoing
from keyserver.model import Kind, Selection, Source
from keyserver.store.listing import Filter

T = TypeVar("T")

MOST = 1000  # entries that one act goes over; by source, upstream, domain, text and kind alone any number is deleted
MOST_ASKED = 100  # certificates for which one act asks upstreams
_AT_ONCE = 4  # of these
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")


class Act(StrEnum):
    """What can be done to many."""

    DELETE = "delete"  # can be undone
    REFRESH = "refresh"
    APPROVE = "approve"
    KEEP = "keep"
    BLOCK = "block"
    PURGE = "purge"  # a delete for good


@dataclass(frozen=True, slots=True)
class Picked:
    """One entry that is meant."""

    fingerprint: str
    source: Source
    origin: str

    @property
    def id(self) -> str:
        """As a field of a form."""
        return f"{self.fingerprint}.{self.source}.{self.origin}"

    @classmethod
    def of(cls, entry: EntryResource) -> Picked:
        """A listing's row."""
        return cls(entry.fingerprint, Source(entry.source), entry.origin)

    @classmethod
    def read(cls, text: str) -> Picked | None:
        """What `id` wrote; None for anything else."""
        fingerprint, _, rest = text.partition(".")
        source, _, origin = rest.partition(".")
        if source not in list(Source) or not _FINGERPRINT.fullmatch(fingerprint):
            return None
        return cls(fingerprint, Source(source), origin)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an act. done: entries, or certificates where the act is for those."""

    done: int
    failed: int = 0  # could not be done, or are left for another time
    undo: str | None = None
    undo_until: int | None = None  # Unix seconds
    more: bool = False  # others match, and were left


class Bulk:
    """The acts; each raises as the operation that it repeats, if nothing of it could be done."""

    def __init__(self, service: Service, undoing: Undoing, explaining: Explaining) -> None:
        self._service = service
        self._undoing = undoing
        self._explaining = explaining

    async def matching(self, what: Filter, most: int = MOST) -> tuple[Sequence[Picked], bool]:
        """The first entries that a filter shows, and whether there are more."""
        found: list[Picked] = []
        cursor: str | None = None
        while len(found) < most:
            page = await self._service.list(what, most - len(found), cursor)
            found += map(Picked.of, page.entries)
            cursor = page.next
            if cursor is None:
                return found, False
        return found, True

    async def all_that_match(self, act: Act, what: Filter, undo: str | None = None) -> Outcome:
        """Do it to all that a filter shows, to `MOST` at once. undo: an earlier delete's, for one that joins it."""
        only = what == Filter(what.wanted) and what.wanted != Selection()
        if only and act in (Act.DELETE, Act.PURGE):
            undo = (undo or self._undoing.act()) if act is Act.DELETE else None
            done = await self._undoing.delete_matching(what.wanted, act=undo)
            return Outcome(done.deleted, undo=done.undo, undo_until=done.undo_until)
        picked, more = await self.matching(what)
        return replace(await self.these(act, picked, undo), more=more)

    async def these(self, act: Act, picked: Sequence[Picked], undo: str | None = None) -> Outcome:
        """Do it to these; `undo` as above."""
        if act in (Act.DELETE, Act.PURGE):
            return await self._delete(picked, (undo or self._undoing.act()) if act is Act.DELETE else None)
        if act is Act.APPROVE:
            return await _each(picked, self._approve)
        fingerprints = list(dict.fromkeys(one.fingerprint for one in picked))
        if act is Act.REFRESH:
            return await self._refresh(fingerprints)
        single: Mapping[Act, Callable[[str], Awaitable[object]]] = {
            Act.KEEP: self._service.keep,
            Act.BLOCK: self._service.block,
        }
        return await _each(fingerprints, single[act])

    async def files(self, picked: Iterable[Picked]) -> AsyncIterator[tuple[Kind, bytes]]:
        """The certificates of these, each once; what is gone meanwhile is left out."""
        for fingerprint in dict.fromkeys(one.fingerprint for one in picked):
            try:
                file = await self._explaining.download(fingerprint)
            except NotKnown:
                continue
            yield file.kind, file.octets

    async def _delete(self, picked: Sequence[Picked], act: str | None) -> Outcome:
        outcome = Outcome(0)
        for one in picked:
            done = await self._undoing.delete(one.fingerprint, one.source, one.origin, act=act)
            outcome = Outcome(
                outcome.done + done.deleted,
                undo=done.undo or outcome.undo,
                undo_until=done.undo_until or outcome.undo_until,
            )
        return outcome

    async def _refresh(self, fingerprints: Sequence[str]) -> Outcome:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def ask(fingerprint: str) -> bool:
            async with turns:
                try:
                    outcomes = (await self._service.refresh(fingerprint)).outcomes.values()
                except Problem:
                    return False
                return any(outcome.startswith("found") for outcome in outcomes)

        found = sum(await asyncio.gather(*map(ask, fingerprints[:MOST_ASKED])))
        return Outcome(found, len(fingerprints) - found)

    async def _approve(self, one: Picked) -> None:
        """For the addresses for which it waits; else for the only one for which an approval has an effect."""
        entries = (await self._service.show(one.fingerprint)).entries
        waiting: list[str | None] = [
            v.address for e in entries if Picked.of(e) == one for v in e.vouchers if v.held and not v.approved
        ]
        upstream = one.origin if one.source is Source.KEYSERVER else None
        for address in waiting or [None]:
            await self._service.approve(one.fingerprint, address, one.source, upstream)


async def _each(things: Sequence[T], do: Callable[[T], Awaitable[object]]) -> Outcome:
    """One after the other; what is refused counts as failed. Raises the last refusal where nothing could be done."""
    done, trouble = 0, None
    for thing in things:
        try:
            await do(thing)
            done += 1
        except Problem as problem:
            trouble = problem
    if trouble is not None and not done:
        raise trouble
    return Outcome(done, len(things) - done)
