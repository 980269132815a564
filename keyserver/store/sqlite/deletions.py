"""What was deleted since a search began: so that nothing begun before a delete brings anything back (cache rule 7)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from keyserver.model import Find, Kind, Name, Selection, Source
from keyserver.query import name_of

KEEP = 3600  # seconds; no search lives longer, and what began before the oldest kept delete is refused as a whole


def names_of_fingerprint(fingerprint: str) -> frozenset[Name]:
    """The names that follow from a fingerprint alone, of either kind and OpenPGP version (RFC 9580 section 5.5.4)."""
    key_id = fingerprint[-16:] if len(fingerprint) == 40 else fingerprint[:16]
    return frozenset(
        (
            name_of(Kind.OPENPGP, "fpr", fingerprint),
            name_of(Kind.X509, "fpr", fingerprint),
            name_of(Kind.OPENPGP, "kid", key_id),
        )
    )


def matches(what: Selection, find: Find) -> bool:
    """Would this find be an entry that `what` selects?"""
    proof = find.certificate.proof
    if what.text is not None:
        texts = [user_id.text for user_id in proof.user_ids]
        if proof.x509 is not None:
            texts += [proof.x509.subject, *proof.index]
        text = what.text.casefold()
        if text.upper() not in proof.fingerprint and not any(text in t.casefold() for t in texts):
            return False
    if what.domain is not None:
        suffix = f"@{what.domain.lower()}"
        if not any(":addr:" in name and name.endswith(suffix) for name in proof.index):
            return False
    return (
        what.source in (None, find.source)
        and what.kind in (None, proof.kind)
        and (what.upstream is None or (find.source is Source.KEYSERVER and find.origin == what.upstream))
    )


@dataclass(frozen=True, slots=True)
class Later:
    """The deletes that came after a search began."""

    named: tuple[tuple[str, str | None, str | None], ...] = ()  # fingerprint, source, origin
    names: frozenset[Name] = frozenset()
    purges: tuple[Selection, ...] = ()
    everything: bool = False

    def hit(self, find: Find) -> bool:
        """Was this find named by one of them?"""
        return (
            self.everything
            or any(
                fingerprint == find.certificate.fingerprint
                and source in (None, find.source)
                and origin in (None, find.origin)
                for fingerprint, source, origin in self.named
            )
            or any(matches(what, find) for what in self.purges)
        )

    def hit_name(self, name: Name) -> bool:
        """Must a record of this name go? A purge takes every record begun before it: only a search more."""
        return self.everything or bool(self.purges) or name in self.names


def count(db: sqlite3.Connection) -> int:
    """The deletion counter."""
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'deletion'").fetchone()
    return row[0] if row else 0


def note_delete(
    db: sqlite3.Connection, now: int, fingerprint: str, source: str | None, origin: str | None, names: Iterable[Name]
) -> None:
    """Write down that a certificate (of one source and origin, where given) was deleted, and the names it touched."""
    what = {"fingerprint": fingerprint, "source": source, "origin": origin, "names": sorted(names)}
    _note(db, now, what)


def note_purge(db: sqlite3.Connection, now: int, what: Selection | None) -> None:
    """Write down that a selection was purged; None: everything."""
    _note(db, now, {"purge": None if what is None else asdict(what)})


def _note(db: sqlite3.Connection, now: int, what: dict[str, Any]) -> None:
    db.execute("DELETE FROM deletion WHERE at < ?", (now - KEEP,))
    db.execute("INSERT INTO deletion (at, what) VALUES (?, ?)", (now, json.dumps(what)))


def later_than(db: sqlite3.Connection, begun: int) -> Later:
    """The deletes after `begun`; where some of them were tidied away, everything counts as deleted."""
    last = count(db)
    if last <= begun:
        return Later()
    named: list[tuple[str, str | None, str | None]] = []
    names: set[Name] = set()
    purges: list[Selection] = []
    rows = db.execute("SELECT what FROM deletion WHERE id > ?", (begun,)).fetchall()
    everything = len(rows) < last - begun
    for (text,) in rows:
        what = json.loads(text)
        if "fingerprint" in what:
            named.append((what["fingerprint"], what["source"], what["origin"]))
            names.update(what["names"])
        elif what["purge"] is None:
            everything = True
        else:
            purges.append(Selection(**what["purge"]))
    return Later(tuple(named), frozenset(names), tuple(purges), everything)
