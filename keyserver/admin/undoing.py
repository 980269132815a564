"""Deleting, and taking a delete back."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass

from keyserver.admin.acts import Acts
from keyserver.admin.problems import NotKnown, Unusable
from keyserver.model import Selection, Source
from keyserver.policy import Terms, purged_before
from keyserver.store.base import Store, Undo, Waiting

WINDOW = 600  # seconds in which a delete can be undone


@dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete took."""

    deleted: int  # entries
    undo: str | None  # what `undo` takes it back by; None: it cannot be
    undo_until: int | None  # Unix seconds
    fingerprint: str = ""  # where it was one certificate


@dataclass(frozen=True, slots=True)
class Restored:
    """What an undo brought back; the rest has expired, or something befell it meanwhile."""

    undo: str
    restored: int  # entries
    deleted: int  # entries that the delete had taken


class Undoing:
    """The operations; they raise as those of `Service` do."""

    def __init__(
        self,
        *,
        store: Store,
        find: Callable[..., Awaitable[str]],
        terms: Callable[[], Terms],
        clock: Callable[[], int],
        acts: Acts,
    ) -> None:
        """`find`: see `Service.find`."""
        self._store = store
        self._find = find
        self._terms = terms
        self._clock = clock
        self._note = acts.note

    @staticmethod
    def act() -> str:
        """An ID for one act: deletes that share it are undone together."""
        return secrets.token_hex(6)

    async def delete(
        self, term: str, source: Source | None = None, origin: str | None = None, *, act: str | None
    ) -> Deleted:
        """Delete a certificate's entries, of one source and origin where given; act None: for good.

        A whole fingerprint also keeps out what a search under way would bring, though nothing is cached yet."""
        fingerprint = await self._find(term, cached=False)
        now = self._clock()
        undo = _undo(act, now)
        count = await self._store.delete(fingerprint, now, source, origin, undo)
        self._note("delete", fingerprint, source=str(source or "any"), entries=count, undo=act or "no")
        return _deleted(count, undo, fingerprint)

    async def delete_matching(self, what: Selection, *, act: str | None) -> Deleted:
        """Delete every entry that matches; act None: for good. An empty selection is refused."""
        if what == Selection():
            raise Unusable("nothing selected: say which entries")
        now = self._clock()
        undo = _undo(act, now)
        count = await self._store.purge(what, now, undo)
        chosen = {name: str(value) for name, value in asdict(what).items() if value is not None and name != "text"}
        self._note("delete", **chosen, entries=count, undo=act or "no")
        return _deleted(count, undo)

    async def undo(self, id_: str) -> Restored:
        """Take a delete back."""
        now = self._clock()
        # A second later, since what ends in this very second has expired for lookups, and only then for a purge.
        done = await self._store.undo(id_, now, purged_before(now + 1, self._terms()))
        if done is None:
            raise NotKnown(f"nothing is there to undo by {id_[:64]!r}: done already, erased, or older than ten minutes")
        self._note("undo", undo=id_, entries=done.restored)
        return Restored(id_, done.restored, done.deleted)

    async def waiting(self) -> Sequence[Waiting]:
        """The deletes that can be undone, the latest first."""
        return await self._store.undos(self._clock())


def _undo(act: str | None, now: int) -> Undo | None:
    return Undo(act, now + WINDOW) if act else None


def _deleted(count: int, undo: Undo | None, fingerprint: str = "") -> Deleted:
    if undo is None or not count:
        return Deleted(count, None, None, fingerprint)
    return Deleted(count, undo.id, undo.until, fingerprint)
