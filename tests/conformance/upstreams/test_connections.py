"""What every protocol promises of connections: TLS that is no good, hosts that are not there, closing at any time."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from keyserver.model import Absent, Failed, Found
from support.protocols import (
    AMPLE,
    BY_TLS,
    EVERY,
    LATER,
    LEFT,
    OCTETS,
    PROTOCOLS,
    Stage,
    ask,
    closed,
    connections,
    counted,
    octets,
)
from support.scripted import Behaviour, Request, hang, raw, reply, reset
from support.tls import Authority


@BY_TLS
@pytest.mark.parametrize("case", ["another name", "expired", "nobody's authority"])
async def test_tls_that_is_no_good(
    stage: Stage, authority: Authority, tmp_path: Path, protocol: str, case: str
) -> None:
    spoken = PROTOCOLS[protocol]
    tls = {
        "another name": authority.server("other.partner.de"),
        "expired": authority.server(spoken.host, expired=True),
        "nobody's authority": Authority(tmp_path / "other").server(spoken.host),
    }[case]
    asked: list[int] = []
    async with stage(spoken, counted(reply(200, OCTETS), asked), tls) as (upstream, port):
        assert isinstance(await ask(upstream, spoken.query), Failed)
        assert not asked, "nothing is told to whoever cannot say who he is"
        await upstream.close()
        assert await closed(port)


@BY_TLS
@pytest.mark.parametrize(
    "behaviour", [raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), hang, reset], ids=["no", "mute", "reset"]
)
async def test_a_server_without_tls(stage: Stage, protocol: str, behaviour: Behaviour) -> None:
    plain = replace(PROTOCOLS[protocol], serve=lambda behaviour, _: octets(behaviour, None))
    async with stage(plain, behaviour) as (upstream, port):
        assert isinstance(await ask(upstream, plain.query), Failed)
        await upstream.close()
        assert await closed(port)


@EVERY
@pytest.mark.parametrize("known", [True, False])
async def test_nobody_there(stage: Stage, protocol: str, known: bool) -> None:
    """A host that was written down, or has answered before, has failed; one made of an address never was there."""
    spoken = PROTOCOLS[protocol]
    absent = spoken.template and not known
    async with stage(spoken) as (_, port):
        pass
    gone = replace(spoken, serve=lambda behaviour, tls: contextlib.nullcontext(port))
    async with stage(gone) as (upstream, _):
        assert isinstance(await ask(upstream, spoken.query, known=known, left=AMPLE), Absent if absent else Failed)
    async with stage(gone, table={}) as (upstream, _):
        assert isinstance(await ask(upstream, spoken.query, known=known, left=AMPLE), Absent if absent else Failed)
    trouble = dict.fromkeys(("partner.de", "keys.partner.de", "openpgpkey.partner.de"), OSError("SERVFAIL"))
    async with stage(gone, table=trouble) as (upstream, _):
        assert isinstance(await ask(upstream, spoken.query, known=known, left=AMPLE), Failed), "nobody could say"


def stuck(reached: asyncio.Event) -> Behaviour:
    """Hears a question, and says nothing to it."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await hang(request, writer)

    return behave


@EVERY
async def test_closing_in_the_middle_of_a_question(stage: Stage, protocol: str) -> None:
    spoken = PROTOCOLS[protocol]
    reached = asyncio.Event()
    async with stage(spoken, stuck(reached)) as (upstream, port):
        waiting = asyncio.ensure_future(ask(upstream, spoken.query))
        await asyncio.wait_for(reached.wait(), LEFT)
        await asyncio.wait_for(upstream.close(), LATER)
        assert isinstance(await waiting, Failed)
        assert await closed(port)
        assert not isinstance(await ask(upstream, spoken.query), Found), "nothing is asked any more"
        assert not connections(port)


@EVERY
async def test_giving_up_in_the_middle_of_a_question(stage: Stage, protocol: str) -> None:
    spoken = PROTOCOLS[protocol]
    reached = asyncio.Event()
    async with stage(spoken, stuck(reached)) as (upstream, port):
        waiting = asyncio.ensure_future(ask(upstream, spoken.query))
        await asyncio.wait_for(reached.wait(), LEFT)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await closed(port), "nobody waits for what is said there"
