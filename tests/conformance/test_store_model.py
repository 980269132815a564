"""The store against a model of a few dictionaries: random puts, looks, deletes, undos, blocks, purges, restarts."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from keyserver.model import Find, Selection, Source, Voucher
from keyserver.store.base import Stored, Undo, Undone
from support.listed import listed
from tests.conformance.conftest import EXAMPLES, KINDS, Backend, Made, addr, fingerprint_of, index_of, merge, said

T = TypeVar("T")
Place = tuple[str, Source, str]

NUMBERS = st.integers(1, 3)
TEXTS = st.sets(st.sampled_from(["ann@a.example", "bea@b.example", "cid@a.example"]), max_size=2)
REVOCATIONS = st.sets(st.sampled_from(["r1", "r2"]), max_size=1)
SOURCES = st.sampled_from(list(Source))
ORIGINS = st.sampled_from(["one", "two"])
DOMAINS = st.sampled_from(["a.example", "b.example"])
UNDOS = st.sampled_from(["u1", "u2"])


@dataclass
class Row:
    """What the model knows of one entry."""

    octets: bytes
    at: int
    approved: bool
    held: bool
    vouched: bool = field(default=False, compare=False)


def standing(vouchers: tuple[Voucher, ...]) -> tuple[bool, bool]:
    """Approved, and held."""
    return any(v.approved for v in vouchers), any(v.held and not v.approved for v in vouchers)


@dataclass
class Search:
    """A search under way: the store's counter, and how many deletes the model had seen."""

    begun: int
    deletes: int


class Model(RuleBasedStateMachine):
    """Each rule does the same to the store and to the model; the invariants compare all of both."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.backend = Backend(kind, Path(self.directory.name))
        self.runner = asyncio.Runner()
        self.now = 1000
        self.entries: dict[Place, Row] = {}
        self.records: dict[tuple[str, str], tuple[bool, int]] = {}
        self.revocations: dict[str, set[str]] = {}
        self.blocked: set[str] = set()
        self.deletes: list[Any] = []  # predicates on finds, and names
        self.searches: list[Search] = []
        self.undos: dict[str, tuple[int, int]] = {}  # until when, how many entries
        self.waiting: dict[Place, tuple[str, Row]] = {}
        self.waiting_records: dict[tuple[str, str], tuple[str, str, int]] = {}  # undo, certificate, when
        self.touched: set[str] = set()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        self.now += 1
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.store, self.heard = self.backend.make()
        self.do(self.store.open())
        self.far, self.far_heard = self.backend.make()
        self.do(self.far.open())

    def teardown(self) -> None:
        self.do(self.store.close())
        self.do(self.far.close())
        self.runner.close()
        self.backend.close()
        self.directory.cleanup()

    # --- what the model thinks

    def names_of(self, fingerprint: str) -> set[str]:
        names = set(
            index_of(merge([json.dumps({"fpr": fingerprint, "texts": [], "rev": [], "ballast": ""}).encode()], b""))[0]
        )
        for (fpr, _, _), row in self.entries.items():
            if fpr == fingerprint:
                names |= index_of(row.octets)[0]
        return names

    def forget(self, names: set[str], undo: str | None = None) -> None:
        self.records = {key: value for key, value in self.records.items() if key[0] not in names}
        self.waiting_records = {
            key: value for key, value in self.waiting_records.items() if key[0] not in names or value[0] == undo
        }

    def drop(self, places: list[Place]) -> None:
        """What waits is lost, and the records of its names."""
        for place in places:
            names = index_of(self.waiting.pop(place)[1].octets)[0]
            self.waiting_records = {key: v for key, v in self.waiting_records.items() if key[0] not in names}

    def over(self, undo: str) -> None:
        del self.undos[undo]
        self.waiting = {place: value for place, value in self.waiting.items() if value[0] != undo}
        self.waiting_records = {key: value for key, value in self.waiting_records.items() if value[0] != undo}

    def gone(self, places: list[Place]) -> None:
        for fingerprint in {place[0] for place in places}:
            names = self.names_of(fingerprint)
            self.touched |= names
            self.forget(names)
        for place in places:
            del self.entries[place]

    def expected(self, find: Find, search: Search) -> Stored:
        place = (find.certificate.fingerprint, find.source, find.origin)
        if place[0] in self.blocked:
            return Stored.BLOCKED
        if any(refuses(find) for refuses, _ in self.deletes[search.deletes :]):
            return Stored.DELETED
        self.waiting.pop(place, None)
        old = self.entries.get(place)
        if old is None:
            self.entries[place] = Row(find.certificate.octets, self.now, *standing(find.vouchers), bool(find.vouchers))
            return Stored.NEW
        new = find.certificate.octets
        if find.source is Source.LOCAL or not find.replace:
            new = merge([old.octets, new], b"")
        given = standing(find.vouchers) if find.vouchers else (False, False)
        approved = old.approved or given[0]
        held = (old.held if old.vouched else given[1]) and not approved
        stored = Stored.SAME if new == old.octets else Stored.CHANGED
        self.touched |= self.names_of(place[0])
        self.entries[place] = Row(new, self.now, approved, held, old.vouched or bool(find.vouchers))
        return stored

    # --- rules

    @rule()
    def begin(self) -> None:
        self.searches.append(Search(self.do(self.store.begin()), len(self.deletes)))

    @rule(
        n=NUMBERS,
        texts=TEXTS,
        revocations=REVOCATIONS,
        source=SOURCES,
        origin=ORIGINS,
        flags=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
        found=st.booleans(),
        late=st.booleans(),
        far=st.booleans(),
    )
    def put(
        self,
        n: int,
        texts: set[str],
        revocations: set[str],
        source: Source,
        origin: str,
        flags: tuple[bool, bool, bool, bool],
        found: bool,
        late: bool,
        far: bool,
    ) -> None:
        store = self.far if far else self.store
        search = self.searches[0] if late and self.searches else Search(self.do(store.begin()), len(self.deletes))
        made = Made(n, tuple(sorted(texts)), tuple(sorted(revocations)))
        replace, approved, held, vouched = flags
        behind = (Voucher("ann@a.example", approved=approved, held=held, seen_at=self.now),) if vouched else ()
        find = made.find(source, origin, replace=replace, vouchers=behind)
        records = [said(addr("ann@a.example"), found, self.now, origin), said(made.fpr, True, self.now, origin)]
        answer = self.do(store.put([find], records, search.begun, self.now + 1))
        if revocations - self.revocations.get(made.fingerprint, set()):
            self.drop([place for place in self.waiting if place[0] == made.fingerprint])
        expected = self.expected(find, search)
        assert answer == (expected,)
        if revocations - self.revocations.get(made.fingerprint, set()):
            self.revocations.setdefault(made.fingerprint, set()).update(revocations)
            self.touched |= self.names_of(made.fingerprint)
        if expected not in (Stored.BLOCKED, Stored.DELETED):
            self.touched |= self.names_of(made.fingerprint)
        for record in records:
            dropped = expected is Stored.DELETED and record.name in made.names
            if not dropped and not any(forgets(record.name) for _, forgets in self.deletes[search.deletes :]):
                self.records[record.name, record.upstream] = (record.found, record.at)
                self.waiting_records.pop((record.name, record.upstream), None)
                self.touched.add(record.name)

    @rule(
        n=NUMBERS,
        source=st.none() | SOURCES,
        origin=st.none() | ORIGINS,
        undo=st.none() | UNDOS,
        seconds=st.sampled_from([10, 300]),
    )
    def delete(self, n: int, source: Source | None, origin: str | None, undo: str | None, seconds: int) -> None:
        fingerprint = fingerprint_of(n)

        def named(place: Place) -> bool:
            return place[0] == fingerprint and source in (None, place[1]) and origin in (None, place[2])

        places, names, now = list(filter(named, self.entries)), self.names_of(fingerprint), self.now
        how = Undo(undo, now + seconds) if undo else None
        assert self.do(self.store.delete(fingerprint, now, source, origin, how)) == len(places)
        if how is None:
            self.drop(list(filter(named, self.waiting)))
        elif places:
            until, deleted = self.undos.get(how.id, (0, 0))
            self.undos[how.id] = (max(until, how.until), deleted + len(places))
            self.waiting |= {place: (how.id, replace(self.entries[place])) for place in places}
            self.waiting_records |= {
                key: (how.id, fingerprint, at) for key, (found, at) in self.records.items() if found and key[0] in names
            }
        self.touched |= names
        self.forget(names, undo if places else None)
        for place in places:
            del self.entries[place]
        self.deletes.append(
            (
                lambda find: (
                    find.certificate.fingerprint == fingerprint
                    and source in (None, find.source)
                    and origin in (None, find.origin)
                ),
                lambda name: name in names,
            )
        )

    @rule(source=st.none() | SOURCES, domain=st.none() | DOMAINS, upstream=st.none() | ORIGINS)
    def purge(self, source: Source | None, domain: str | None, upstream: str | None) -> None:
        def matches(place: Place, octets: bytes) -> bool:
            return (
                source in (None, place[1])
                and (upstream is None or (place[1] is Source.KEYSERVER and place[2] == upstream))
                and (domain is None or any(name.endswith(f"@{domain}") for name in index_of(octets)[0]))
            )

        what = Selection(source=source, domain=domain, upstream=upstream)
        places = [place for place, row in self.entries.items() if matches(place, row.octets)]
        found = self.do(listed(self.store, what))
        assert sorted((e.fingerprint, e.source, e.origin) for e in found) == sorted(places)
        assert self.do(self.store.purge(what, self.now)) == len(places)
        self.drop([place for place, (_, row) in self.waiting.items() if matches(place, row.octets)])
        self.gone(places)
        self.deletes.append(
            (
                lambda find: matches((find.certificate.fingerprint, find.source, find.origin), find.certificate.octets),
                lambda name: True,
            )
        )

    @precondition(lambda self: len(self.entries) > 3)
    @rule()
    def purge_all(self) -> None:
        assert self.do(self.store.purge_all(self.now)) == len(self.entries)
        self.entries.clear()
        self.records.clear()
        self.revocations.clear()
        for undo in list(self.undos):
            self.over(undo)
        self.deletes.append((lambda find: True, lambda name: True))
        assert self.heard[-1].everything

    @rule(age=st.integers(0, 30), source=SOURCES, origin=st.none() | ORIGINS, absent=st.integers(0, 30))
    def purge_expired(self, age: int, source: Source, origin: str | None, absent: int) -> None:
        cutoff, before = self.now - age, self.now - absent
        places = [
            place
            for place, row in self.entries.items()
            if place[1] is source and origin in (None, place[2]) and row.at < cutoff
        ]
        records = [
            key
            for key, (found, at) in self.records.items()
            if (source is Source.KEYSERVER and origin in (None, key[1]) and at < cutoff if found else at < before)
        ]
        gone = self.do(self.store.purge_expired({(source, origin): cutoff}, before, 1000))
        assert gone == len(places) + len(records)
        for place in places:
            self.touched |= self.names_of(place[0])
        for key in records:
            self.touched.add(key[0])
            del self.records[key]
        for place in places:
            del self.entries[place]

    @rule(undo=UNDOS, age=st.integers(0, 60), source=SOURCES, origin=st.none() | ORIGINS, far=st.booleans())
    def undo(self, undo: str, age: int, source: Source, origin: str | None, far: bool) -> None:
        now, store = self.now, self.far if far else self.store

        def lives(of: Source, named: str, at: int) -> bool:
            return at >= now - age or of is not source or origin not in (None, named)

        done = self.do(store.undo(undo, now, {(source, origin): now - age}))
        until, deleted = self.undos.get(undo, (0, 0))
        if until <= now:
            assert done is None
            return
        back = {p: row for p, (by, row) in self.waiting.items() if by == undo and lives(p[1], p[2], row.at)}
        assert done == Undone(len(back), deleted)
        self.entries |= back
        known = {place[0] for place in self.entries}
        for (name, upstream), (by, fingerprint, at) in self.waiting_records.items():
            if by == undo and fingerprint in known and lives(Source.KEYSERVER, upstream, at):
                self.records[name, upstream] = (True, at)
                self.touched.add(name)
        for place in back:
            self.touched |= self.names_of(place[0])
        self.over(undo)

    @rule()
    def erase_undos(self) -> None:
        now = self.now
        over = [undo for undo, (until, _) in self.undos.items() if until <= now]
        gone = sum(by in over for by, _ in self.waiting.values())
        assert self.do(self.store.erase_undos(now)) == gone
        for undo in over:
            self.over(undo)

    @rule(n=NUMBERS, source=SOURCES, origin=ORIGINS)
    def approve(self, n: int, source: Source, origin: str) -> None:
        row = self.entries.get((fingerprint_of(n), source, origin))
        assert self.do(self.store.approve(fingerprint_of(n), source, origin, "ann@a.example")) is (row is not None)
        if row is not None:
            row.approved, row.held, row.vouched = True, False, True
            self.touched |= self.names_of(fingerprint_of(n))

    @rule(n=NUMBERS)
    def block(self, n: int) -> None:
        self.do(self.store.block(fingerprint_of(n), self.now))
        self.blocked.add(fingerprint_of(n))
        self.drop([place for place in self.waiting if place[0] == fingerprint_of(n)])
        self.touched |= self.names_of(fingerprint_of(n))

    @rule(n=NUMBERS)
    def unblock(self, n: int) -> None:
        fingerprint = fingerprint_of(n)
        assert self.do(self.store.unblock(fingerprint, self.now)) is (fingerprint in self.blocked)
        if fingerprint in self.blocked:
            self.blocked.discard(fingerprint)
            self.touched |= self.names_of(fingerprint)
            self.forget(self.names_of(fingerprint))

    @rule()
    def restart(self) -> None:
        self.do(self.store.poll())
        self.do(self.store.close())
        heard = self.heard
        self.store, self.heard = self.backend.make()
        self.heard.extend(heard)
        self.do(self.store.open())

    # --- what must hold at any time

    @invariant()
    def looks_agree(self) -> None:
        names = {addr(a) for a in ("ann@a.example", "bea@b.example", "cid@a.example")}
        names |= {Made(n).fpr for n in (1, 2, 3)}
        for name in names:
            shelf = self.do(self.store.look(name))
            under = {fpr for (fpr, _, _), row in self.entries.items() if name in index_of(row.octets)[0]} - self.blocked
            expected = {place: row for place, row in self.entries.items() if place[0] in under}
            found = {
                (e.fingerprint, e.source, e.origin): Row(e.octets, e.cached_at, e.approved, e.held)
                for e in shelf.entries
            }
            assert found == expected
            assert {fpr: set(json.loads(octets)) for fpr, octets in shelf.revocations.items()} == {
                fpr: revoked for fpr, revoked in self.revocations.items() if fpr in under
            }
            assert {(r.name, r.upstream): (r.found, r.at) for r in shelf.records} == {
                key: value for key, value in self.records.items() if key[0] == name
            }

    @invariant()
    def undos_agree(self) -> None:
        now = self.now
        waiting = {(w.id, w.until, w.entries) for w in self.do(self.store.undos(now))}
        assert waiting == {(undo, until, n) for undo, (until, n) in self.undos.items() if until > now}

    @invariant()
    def counts_agree(self) -> None:
        stats = self.do(self.store.stats())
        assert stats.certificates == len({place[0] for place in self.entries})
        assert sum(stats.entries.values()) == len(self.entries)
        assert stats.records_found == sum(found for found, _ in self.records.values())
        assert stats.records_absent == sum(not found for found, _ in self.records.values())
        assert stats.blocked == len(self.blocked)
        assert stats.healthy == ""

    @invariant()
    def everything_touched_was_published_everywhere(self) -> None:
        self.do(self.store.poll())
        self.do(self.far.poll())
        for events in (self.heard, self.far_heard):
            if not any(change.everything for change in events):
                assert self.touched <= events.names
            numbers = [change.number for change in events]
            assert len(numbers) == len(set(numbers))
            events.clear()
        self.touched.clear()


@pytest.mark.parametrize("kind", KINDS)
def test_the_store_agrees_with_its_model(kind: str) -> None:
    run_state_machine_as_test(
        lambda: Model(kind),
        settings=settings(
            max_examples=EXAMPLES[kind] // 2,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
