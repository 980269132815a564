"""The same questions through us and directly to real keyservers: every difference has its rule.

A peer holds certificates of Debian's keyrings and odd ones; each question is asked of the peer itself and of a service
that has this peer alone as its upstream. What the peer alone gives, what we alone give, what is given in another form
or listed otherwise, and each other status, is explained by the first rule that holds, counted and printed; what no rule
explains fails. `test_differential_ldap.py` and `test_differential_wkd.py` do the same with other kinds of peers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from keyserver.query import BadQuery, ByText, parse
from support import indexes
from support.differing import SAME, Reply, Tally, World, compare, fetched, held, questions, through
from support.indexes import Given, Listed
from support.keyservers import hockeypuck, onak, sks

GET, INDEX, PAGE = "op=get&options=mr", "op=index&options=mr", "op=vindex&exact=on&fingerprint=on"

Server = Callable[..., contextlib.AbstractAsyncContextManager[str]]


def other_status(term: str, theirs: Reply, ours: Reply, given: tuple[Reply, Reply]) -> str:
    """Why the statuses of two answers differ. given: what `op=get` gave, certificate by certificate explained."""
    if theirs.status == ours.status:
        return SAME
    try:
        sought = not isinstance(parse(term), ByText)
    except BadQuery:
        sought = False
    if not sought:
        return "what names nothing is refused, not sought" if ours.status in (400, 404, 501) else ""
    if ours.status == 200:
        return "as op=get: found by us alone" if given[1].found and not given[0].found else ""
    if ours.status == 404 and theirs.status == 200:
        if given[0].found and not given[1].found:
            return "as op=get: nothing is left of what the peer gives"
        return "" if given[0].found else "the peer says 200 where it has nothing"
    return ""


async def asked(port: int, ours: int, world: World, many: int, gpg: Mapping[str, Listed]) -> Mapping[str, Tally]:
    """The questions to a keyserver and to our service, and all the differences."""
    got, listed, statuses = Tally(), Tally(), Tally()
    known: set[str] = set()
    async with aiohttp.ClientSession() as session:

        async def both(operation: str, term: str) -> tuple[Reply, Reply]:
            target = f"pks/lookup?{operation}&search={quote(term)}"
            urls = [f"http://127.0.0.1:{number}/{target}" for number in (port, ours)]
            theirs, mine = await asyncio.gather(*(fetched(session, url) for url in urls))
            return theirs, mine

        for term in questions(world.held, many):
            given = await both(GET, term)
            replies = {GET: given}
            compare(got, term, given[0].found, given[1].found, world)
            if term not in known:
                replies |= {operation: await both(operation, term) for operation in (INDEX, PAGE)}
                known.add(term)
            for operation, (theirs, mine) in replies.items():
                why = other_status(term, theirs, mine, given)
                statuses.note(why, f"{operation} {term!r}: {theirs.status}, ours {mine.status}")
            if INDEX in replies and all(reply.status == 200 for reply in replies[INDEX]):
                both_indexes = (indexes.read(reply.body) for reply in replies[INDEX])
                indexes.compare(listed, term, *both_indexes, Given(given[0].found, given[1].found, gpg))
    return {"certificates of op=get": got, f"op=index of {len(known):,} terms": listed, "statuses": statuses}


@contextlib.asynccontextmanager
async def keyserver(name: str, folder: Path, config: pytest.Config, world: World) -> AsyncIterator[str]:
    """One of them, with what the world holds; its URL."""
    servers: dict[str, Server] = {"sks": sks, "onak": onak}
    if name == "hockeypuck":
        servers[name] = functools.partial(hockeypuck, Path(config.getoption("--hockeypuck")))
    async with servers[name](folder, *world.held.values()) as url:
        yield url


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """hockeypuck, which Debian has not, only where somebody says where it is."""
    more = ["hockeypuck"] if metafunc.config.getoption("--hockeypuck") else []
    metafunc.parametrize("peer", ["sks", "onak", *more])


@pytest.mark.soak
async def test_every_difference_to_a_real_keyserver_has_a_rule(
    peer: str, tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(held())
    many = pytestconfig.getoption("--questions")
    gpg = indexes.judged(tmp_path, world.held)
    async with keyserver(peer, tmp_path, pytestconfig, world) as url:
        with through(tmp_path, url) as service:
            tallies = await asked(int(url.rpartition(":")[2]), service.port(), world, many, gpg)
    for title, tally in tallies.items():
        tally.show(f"{peer}, {many:,} questions: {title}", capsys)
    for tally in tallies.values():
        tally.check()
