"""What a delete reaches: so that nothing begun before it brings anything back (cache rule 7). Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from keyserver.model import Find, Kind, Name, Selection, Source
from keyserver.query import name_of
from keyserver.store.listing import needle

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


def delete_note(fingerprint: str, source: str | None, origin: str | None, names: Iterable[Name]) -> str:
    """That a certificate (of one source and origin, where given) was deleted, and the names that it touched."""
    return json.dumps({"fingerprint": fingerprint, "source": source, "origin": origin, "names": sorted(names)})


def purge_note(what: Selection | None) -> str:
    """That a selection was purged; None: everything."""
    return json.dumps({"purge": None if what is None else asdict(what)})


def matches(what: Selection, find: Find) -> bool:
    """Would this find be an entry that `what` selects?"""
    proof = find.certificate.proof
    if what.text is not None and not needle(what.text).fits(proof.fingerprint, proof.identities, proof.index):
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

    @classmethod
    def of(cls, notes: Sequence[str], number: int) -> Later:
        """From what `delete_note` and `purge_note` wrote, of so many deletes: where some were tidied away, everything
        counts as deleted."""
        named: list[tuple[str, str | None, str | None]] = []
        names: set[Name] = set()
        purges: list[Selection] = []
        everything = len(notes) < number
        for text in notes:
            what = json.loads(text)
            if "fingerprint" in what:
                named.append((what["fingerprint"], what["source"], what["origin"]))
                names.update(what["names"])
            elif what["purge"] is None:
                everything = True
            else:
                purges.append(Selection(**what["purge"]))
        return cls(tuple(named), frozenset(names), tuple(purges), everything)

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
