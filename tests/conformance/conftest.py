"""Values for the store's conformance suite: a kind of certificate so simple that only the store is under test.

Its octets are a JSON object: fingerprint, identities, revocations. Merging is the union of the lists.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from keyserver.changes import Changes
from keyserver.hygiene import Hygiene
from keyserver.model import Certificate, Change, Find, Kind, Name, Proof, Record, Source, UserId, Validity
from keyserver.query import name_of, parse_address
from keyserver.store.base import Store
from keyserver.store.sqlite import SqliteStore
from support import postgres

KINDS = ("sqlite", "postgres")
"""The stores that are held to every promise."""

EXAMPLES = {"sqlite": 28, "postgres": 6}
"""Generated worlds: each step there goes to another process and back."""


def octets_of(fingerprint: str, texts: Iterable[str], revocations: Iterable[str] = (), ballast: int = 0) -> bytes:
    value = {"fpr": fingerprint, "texts": sorted(set(texts)), "rev": sorted(set(revocations)), "ballast": "x" * ballast}
    return json.dumps(value, sort_keys=True).encode()


def merge(copies: Sequence[bytes], revocations: bytes) -> bytes:
    values = [json.loads(copy) for copy in copies]
    return octets_of(
        values[0]["fpr"],
        (text for value in values for text in value["texts"]),
        [r for value in values for r in value["rev"]] + json.loads(revocations or b"[]"),
        max(len(value["ballast"]) for value in values),
    )


def index_of(octets: bytes, kind: Kind = Kind.OPENPGP) -> tuple[frozenset[Name], tuple[str, ...]]:
    value = json.loads(octets)
    fingerprint = value["fpr"]
    names = {name_of(kind, "fpr", fingerprint), name_of(kind, "kid", fingerprint[-16:])}
    for text in value["texts"]:
        if address := parse_address(text.partition("<")[2].rstrip(">") or text):
            names.add(name_of(kind, "addr", address))
    return frozenset(names), tuple(value["texts"])


def _revocations(octets: bytes) -> bytes:
    found = json.loads(octets)["rev"]
    return json.dumps(found).encode() if found else b""


def _merge_revocations(one: bytes, other: bytes) -> bytes:
    return json.dumps(sorted({*json.loads(one), *json.loads(other)})).encode()


def _unasked(*_: object) -> Any:
    raise AssertionError("a store neither cleans nor proves")


HYGIENE = {
    kind: Hygiene(
        clean=_unasked,
        prove=_unasked,
        index=lambda octets, kind=kind: index_of(octets, kind),
        merge=merge,
        revocations=_revocations,
        merge_revocations=_merge_revocations,
    )
    for kind in Kind
}


def fingerprint_of(n: int) -> str:
    """The n-th made-up fingerprint; neighbours share no key ID."""
    return f"{n * 0x9E3779B97F4A7C15F39CC0605CEDC8341082276B:040X}"[-40:]


@dataclass(frozen=True)
class Made:
    """Shorthand for the suite: certificate number n, its fingerprint and its finds."""

    n: int
    texts: tuple[str, ...] = ()
    revocations: tuple[str, ...] = ()
    ballast: int = 0
    kind: Kind = Kind.OPENPGP

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.n)

    @property
    def fpr(self) -> Name:
        return name_of(self.kind, "fpr", self.fingerprint)

    @property
    def octets(self) -> bytes:
        return octets_of(self.fingerprint, self.texts, self.revocations, self.ballast)

    @property
    def names(self) -> frozenset[Name]:
        return index_of(self.octets, self.kind)[0]

    def find(self, source: Source = Source.KEYSERVER, origin: str = "one", **more: object) -> Find:
        names = self.names
        proof = Proof(
            kind=self.kind,
            version=4,
            fingerprint=self.fingerprint,
            key_id=self.fingerprint[-16:],
            algorithm=22,
            bits=255,
            created=1,
            expires=None,
            validity=Validity.VALID,
            can_encrypt=True,
            user_ids=tuple(UserId(text, None, 1, None, False) for text in self.texts),
            subkeys=(),
            strong=names,
            weak=frozenset(),
            index=names,
            newest=1,
            turns=None,
            identities=index_of(self.octets, self.kind)[1],
        )
        return Find(Certificate(self.octets, proof), source, origin, **more)  # type: ignore[arg-type]


def addr(address: str, kind: Kind = Kind.OPENPGP) -> Name:
    return name_of(kind, "addr", address)


def said(name: Name, found: bool, at: int, upstream: str = "one", asked_at: int = 0) -> Record:
    return Record(name, upstream, found, at, asked_at)


class Heard(list[Change]):
    """The changes that one process's store published."""

    @property
    def names(self) -> set[Name]:
        return {name for change in self for name in change.names}


class Backend:
    """Opens stores of one kind on one database, as several processes would. `close` it, or use it in a `with`."""

    def __init__(self, kind: str, directory: Path) -> None:
        assert kind in KINDS
        self.kind = kind
        self.path = directory / "cache" / "keyserver.db"
        """The file of an SQLite database."""
        self.database = "" if kind == "sqlite" else postgres.shared().create(_template())
        """The name of a PostgreSQL database on this process's cluster."""

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return postgres.shared().url(self.database) if self.database else f"sqlite:///{self.path}"

    def make(self, max_size: int = 1 << 30) -> tuple[Store, Heard]:
        heard, changes = Heard(), Changes()
        changes.subscribe(heard.append)
        if self.database:
            from keyserver.store.postgres import PostgresStore

            return PostgresStore(self.url, HYGIENE, changes, max_size), heard
        return SqliteStore(self.path, HYGIENE, changes, max_size), heard

    @asynccontextmanager
    async def opened(self, max_size: int = 1 << 30) -> AsyncIterator[tuple[Store, Heard]]:
        store, heard = self.make(max_size)
        await store.open()
        try:
            yield store, heard
        finally:
            await store.close()

    def close(self) -> None:
        """The database is not needed any more."""
        if self.database:
            postgres.shared().give_back(self.database)


@cache
def _template() -> str:
    """A database with an empty store in it: to copy that is faster than to make the tables each time."""
    cluster = postgres.shared()
    name = cluster.create()

    async def fill() -> None:
        from keyserver.store.postgres import PostgresStore

        store = PostgresStore(cluster.url(name), HYGIENE, Changes(), 1 << 30)
        await store.open()
        await store.close()

    with ThreadPoolExecutor(1) as thread:  # who asks may have an event loop already
        thread.submit(asyncio.run, fill()).result()
    cluster.freeze(name)
    return name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What goes through every order and size of step takes PostgreSQL minutes: of those the short run takes there one
    in seven, the long run all."""
    many = [item for item in items if "postgres" in item.name and item.name.startswith(_MANY)]
    for number, item in enumerate(many):
        if number % 7:
            item.add_marker("soak")


_MANY = ("test_paging_shows_what_stays", "test_every_age_of_every_origin")


@pytest.fixture(params=KINDS)  # a backend that joins is held to every promise below
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    with Backend(request.param, tmp_path) as backend:
        yield backend


@pytest.fixture
async def opened(backend: Backend) -> AsyncIterator[tuple[Store, Heard]]:
    async with backend.opened() as pair:
        yield pair


@pytest.fixture
def store(opened: tuple[Store, Heard]) -> Store:
    return opened[0]


@pytest.fixture
def heard(opened: tuple[Store, Heard]) -> Heard:
    return opened[1]


@pytest.fixture
async def other(backend: Backend, store: Store) -> AsyncIterator[tuple[Store, Heard]]:
    """A second process's store on the same database, opened after the first."""
    async with backend.opened() as pair:
        yield pair
