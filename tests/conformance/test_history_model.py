"""The heart of the history: what `past` says of an instant is what `look` said at that instant, whatever came since."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from keyserver.model import Entry, Selection, Source, Voucher
from keyserver.store.base import Undo
from keyserver.store.history import Bounds, Past, Word
from keyserver.store.snapshot import Snapshot
from tests.conformance.conftest import EXAMPLES, KINDS, Backend, Made, addr, fingerprint_of, said

T = TypeVar("T")

NUMBERS = st.integers(1, 3)
ADDRESSES = st.sampled_from(["ann@a.example", "bea@b.example"])
SOURCES = st.sampled_from(list(Source))
ORIGINS = st.sampled_from(["one", "two"])
STEPS = st.sampled_from([1, 60, 3000, 3600, 4000, 86_400, 200_000])
HOUR, DAY = 3600, 86_400
NAMES = (addr("ann@a.example"), addr("bea@b.example"), Made(1).fpr, Made(2).fpr)


def likely(entry: Entry) -> tuple[Any, ...]:
    """What is exact: all but times and the last mail, of which the history keeps the latest of an hour."""
    behind = sorted((v.address, v.authenticated, v.held, v.approved) for v in entry.vouchers)
    what = (entry.fingerprint, entry.kind, entry.source, entry.origin, entry.octets, entry.chained, entry.identities)
    return (*what, tuple(behind))


class Model(RuleBasedStateMachine):
    """Rules do something and go on in time; at the end every instant is asked for again."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.backend = Backend(kind, Path(self.directory.name))
        self.runner = asyncio.Runner()
        self.now = 1_000_000
        self.seen: list[tuple[int, dict[str, Snapshot]]] = []
        self.words: dict[tuple[str, str], list[tuple[int, Word]]] = {}
        self.settings: list[tuple[int, dict[str, object]]] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.store, _ = self.backend.make()
        self.run(self.store.open())

    def did(self, step: int) -> None:
        """How it looks now; then time goes on."""
        self.seen.append((self.now, {name: self.run(self.store.look(name)) for name in NAMES}))
        self.now += step

    # --- what happens

    @rule(n=NUMBERS, texts=st.sets(ADDRESSES, max_size=2), source=SOURCES, origin=ORIGINS, step=STEPS, more=st.data())
    def put(self, n: int, texts: set[str], source: Source, origin: str, step: int, more: st.DataObject) -> None:
        revocations = tuple(more.draw(st.sets(st.sampled_from(["r1", "r2"]), max_size=1)))
        flags = more.draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
        behind = ()
        if source is Source.MAILFLOW and texts:
            address = min(texts)
            behind = (Voucher(address, authenticated=flags[0], held=flags[1], seen_at=self.now),)
        find = Made(n, tuple(texts), revocations).find(
            source, origin, vouchers=behind, replace=flags[2], chained=flags[0], detail=str(self.now)
        )
        records = []
        if source is Source.KEYSERVER and texts:
            records = [said(addr(min(texts)), True, self.now, origin)]
            self.words.setdefault((addr(min(texts)), origin), []).append((self.now, Word.FOUND))
        self.run(self.store.put([find], records, self.run(self.store.begin()), self.now))
        self.did(step)

    @rule(n=NUMBERS, address=ADDRESSES, step=STEPS, many=st.integers(2, 5))
    def again_and_again(self, n: int, address: str, step: int, many: int) -> None:
        find = Made(n, (address,)).find()
        for _ in range(many):
            self.run(self.store.put([find], [], self.run(self.store.begin()), self.now))
            self.did(step)

    @rule(n=NUMBERS, texts=st.sets(ADDRESSES, max_size=2), source=SOURCES, origin=ORIGINS, step=STEPS)
    def update(self, n: int, texts: set[str], source: Source, origin: str, step: int) -> None:
        find = Made(n, tuple(texts)).find(source, origin, replace=False, update=True)
        self.run(self.store.put([find], [], self.run(self.store.begin()), self.now))
        self.did(step)

    @rule(address=ADDRESSES, origin=ORIGINS, step=STEPS)
    def absent(self, address: str, origin: str, step: int) -> None:
        begun = self.run(self.store.begin())
        self.run(self.store.put([], [said(addr(address), False, self.now, origin)], begun, self.now))
        self.words.setdefault((addr(address), origin), []).append((self.now, Word.ABSENT))
        self.did(step)

    @rule(address=ADDRESSES, origin=ORIGINS, step=STEPS)
    def failed(self, address: str, origin: str, step: int) -> None:
        self.run(self.store.history.failed({(addr(address), origin): self.now}))
        self.words.setdefault((addr(address), origin), []).append((self.now, Word.FAILED))
        self.did(step)

    @rule(n=NUMBERS, source=SOURCES, address=ADDRESSES, origin=ORIGINS, step=STEPS)
    def approve(self, n: int, source: Source, address: str, origin: str, step: int) -> None:
        self.run(self.store.approve(fingerprint_of(n), source, origin, address, self.now))
        self.did(step)

    @rule(n=NUMBERS, undoable=st.booleans(), step=STEPS)
    def delete(self, n: int, undoable: bool, step: int) -> None:
        undo = Undo(str(n), self.now + 100_000) if undoable else None
        self.run(self.store.delete(fingerprint_of(n), self.now, undo=undo))
        self.did(step)

    @rule(n=NUMBERS, step=STEPS)
    def undo(self, n: int, step: int) -> None:
        self.run(self.store.undo(str(n), self.now, {}))
        self.did(step)

    @rule(n=NUMBERS, step=STEPS)
    def block(self, n: int, step: int) -> None:
        self.run(self.store.block(fingerprint_of(n), self.now, "why"))
        self.did(step)

    @rule(n=NUMBERS, step=STEPS)
    def unblock(self, n: int, step: int) -> None:
        self.run(self.store.unblock(fingerprint_of(n), self.now))
        self.did(step)

    @rule(source=SOURCES, step=STEPS)
    def purge(self, source: Source, step: int) -> None:
        self.run(self.store.purge(Selection(source=source), self.now))
        self.did(step)

    @rule(source=SOURCES, age=st.sampled_from([60, 5000, 100_000]), step=STEPS)
    def expire(self, source: Source, age: int, step: int) -> None:
        self.run(self.store.purge_expired({(source, None): self.now - age}, self.now - age, 1000, self.now))
        self.did(step)

    @rule(address=ADDRESSES, view=st.sampled_from(["default", "gateway"]), n=NUMBERS, step=STEPS)
    def answers(self, address: str, view: str, n: int, step: int) -> None:
        self.run(self.store.history.answers(view, addr(address), fingerprint_of(n), self.now))
        self.did(step)

    @rule(value=st.integers(1, 2), step=STEPS)
    def load(self, value: int, step: int) -> None:
        if self.run(self.store.history.settings({"value": value}, self.now)):
            self.settings.append((self.now, {"value": value}))
        self.did(step)

    @rule(keep=st.sampled_from([1000, 100_000, 1_000_000]))
    def tidy(self, keep: int) -> None:
        self.store.history.limit(Bounds(keep, 1 << 30))
        while self.run(self.store.history.tidy(self.now, 3)):
            pass

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.store, _ = self.backend.make()
        self.run(self.store.open())

    # --- what was

    def check(self) -> None:
        for number, (at, looked) in enumerate(self.seen):
            last = self.seen[number + 1][0] - 1 if number + 1 < len(self.seen) else self.now
            for instant in sorted({at, last}):
                for name in NAMES:
                    past = self.run(self.store.history.past(name, instant))
                    if instant >= past.whole_since > 0:
                        self.same(name, instant, looked[name], past)

    def same(self, name: str, at: int, looked: Snapshot, past: Past) -> None:
        was = {(e.fingerprint, e.source, e.origin): e for e in looked.entries}
        told = {(e.fingerprint, e.source, e.origin): e for e in past.snapshot.entries}
        assert was.keys() == told.keys(), (name, at)
        for place, entry in was.items():
            assert likely(entry) == likely(told[place]), (name, at)
            assert entry.cached_at <= told[place].cached_at <= min(at, entry.cached_at + HOUR), (name, at)
        assert past.snapshot.revocations == looked.revocations, (name, at)
        assert past.answering == past.snapshot.answering
        assert past.answering.items() <= looked.answering.items(), (name, at)
        if looked.entries:  # else it may have been forgotten since, with the last certificate of that name
            assert past.answering == looked.answering, (name, at)
        records = {r.upstream: r for r in looked.records}
        again = {r.upstream: r for r in past.snapshot.records}
        assert {u: r.found for u, r in records.items()} == {u: r.found for u, r in again.items()}, (name, at)
        for upstream, record in records.items():
            assert record.at <= again[upstream].at <= min(at, record.at + DAY), (name, at)
        self.same_words(name, at, past)
        loaded = [value for since, value in self.settings if since <= at]
        assert past.settings == (loaded[-1] if loaded else None)

    def same_words(self, name: str, at: int, past: Past) -> None:
        told = {one.upstream: one for one in past.said}
        for (of, upstream), words in self.words.items():
            before = [(since, word) for since, word in words if since <= at]
            if of != name or not before:
                continue
            since, word = before[-1]
            if since >= past.whole_since:
                assert told[upstream].word is word, (name, at)
                assert told[upstream].since <= since <= told[upstream].last, (name, at)
            after = [(since, word) for since, word in words if since > at]
            changed = next((word for _, word in after if word is not before[-1][1]), None)
            later = {one.upstream: one for one in past.later}
            assert changed is None or upstream in later, (name, at)

    def teardown(self) -> None:
        try:
            self.check()
        finally:
            self.run(self.store.close())
            self.runner.close()
            self.backend.close()
            self.directory.cleanup()


@pytest.mark.parametrize("kind", KINDS)
def test_the_past_is_what_was_seen(kind: str) -> None:
    run_state_machine_as_test(
        lambda: Model(kind),
        settings=settings(
            max_examples=EXAMPLES[kind] // 2,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
