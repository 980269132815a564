"""The whole cache against a model of a few dictionaries: real resolver, policy, hygiene and SQLite, scripted upstreams.

Random lookups, puts, deletes, blocks, approvals, clock moves, restarts, changes of the setting. After each lookup the
answer, how it came about, and who was asked have to be what the model says; after each step so has the cache's content.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from keyserver.model import (
    Absent,
    Answer,
    Failed,
    Fault,
    Found,
    How,
    Kind,
    Outcome,
    Raw,
    Selection,
    Source,
    State,
    View,
)
from keyserver.policy import MAILFLOW_TTL
from keyserver.query import ByAddress, Query, parse
from scenarios.world import World, view_of
from support.listed import listed
from support.upstreams import Told

T = TypeVar("T")
Place = tuple[str, Source, str]  # certificate, source, origin

HOUR = 3600
OWNERS = {
    "alice": {"alice@example.org"},
    "other alice": {"alice@example.org"},
    "paul": {"paul@partner.example"},
    "both": {"alice@example.org", "paul@partner.example"},
}
TIERS = (("partner",), ("a", "b"), ("last",))
NAMES = st.sampled_from(sorted(OWNERS))
QUERIES = st.sampled_from([*sorted(OWNERS), "alice@example.org", "paul@partner.example", "nobody@example.org"])
UPSTREAMS = st.sampled_from([name for tier in TIERS for name in tier])


@dataclass
class Row:
    """What the model knows of one entry."""

    at: int
    vouchers: dict[str, list[bool]] = field(default_factory=dict)  # address -> [held, approved]


@dataclass(kw_only=True, eq=False)
class Peer(Told):
    """An upstream that has some certificates; a liar answers every question with all of them."""

    model: Model
    has: set[str] = field(default_factory=set)
    down: bool = False
    liar: bool = False

    def says(self, query: Query) -> Outcome:
        if self.down:
            return Failed("down", Fault.LOCAL)  # local: leaves the circuit alone, which has tests of its own
        term = self.model.term_of(query)
        sent = sorted(c for c in self.has if self.liar or term in self.model.names(c))
        certificates = self.model.world.certificates
        return Found(tuple(Raw(Kind.OPENPGP, certificates[c].octets) for c in sent)) if sent else Absent("no")


class Model(RuleBasedStateMachine):
    """Each rule does the same to the world and to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.world = World(Path(self.directory.name))
        self.entries: dict[Place, Row] = {}
        self.records: dict[tuple[str, str], tuple[bool, int]] = {}  # (term, upstream) -> (found, when)
        self.blocked: set[str] = set()
        self.paused: set[str] = set()
        self.acts = 0
        self.undos: list[tuple[str, int]] = []  # which, and until when
        self.waiting: dict[Place, tuple[str, Row]] = {}  # by which undo it comes back
        self.waiting_records: dict[tuple[str, str], tuple[str, str, int]] = {}  # undo, certificate, when
        for name, addresses in OWNERS.items():
            self.world.certificate(name, *(f"{name} <{address}>" for address in sorted(addresses)), encryption=None)
        self.peers: dict[str, Peer] = {}
        for priority, tier in enumerate(TIERS):
            for name in tier:
                options: dict[str, Any] = {"partner": {"domains": ("partner.example",)}, "last": {"ttl": 2 * HOUR}}
                spec = self.world.upstream(name, priority=priority, **options.get(name, {})).spec
                self.peers[name] = Peer(spec, model=self)
        self.world.upstreams = self.peers  # type: ignore[assignment]
        self.world.terms = replace(self.world.terms, ttl=HOUR, negative_ttl=900, serve_stale=1800)
        self.by_fingerprint = {m.fingerprint: n for n, m in self.world.certificates.items()}
        self.run(self.world.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.world.stop())
        self.runner.close()
        self.directory.cleanup()

    # --- names

    def names(self, certificate: str) -> set[str]:
        """Every term that finds a certificate; one that stands for itself is its fingerprint."""
        return {certificate, *OWNERS[certificate]}

    def term_of(self, query: Query) -> str:
        return str(query) if isinstance(query, ByAddress) else self.by_fingerprint[str(query)]

    def search_text(self, term: str) -> str:
        return term if "@" in term else self.world.certificates[term].fingerprint

    # --- what the rules of the cache say

    def ttl(self, upstream: str) -> int:
        return self.peers[upstream].spec.ttl or self.world.terms.ttl

    def living(self, term: str) -> dict[str, bool]:
        found = {}
        for (asked, upstream), (word, at) in self.records.items():
            span = self.ttl(upstream) if word else min(self.ttl(upstream), self.world.terms.negative_ttl)
            if asked == term and self.world.now < at + span:
                found[upstream] = word
        return found

    def asked_in_turn(self, term: str) -> list[list[str]]:
        told = [[n for n in tier if n != "partner" or "@" not in term or "@partner" in term] for tier in TIERS]
        return [tier for tier in told if tier]

    def age(self, place: Place, row: Row, before: int = 0) -> str:
        """`before`: so many seconds ago."""
        _, source, origin = place
        now = self.world.now - before
        if source is Source.LOCAL:
            return "fresh"
        end = row.at + (MAILFLOW_TTL if source is Source.MAILFLOW else self.ttl(origin))
        if now < end:
            return "fresh"
        stale = source is Source.KEYSERVER and now < end + self.world.terms.serve_stale
        return "stale" if stale else "expired"

    def tellable(self, term: str, view: View, stale: bool) -> dict[str, list[tuple[Place, Row]]]:
        """Entries that this view may be told, by certificate."""
        found: dict[str, list[tuple[Place, Row]]] = {}
        for place, row in self.entries.items():
            certificate, source, origin = place
            stands = [v for address, v in row.vouchers.items() if "@" not in term or address == term]
            said = any(approved or (view.answer_mailflow and not held) for held, approved in stands)
            shown = source is not Source.MAILFLOW or said
            admitted = not (origin == "partner" and source is Source.KEYSERVER and "@example" in term)
            right_age = self.age(place, row) in (("fresh", "stale") if stale else ("fresh",))
            if term in self.names(certificate) and certificate not in self.blocked and shown and admitted and right_age:
                found.setdefault(certificate, []).append((place, row))
        return found

    def unpromoted(self, term: str, view: View, stale: bool) -> set[str]:
        """What is known although the search failed: a pause lets no later priority speak for what is listed."""
        living = self.living(term)
        silent = bool(self.lists(term) & self.paused - set(living))
        return {
            certificate
            for certificate, rows in self.tellable(term, view, stale).items()
            for (_, source, origin), row in rows
            if not silent
            or source is not Source.KEYSERVER
            or origin == "partner"
            or living.get(origin)
            or row.vouchers.get(term, [False, False])[1]
        }

    def certain(self, term: str, view: View, living: dict[str, bool]) -> set[str]:
        """Rule 10: what answers by itself, or by a finished search for this very query."""
        negative = self.negative(term, living)
        finished = negative or any(living.values())
        found = set()
        for certificate, rows in self.tellable(term, view, stale=False).items():
            for (_, source, origin), row in rows:
                alone = "@" not in term or source is Source.LOCAL
                own_word = source is Source.KEYSERVER and not row.vouchers.get(term, [False, False])[1]
                if alone or (living.get(origin, False) if own_word else finished):
                    found.add(certificate)
        return found

    def negative(self, term: str, living: dict[str, bool]) -> bool:
        return all(living.get(name) is False for tier in self.asked_in_turn(term) for name in tier)

    def searched(self, term: str, *, refresh: bool, deleted: str = "") -> tuple[State, dict[str, bool], list[str]]:
        """A search in the model: what it says, the words that it heard itself, and who was asked."""
        living = {} if refresh else self.living(term)
        cached = any(place[0] == deleted for place in self.entries)
        words: dict[str, bool | None] = {}  # None: failed
        asked = []
        for tier in self.asked_in_turn(term):
            for name in tier:
                if living.get(name) is False:
                    words[name] = False
                    continue
                if name in self.paused:
                    words[name] = None
                    continue
                peer = self.peers[name]
                asked.append(name)
                words[name] = None if peer.down else any(term in self.names(c) for c in peer.has)
            if any(words.values()) or (self.lists(term) & {n for n in tier if words[n] is None} & self.paused):
                break
        self.forget(deleted, cached)
        self.entries = {p: r for p, r in self.entries.items() if p[0] != deleted}
        self.drop({p for p in self.waiting if p[0] == deleted})
        for name in asked:
            finds = {c for c in self.peers[name].has if term in self.names(c)} if words[name] else set()
            for certificate in finds - self.blocked - {deleted}:
                self.put(certificate, Source.KEYSERVER, name)
            undone = deleted and term in self.names(deleted) and (cached or deleted in finds or term == deleted)
            if words[name] is not None and not (refresh and not words[name]) and not undone:
                self.records[term, name] = (bool(words[name]), self.world.now)
                self.waiting_records.pop((term, name), None)
        heard = {name: word for name, word in words.items() if word is not None}
        if any(heard.values()):
            return State.FOUND, heard, asked
        return (State.FAILED if None in words.values() else State.ABSENT), heard, asked

    def asks_anybody(self, term: str, living: dict[str, bool]) -> bool:
        """Is somebody asked by a search, whatever is paused?"""
        for tier in self.asked_in_turn(term):
            silent = [name for name in tier if living.get(name) is not False]
            if not self.paused.issuperset(silent):
                return True
            if self.lists(term) & set(silent):
                return False
        return False

    def lists(self, term: str) -> set[str]:
        """The upstreams that list the domain of an address."""
        return {"partner"} if term.endswith("@partner.example") else set()

    def put(self, certificate: str, source: Source, origin: str) -> None:
        if certificate not in self.blocked:
            self.entries.setdefault((certificate, source, origin), Row(0)).at = self.world.now
            self.waiting.pop((certificate, source, origin), None)

    def forget(self, certificate: str, cached: bool, undo: str = "") -> None:
        """The records of all its names, or of its fingerprint alone where the store knows no others."""
        names = self.names(certificate) if cached else {certificate}
        self.records = {k: v for k, v in self.records.items() if k[0] not in names}
        waiting = self.waiting_records.items()
        self.waiting_records = {k: v for k, v in waiting if k[0] not in names or v[0] == undo}

    def drop(self, places: set[Place]) -> None:
        """What waits to be undone is lost, and the records of its names."""
        for place in places:
            del self.waiting[place]
            waiting = self.waiting_records.items()
            self.waiting_records = {k: v for k, v in waiting if k[0] not in self.names(place[0])}

    # --- rules

    @initialize(sets=st.lists(st.sets(NAMES, max_size=2), min_size=4, max_size=4))
    def begin(self, sets: list[set[str]]) -> None:
        for peer, has in zip(self.peers.values(), sets, strict=True):
            peer.has = set(has)

    @rule(terms=st.lists(QUERIES, min_size=1, max_size=4), mailflow=st.booleans())
    def lookups(self, terms: list[str], mailflow: bool) -> None:
        for term in terms:
            self.lookup(term, view_of(mailflow))

    def lookup(self, term: str, view: View) -> None:
        living = self.living(term)
        before = self.counts(term)
        answer = self.run(self.asked(term, view))
        hits = self.certain(term, view, living)
        lately = any(
            self.world.now - self.records[term, name][1] < self.world.terms.negative_ttl
            for name, found in living.items()
            if found
        )
        if hits:
            self.compare(term, answer, State.FOUND, How.HIT, hits)
        elif self.negative(term, living) or lately:
            self.compare(term, answer, State.ABSENT, How.HIT, set())
        else:
            state, heard, asked = self.searched(term, refresh=False)
            self.expect(term, view, answer, state, heard)
            before.update(asked)
        assert self.counts(term) == before, f"{term}: asked {self.counts(term)}, not {before}"

    def expect(self, term: str, view: View, answer: Answer, state: State, heard: dict[str, bool]) -> None:
        """What is answered after a search."""
        found = self.certain(term, view, self.living(term) | heard)
        if found:
            self.compare(term, answer, State.FOUND, How.MISS, found)
        elif state is not State.FAILED:
            self.compare(term, answer, State.ABSENT, How.MISS, set())
        elif known := self.unpromoted(term, view, stale=False):
            self.compare(term, answer, State.FOUND, How.HIT, known)
        elif known := self.unpromoted(term, view, stale=True):
            self.compare(term, answer, State.FOUND, How.STALE, known)
        else:
            self.compare(term, answer, State.FAILED, How.MISS, set())

    @rule(term=QUERIES, certificate=NAMES)
    def delete_during_a_search(self, term: str, certificate: str) -> None:
        """Rule 7: nothing begun before a delete brings back what was deleted."""
        view, living = View(), self.living(term)
        if self.certain(term, view, living) or any(living.values()) or self.negative(term, living):
            return
        if not self.asks_anybody(term, living):
            return

        async def both() -> Answer:
            hold = asyncio.Event()
            before = sum(self.counts(term).values())
            for peer in self.peers.values():
                peer.open = hold
            lookup = asyncio.ensure_future(self.asked(term, view))
            while sum(self.counts(term).values()) == before:
                await asyncio.sleep(0)
            await self.world.play(f"delete '{certificate}'")
            hold.set()
            for peer in self.peers.values():
                peer.open = asyncio.Event()
                peer.open.set()
            return await lookup

        answer = self.run(both())
        state, heard, _ = self.searched(term, refresh=False, deleted=certificate)
        self.expect(term, view, answer, state, heard)

    @rule(term=QUERIES)
    def refresh(self, term: str) -> None:
        self.run(self.refreshed(term))
        self.searched(term, refresh=True)

    @rule(name=UPSTREAMS, has=st.sets(NAMES, max_size=3), liar=st.booleans())
    def an_upstream_has(self, name: str, has: set[str], liar: bool) -> None:
        self.peers[name].has, self.peers[name].liar, self.peers[name].down = set(has), liar, False

    @rule(name=UPSTREAMS)
    def an_upstream_is_paused(self, name: str) -> None:
        """Or resumed."""
        self.run(self.world.play(f"{'resume' if name in self.paused else 'pause'} {name}"))
        self.paused ^= {name}

    @rule(name=UPSTREAMS)
    def an_upstream_is_down(self, name: str) -> None:
        self.peers[name].down = True

    @rule(certificate=NAMES, held=st.booleans(), last=st.booleans())
    def mail(self, certificate: str, held: bool, last: bool) -> None:
        sender = sorted(OWNERS[certificate])[-1 if last else 0]
        self.run(self.world.mail(certificate, sender, held=held))
        place = (certificate, Source.MAILFLOW, sender.rpartition("@")[2])
        self.put(*place)
        if place in self.entries and certificate not in self.blocked:
            self.entries[place].vouchers.setdefault(sender, [held, False])

    @rule(action=st.sampled_from(["keep", "approve", "delete", "take_away", "block", "unblock"]), certificate=NAMES)
    def an_administrator(self, action: str, certificate: str) -> None:
        getattr(self, action)(certificate)

    def keep(self, certificate: str) -> None:
        self.run(self.world.keep(certificate))
        self.put(certificate, Source.LOCAL, "admin")

    def approve(self, certificate: str) -> None:
        address = sorted(OWNERS[certificate])[0]
        self.run(self.world.approve(certificate, address))
        for place, row in self.entries.items():
            if place[0] == certificate:
                row.vouchers[address] = [False, True]

    def delete(self, certificate: str) -> None:
        self.run(self.world.play(f"delete '{certificate}'"))
        cached = any(place[0] == certificate for place in self.entries)
        self.entries = {p: r for p, r in self.entries.items() if p[0] != certificate}
        self.drop({p for p in self.waiting if p[0] == certificate})
        self.forget(certificate, cached)

    def take_away(self, certificate: str) -> None:
        """A delete that can be undone."""
        self.run(self.world.play(f"delete '{certificate}' undoable"))
        gone = {p: r for p, r in self.entries.items() if p[0] == certificate}
        if not gone:
            self.forget(certificate, cached=False)
            return
        self.acts += 1
        undo = f"undo {self.acts}"
        self.undos.append((undo, self.world.now + 600))
        self.waiting |= {place: (undo, row) for place, row in gone.items()}
        self.waiting_records |= {
            key: (undo, certificate, at)
            for key, (found, at) in self.records.items()
            if found and key[0] in self.names(certificate)
        }
        self.entries = {p: r for p, r in self.entries.items() if p not in gone}
        self.forget(certificate, cached=True, undo=undo)

    @rule()
    def undo(self) -> None:
        """The latest, within ten minutes: everything is as it was, unless something befell it meanwhile."""
        undo = self.undos.pop()[0] if self.undos and self.undos[-1][1] > self.world.now else ""
        mine = {place: row for place, (by, row) in self.waiting.items() if by == undo}
        back = {place: row for place, row in mine.items() if self.age(place, row) != "expired"}
        self.run(self.world.play(f"undo {len(back)}"))
        self.entries |= back
        known = {place[0] for place in self.entries}
        for key, (by, certificate, at) in self.waiting_records.items():
            if by == undo and certificate in known:
                self.records[key] = (True, at)
        self.waiting = {place: value for place, value in self.waiting.items() if place not in mine}
        self.waiting_records = {key: value for key, value in self.waiting_records.items() if value[0] != undo}

    @rule()
    def undos_are_tidied(self) -> None:
        self.run(self.world.upkeep.erase_undos())
        if self.world.upkeep.clockwatch.complaint:
            return
        over = {undo for undo, until in self.undos if until <= self.world.now}
        self.waiting = {place: value for place, value in self.waiting.items() if value[0] not in over}
        self.waiting_records = {key: value for key, value in self.waiting_records.items() if value[0] not in over}

    def block(self, certificate: str) -> None:
        self.run(self.world.play(f"block '{certificate}'"))
        self.blocked.add(certificate)
        self.drop({p for p in self.waiting if p[0] == certificate})

    def unblock(self, certificate: str) -> None:
        self.run(self.world.play(f"unblock '{certificate}'"))
        if certificate in self.blocked:
            self.blocked.discard(certificate)
            # Only names that the store knows of are forgotten; those of what was never cached end with negative_ttl.
            self.forget(certificate, any(place[0] == certificate for place in self.entries))

    @rule(name=UPSTREAMS)
    def purge_an_upstream(self, name: str) -> None:
        self.run(self.world.store.purge(Selection(upstream=name), self.world.now))
        self.drop({p for p in self.waiting if p[1] is Source.KEYSERVER and p[2] == name})
        gone = {p for p in self.entries if p[1] is Source.KEYSERVER and p[2] == name}
        for place in gone:
            self.forget(place[0], cached=True)
            del self.entries[place]

    @rule()
    def purge_what_has_expired(self) -> None:
        self.run(self.world.upkeep.purge())
        if self.world.upkeep.clockwatch.complaint:  # half a year has passed unseen: nothing is deleted
            return
        self.entries = {p: r for p, r in self.entries.items() if self.age(p, r, before=1) != "expired"}
        terms = {k[0] for k in self.records}
        alive = {(term, name) for term in terms for name in self.living(term)}
        assert not {k for k in self.records if k in alive and k not in self.records}
        self.records = {k: v for k, v in self.records.items() if k in alive}

    @rule(minutes=st.sampled_from([1, 10, 20, 50, 100, 200, 181 * 1440]))
    def time_passes(self, minutes: int) -> None:
        self.run(self.world.play(f"pass {minutes}m"))

    @rule()
    def restart(self) -> None:
        self.run(self.world.play("restart"))

    @rule(hours=st.sampled_from([1, 3]))
    def the_setting_changes(self, hours: int) -> None:
        """It acts on what is there, in both directions: what was purged meanwhile is gone, all else lives again."""
        self.run(self.world.play(f"policy ttl={hours}h"))

    @invariant()
    def the_cache_holds_what_the_model_says(self) -> None:
        rows = {
            (self.by_fingerprint[e.fingerprint], e.source, e.origin): (
                e.cached_at,
                {v.address: [v.held, v.approved] for v in e.vouchers},
            )
            for e in self.run(listed(self.world.store))
        }
        assert rows == {p: (r.at, r.vouchers) for p, r in self.entries.items()}

    # --- doing

    async def asked(self, term: str, view: View) -> Answer:
        answer = await self.world.get(self.search_text(term), view)
        while self.world.resolver.searches:  # stragglers go on behind the answer
            await asyncio.sleep(0.001)
        return answer

    async def refreshed(self, term: str) -> None:
        await self.world.resolver.refresh(parse(self.search_text(term)))
        while self.world.resolver.searches:
            await asyncio.sleep(0.001)

    def counts(self, term: str) -> Counter[str]:
        text = self.search_text(term)
        return Counter({name: n for name, peer in self.peers.items() if (n := peer.asked.count(text))})

    def compare(self, term: str, answer: Answer, state: State, how: How, certificates: set[str]) -> None:
        got = (answer.state, answer.how, set(self.world.named(answer)))
        story = "\n".join(f"{s.who} {s.what} {s.why}" for s in answer.steps)
        assert got == (state, how, certificates), f"{term}: {got}, not {(state, how, certificates)}\n{story}"


def test_the_cache_is_what_a_few_dictionaries_say() -> None:
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        ),
    )
