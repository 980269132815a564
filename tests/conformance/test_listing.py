"""What a listing shows, in which order, and how far one step goes: every backend against plain Python."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyserver.admin.resources import row_of
from keyserver.model import Entry, Kind, Selection, Source, UpstreamSpec, View, Voucher
from keyserver.policy import MAILFLOW_TTL, Terms, expires_at
from keyserver.query import parse_address
from keyserver.store.base import Store
from keyserver.store.listing import (
    COUNTED,
    NEVER,
    Budget,
    Count,
    Filter,
    Lifetimes,
    Listing,
    Page,
    Place,
    Sort,
    Status,
)
from support import postgres
from tests.conformance.conftest import EXAMPLES, KINDS, Backend, Made, fingerprint_of

K, M, L = Source.KEYSERVER, Source.MAILFLOW, Source.LOCAL
NOW = 1_800_000_000
TERMS = Terms(ttl=10, serve_stale=5, upstreams={"one": UpstreamSpec("one"), "two": UpstreamSpec("two", ttl=20)})
LIFETIMES = Lifetimes(10, MAILFLOW_TTL, {"one": 10, "two": 20}, 5)
ORIGINS = {K: ("one", "two", "gone"), M: ("a.example", "b.example"), L: ("administrator",)}
AGES = (0, 5, 9, 10, 14, 15, 20, 24, 25, MAILFLOW_TTL - 1, MAILFLOW_TTL)
TEXTS = (
    "Ann <ann@a.example>",
    "Ann again <Ann@A.example>",
    "Anna <anna@a.example>",
    "Straße 100%_ <weg@b.example>",
    'Quo"te <q@a.example>',
    "\0nul behind <nul@b.example>",
    "🦊 <fox@a.b.example>",
    "nobody in particular",
)
SEARCHES = (
    "ann",
    "  ANN@a ",
    "an",
    "q",
    "zz",
    "strasse",
    "100%_",
    'o"t',
    "\0nu",
    "l behind",
    "🦊 <f",
    "cu",
    "cular\n",
    "nothing like it",
    fingerprint_of(1)[:3].lower(),
    "0x" + fingerprint_of(1)[:9],
    fingerprint_of(2)[:4] + " " + fingerprint_of(2)[4:8],
    fingerprint_of(3)[-16:].lower(),
    fingerprint_of(4),
    fingerprint_of(4)[5:25],
)


def clock() -> float:
    return 0.0


@dataclass(frozen=True)
class Row:
    """An entry as the model has it; `id`: the how manieth it came."""

    id: int
    entry: Entry
    addresses: tuple[str, ...]
    status: str

    @property
    def place(self) -> tuple[str, Source, str]:
        return self.entry.fingerprint, self.entry.source, self.entry.origin

    @property
    def end(self) -> int:
        end = expires_at(self.entry, NOW, TERMS)
        return NEVER if end is None else end

    def key(self, sort: Sort) -> tuple[int | str, ...]:
        e = self.entry
        return {
            Sort.CACHED: (e.cached_at, self.id),
            Sort.EXPIRES: (self.end, e.cached_at, self.id),
            Sort.ADDRESS: (min(self.addresses, default=""), self.id),
            Sort.SOURCE: (str(e.source), e.origin, e.cached_at, self.id),
            Sort.FINGERPRINT: (e.fingerprint, str(e.source), e.origin),
        }[sort]


@dataclass
class World:
    """Entries as they are put, one after the other."""

    rows: list[Row] = field(default_factory=list)
    blocked: frozenset[str] = frozenset()

    async def put(
        self, store: Store, made: Made, source: Source, origin: str, at: int, vouchers: tuple[Voucher, ...] = ()
    ) -> Row:
        await store.put([made.find(source, origin, vouchers=vouchers)], [], await store.begin(), at)
        entry = Entry(made.fingerprint, made.kind, b"", source, origin, at, at, vouchers, identities=made.texts)
        addresses = tuple(a for text in made.texts if (a := parse_address(text.partition("<")[2].rstrip(">") or text)))
        status = row_of(entry, NOW, TERMS, View(), self.blocked).status
        row = Row(len(self.rows) + 1, entry, addresses, status)
        self.rows.append(row)
        return row


def names(row: Row, what: Selection) -> Sequence[bool]:
    """What a selection says of a row, word by word."""
    e, said = row.entry, []
    if what.source is not None:
        said.append(e.source is what.source)
    if what.upstream is not None:
        said.append((e.source, e.origin) == (K, what.upstream))
    if what.kind is not None:
        said.append(e.kind is what.kind)
    if what.domain is not None:
        said.append(any(a.endswith("@" + what.domain) for a in row.addresses))
    if what.text is not None:
        said.append(means(row, what.text.strip().casefold()))
    return said


def means(row: Row, text: str) -> bool:
    if len(text) < 3:
        return any(address.startswith(text) for address in row.addresses)
    digits, fingerprint = text.replace(" ", "").removeprefix("0x").upper(), row.entry.fingerprint
    is_id = len(digits) >= 3 and all(c in "0123456789ABCDEF" for c in digits)
    return (
        text in "\n".join(row.entry.identities).casefold()
        or (is_id and fingerprint.startswith(digits))
        or (is_id and len(digits) == 16 and fingerprint.endswith(digits))
    )


def shown(row: Row, what: Filter) -> bool:
    e = row.entry
    return (
        all(names(row, what.wanted))
        and not any(names(row, what.unwanted))
        and what.status in (None, row.status)
        and (what.not_status is None or what.not_status != row.status)
        and what.held in (None, e.held)
        and what.approved in (None, e.approved)
        and (what.cached_from is None or e.cached_at >= what.cached_from)
        and (what.cached_before is None or e.cached_at < what.cached_before)
        and (what.expires_from is None or row.end >= what.expires_from)
        and (what.expires_before is None or row.end < what.expires_before)
    )


def expected(world: World, listing: Listing) -> list[Row]:
    rows = [row for row in world.rows if shown(row, listing.what)]
    return sorted(rows, key=lambda row: row.key(listing.sort), reverse=listing.descending)


async def walked(store: Store, listing: Listing, budget: Budget, most: int = 1000) -> list[Page]:
    """Every step of a listing."""
    pages, after = [], None
    for _ in range(most):
        pages.append(await store.list(listing, after, budget))
        after = pages[-1].next
        if after is None:
            return pages
    raise AssertionError("it does not end")


def places(entries: Sequence[Entry]) -> list[tuple[str, Source, str]]:
    return [(e.fingerprint, e.source, e.origin) for e in entries]


# --- generated worlds


@st.composite
def rows_of_a_world(draw: st.DrawFn) -> list[tuple[int, Kind, tuple[str, ...], Source, str, int, tuple[Voucher, ...]]]:
    numbers = st.integers(1, 12)
    where = st.sampled_from([(source, origin) for source, origins in ORIGINS.items() for origin in origins])
    drawn = draw(st.lists(st.tuples(numbers, where), unique=True, min_size=1, max_size=25))
    kinds = {n: draw(st.sampled_from([Kind.OPENPGP, Kind.OPENPGP, Kind.X509])) for n, _ in drawn}
    rows = []
    for n, (source, origin) in drawn:
        texts = tuple(sorted(draw(st.sets(st.sampled_from(TEXTS), max_size=3))))
        held, approved = draw(st.booleans()), draw(st.booleans())
        given = draw(st.booleans()) or source is M
        vouchers = (Voucher("ann@a.example", held=held, approved=approved),) if given else ()
        rows.append((n, kinds[n], texts, source, origin, NOW - draw(st.sampled_from(AGES)), vouchers))
    return rows


SELECTIONS = st.builds(
    Selection,
    source=st.none() | st.sampled_from(list(Source)),
    upstream=st.none() | st.sampled_from(["one", "two", "three", "administrator"]),
    domain=st.none() | st.sampled_from(["a.example", "b.example", "a.b.example", "example"]),
    text=st.none() | st.sampled_from(SEARCHES),
    kind=st.none() | st.sampled_from(list(Kind)),
)
ONE_OF = st.one_of(
    *(
        st.builds(lambda name, value: Selection(**{name: value}), st.just(name), values)
        for name, values in (
            ("source", st.sampled_from(list(Source))),
            ("upstream", st.sampled_from(["one", "two", "three"])),
            ("domain", st.sampled_from(["a.example", "b.example", "example"])),
            ("text", st.sampled_from(SEARCHES)),
            ("kind", st.sampled_from(list(Kind))),
        )
    )
)
INSTANTS = st.none() | st.sampled_from([NOW - 20, NOW - 10, NOW - 5, NOW, NOW + 1, NOW + 10, NOW + MAILFLOW_TTL])
STATUSES = st.none() | st.sampled_from(list(Status))
SWITCHES = st.none() | st.booleans()
RARELY = st.sampled_from([True, False, False])


@st.composite
def listings(draw: st.DrawFn) -> Listing:
    """Mostly with one or two words, or none would match anything."""
    selection = SELECTIONS if draw(RARELY) else ONE_OF
    empty = st.just(Selection())
    what = Filter(draw(selection | empty), draw(selection | empty))
    if draw(RARELY):
        what = replace(what, status=draw(STATUSES), not_status=draw(STATUSES))
    if draw(RARELY):
        what = replace(what, held=draw(SWITCHES), approved=draw(SWITCHES))
    if draw(RARELY):
        what = replace(what, cached_from=draw(INSTANTS), cached_before=draw(INSTANTS))
    if draw(RARELY):
        what = replace(what, expires_from=draw(INSTANTS), expires_before=draw(INSTANTS))
    return Listing(what, NOW, LIFETIMES, draw(st.sampled_from(list(Sort))), draw(st.booleans()))


BUDGETS = st.builds(
    lambda rows, candidates: Budget(clock, rows, candidates),
    st.sampled_from([1, 2, 7, 100]),
    st.sampled_from([1, 3, 10, 5000]),  # few: nothing is gathered, and steps end between rows
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_filter_and_order_is_that_of_plain_python(kind: str) -> None:
    @settings(max_examples=EXAMPLES[kind], deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        rows=rows_of_a_world(),
        blocked=st.sets(st.integers(1, 14), max_size=2),
        indexed=st.integers(0, 30),
        asked=st.lists(st.tuples(listings(), BUDGETS), min_size=25, max_size=25),
    )
    def agrees(
        rows: list[tuple[int, Kind, tuple[str, ...], Source, str, int, tuple[Voucher, ...]]],
        blocked: set[int],
        indexed: int,
        asked: list[tuple[Listing, Budget]],
    ) -> None:
        with tempfile.TemporaryDirectory() as directory, Backend(kind, Path(directory)) as backend:
            asyncio.run(_agrees(backend, rows, blocked, indexed, asked))

    agrees()


async def _agrees(
    backend: Backend,
    rows: Sequence[tuple[int, Kind, tuple[str, ...], Source, str, int, tuple[Voucher, ...]]],
    blocked: set[int],
    indexed: int,
    asked: Sequence[tuple[Listing, Budget]],
) -> None:
    world = World(blocked=frozenset(map(fingerprint_of, blocked)))
    async with backend.opened() as (store, _):
        for number, (n, kind, texts, source, origin, at, vouchers) in enumerate(rows):
            await world.put(store, Made(n, texts, kind=kind), source, origin, at, vouchers)
            if number + 1 == indexed:
                await store.index_text(indexed)
        for fingerprint in world.blocked:
            await store.block(fingerprint, NOW)
        for listing, budget in asked:
            pages = await walked(store, listing, budget)
            right = expected(world, listing)
            assert places([e for page in pages for e in page.entries]) == [row.place for row in right], listing
            bounded(pages, budget, len(right))


def bounded(pages: Sequence[Page], budget: Budget, right: int) -> None:
    """No step does more than it may, and what it says of the whole is true."""
    for page in pages:
        assert len(page.entries) <= budget.rows
        assert page.searched <= max(page.of, budget.candidates)
        assert all(e.octets == b"" for e in page.entries)
    first = pages[0].count
    assert first is not None
    assert first.entries == right if first.exact else first.entries <= right


# --- by example


async def filled(store: Store, many: int = 30) -> World:
    world = World()
    for n in range(many):
        await world.put(
            store, Made(n, (f"u{n:02} <u{n:02}@{'even' if n % 2 == 0 else 'odd'}.example>",)), K, "one", NOW + n // 3
        )
    return world


def by(sort: Sort = Sort.CACHED, *, descending: bool = True, what: Filter | None = None) -> Listing:
    return Listing(what or Filter(), NOW, LIFETIMES, sort, descending)


@pytest.mark.parametrize("sort", list(Sort))
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("candidates", [4, 5000])
async def test_paging_shows_what_stays_exactly_once_whatever_comes_and_goes(
    store: Store, sort: Sort, descending: bool, candidates: int
) -> None:
    world = await filled(store)
    listing = by(sort, descending=descending, what=Filter(Selection(domain="even.example")))
    right = [row.place for row in expected(world, listing)]
    seen: list[tuple[str, Source, str]] = []
    touched: set[tuple[str, Source, str]] = set()
    after: Place | None = None
    for step in range(100):
        page = await store.list(listing, after, Budget(clock, 3, candidates))
        seen += places(page.entries)
        after = page.next
        if after is None:
            break
        gone = page.entries[-1] if page.entries else None
        if gone is not None:  # the very place that it goes on from
            touched.add((gone.fingerprint, gone.source, gone.origin))
            await store.delete(gone.fingerprint, NOW)
        later = [place for place in right if place not in seen and place not in touched]
        if step % 2 and later:  # renewed: it may be seen at its new place, or no more
            touched.add(later[-1])
            n = next(n for n in range(30) if fingerprint_of(n) == later[-1][0])
            text = f"u{n:02} <u{n:02}@even.example>"
            await store.put([Made(n, (text,)).find()], [], await store.begin(), NOW + 100 + step)
        await store.put([Made(1000 + step, ("new <new@even.example>",)).find()], [], await store.begin(), NOW + step)
    assert after is None
    assert [place for place in seen if place in right and place not in touched] == [
        place for place in right if place not in touched
    ]
    assert len(seen) == len(set(seen)) or sort in (Sort.CACHED, Sort.EXPIRES, Sort.SOURCE), "what moved may come again"


async def test_the_last_page_says_that_it_is_the_last(store: Store) -> None:
    empty = await store.list(by(), None, Budget(clock))
    assert (empty.entries, empty.next, empty.count) == ((), None, Count(0, exact=True))
    await filled(store, 4)
    assert (await store.list(by(), None, Budget(clock, 4))).next is None
    pages = await walked(store, by(), Budget(clock, 2))
    assert [len(page.entries) for page in pages] == [2, 2]


async def test_a_step_that_finds_nothing_says_how_far_it_came(store: Store) -> None:
    await filled(store)
    listing = by(what=Filter(unwanted=Selection(source=K)))
    pages = await walked(store, listing, Budget(clock, candidates=8))
    assert [(page.entries, page.searched, page.of) for page in pages] == [((), n, 30) for n in (8, 8, 8, 6)]
    assert pages[0].count == Count(0, exact=False)


async def test_a_step_ends_when_its_time_is_over_and_never_without_getting_on(store: Store) -> None:
    made = [Made(n) for n in range(450)]
    await store.put([m.find() for m in made], [], await store.begin(), NOW)
    ticks = iter(range(1_000_000))

    def slow() -> float:
        return float(next(ticks))

    pages = await walked(store, by(what=Filter(unwanted=Selection(source=K))), Budget(slow))
    assert len(pages) == 5
    assert max(page.searched for page in pages) <= 100
    assert sum(page.searched for page in pages) == 450


async def test_counts_are_kept_where_they_can_be_and_end_somewhere_else(store: Store) -> None:
    finds = [Made(n, ("x <x@many.example>",)).find() for n in range(COUNTED + 500)]
    await store.put(finds, [], await store.begin(), NOW)
    waits = Voucher("x@many.example", held=True)
    await store.put([Made(1).find(M, "many.example", vouchers=(waits,))], [], await store.begin(), NOW)
    await store.put([Made(1).find(L, "administrator")], [], await store.begin(), NOW)

    async def count(what: Filter, candidates: int = 5000) -> Count | None:
        return (await store.list(by(what=what), None, Budget(clock, candidates=candidates))).count

    for what, right in (
        (Filter(), COUNTED + 502),
        (Filter(Selection(source=K)), COUNTED + 500),
        (Filter(Selection(upstream="one")), COUNTED + 500),
        (Filter(Selection(upstream="two")), 0),
        (Filter(Selection(source=M)), 1),
        (Filter(held=True), 1),
        (Filter(held=False), COUNTED + 501),
        (Filter(approved=True), 0),
        (Filter(unwanted=Selection(source=K)), 2),
    ):
        assert await count(what) == Count(right, exact=True), what
    assert await count(Filter(Selection(domain="many.example"))) == Count(COUNTED + 500, exact=True), "few enough"
    assert await count(Filter(Selection(domain="many.example")), 1200) == Count(COUNTED, exact=False)
    assert await store.approve(Made(1).fingerprint, M, "many.example", "x@many.example")
    stats = await store.stats()
    assert (stats.held, stats.approved, stats.upstreams) == (0, 1, {"one": COUNTED + 500})
    await store.delete(Made(1).fingerprint, NOW)
    stats = await store.stats()
    assert (stats.held, stats.approved, stats.upstreams) == (0, 0, {"one": COUNTED + 499})


async def test_text_is_found_before_it_is_indexed_after_and_when_it_has_changed(store: Store, backend: Backend) -> None:
    """Steps of two candidates gather nothing; those of 5,000 go by the index, and by what it does not know yet."""

    async def found(text: str) -> list[str]:
        both = []
        for candidates in (2, 5000):
            pages = await walked(store, by(what=Filter(Selection(text=text))), Budget(clock, candidates=candidates))
            both.append(sorted(e.fingerprint for page in pages for e in page.entries))
        assert both[0] == both[1]
        return both[0]

    later = int(backend.kind == "sqlite")  # PostgreSQL's own index is never behind
    made = [Made(n, (f"number{n} <u{n}@x.example>",)) for n in range(20)]
    await store.put([m.find() for m in made], [], await store.begin(), NOW)
    assert await store.index_text(100) == 0, "it waits until there is a batch"
    assert await found("number7") == [made[7].fingerprint]
    assert await store.index_text(20) == 20 * later
    assert await store.index_text(1) == 0
    assert await found("number7") == [made[7].fingerprint]
    await store.put([Made(7, ("renamed <u7@x.example>",)).find()], [], await store.begin(), NOW)
    assert await found("number7") == []
    assert await found("renamed") == [made[7].fingerprint]
    assert await store.index_text(1) == later
    assert (await found("renamed"), await found("number7")) == ([made[7].fingerprint], [])
    await store.delete(made[19].fingerprint, NOW)  # the next one may have its number
    again = Made(50, ("newcomer <n@x.example>",))
    await store.put([again.find()], [], await store.begin(), NOW)
    assert (await found("newcomer"), await found("number19")) == ([again.fingerprint], [])
    assert await store.index_text(1) == later
    assert (await found("newcomer"), await found("number19")) == ([again.fingerprint], [])
    await store.purge_all(NOW)
    assert await found("number7") == []
    await store.put([again.find()], [], await store.begin(), NOW)
    assert await found("newcomer") == [again.fingerprint]


async def test_text_behind_a_nul_is_indexed_too(store: Store, backend: Backend) -> None:
    made = Made(1, ("\0nul <nul@x.example>",))
    await store.put([made.find()], [], await store.begin(), NOW)
    assert await store.index_text(1) == int(backend.kind == "sqlite")
    for text in ("nul@x", "\0nul", "\0nu"):
        page = await store.list(by(what=Filter(Selection(text=text))), None, Budget(clock))
        assert places(page.entries) == [(made.fingerprint, K, "one")], text


@pytest.mark.parametrize("sort", list(Sort))
@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("candidates", [20, 5000])
async def test_every_age_of_every_origin_has_its_place(
    store: Store, sort: Sort, descending: bool, candidates: int
) -> None:
    """What ends at the same instant with different times to live, and twice each, is in one order and comes once."""
    world, n = World(), 0
    for age in (*AGES, *reversed(AGES)):
        for source, origins in ORIGINS.items():
            for origin in origins:
                texts = (f"<u{n}@x.example>", f"<also{n}@x.example>") if n % 3 else ()
                await world.put(store, Made(n, texts), source, origin, NOW - age)
                n += 1
    for what in (
        Filter(),
        Filter(Selection(domain="x.example")),
        Filter(Selection(upstream="two")),
        Filter(Selection(source=K)),
    ):
        listing = by(sort, descending=descending, what=what)
        right = [row.place for row in expected(world, listing)]
        for rows in (1, 10):
            pages = await walked(store, listing, Budget(clock, rows, candidates))
            assert places([e for page in pages for e in page.entries]) == right, what


async def test_a_listing_sees_one_instant_while_others_write(store: Store, other: tuple[Store, object]) -> None:
    await filled(store, 10)
    first = await store.list(by(), None, Budget(clock, 4))
    await other[0].delete(Made(0).fingerprint, NOW)
    rest = await walked(store, by(), Budget(clock, 4))
    assert len(first.entries) == 4
    assert sum(len(page.entries) for page in rest) == 9


@pytest.mark.parametrize("backend", ["postgres"], indirect=True)
async def test_texts_are_found_in_a_database_where_trigrams_are_refused(tmp_path: Path, backend: Backend) -> None:
    with Backend("postgres", tmp_path) as bare:
        drop = ("DROP SCHEMA public CASCADE", "CREATE SCHEMA public AUTHORIZATION keyserver")
        cluster = postgres.shared()
        cluster.sql(f"ALTER DATABASE {bare.database} OWNER TO postgres")
        cluster.sql(*drop, database=bare.database)
        for one, indexed in ((bare, "f"), (backend, "t")):
            async with one.opened() as (store, _):
                made = [Made(n, (f"100%_sure{n} <u{n}@x.example>",)) for n in range(20)]
                await store.put([m.find() for m in made], [], await store.begin(), NOW)
                pages = await walked(store, by(what=Filter(Selection(text="0%_SURE7"))), Budget(clock, candidates=7))
                assert [e.fingerprint for page in pages for e in page.entries] == [made[7].fingerprint]
                assert await store.search("0%_sure7", Kind.OPENPGP, 5) == (made[7].fingerprint,)
            assert cluster.sql("SELECT to_regclass('entry_folded') IS NOT NULL", database=one.database) == indexed
