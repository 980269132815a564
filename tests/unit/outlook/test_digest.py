"""The digest comes once in its time to each receiver, from the node that leads, whatever fails meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path

import pytest

from keyserver.changes import Changes
from keyserver.config.sections.mail import InviteSection
from keyserver.config.sections.outlook import OutlookSection
from keyserver.events.posting import Poster, Target
from keyserver.outlook.digest import AGAIN, Digest, Wanted
from keyserver.outlook.report import Report
from keyserver.store.base import StoreError
from keyserver.store.recipients import DAY
from keyserver.store.sqlite import SqliteStore
from support.relays import HANGUP, Relay
from tests.conformance.test_events import SECRET, check_of_the_document, receiving

NOW = 1_800_000_000
OPS, SOC = "ops@example.net", "soc@example.net"


@dataclass
class World:
    """One database, and nodes that share it."""

    store: SqliteStore
    poster: Poster
    wanted: Wanted
    now: int = NOW
    leading: bool = True
    asked: list[int] = field(default_factory=list)  # for how many days reports were made

    def mailing(self, relay: Relay, *to: str) -> None:
        invite = InviteSection(smtp=relay.url, smtp_tls="offered", sender="keys@example.net")
        self.wanted = Wanted(OutlookSection(digest_to=list(to)), invite, None)  # type: ignore[arg-type]

    def node(self) -> Digest:
        async def report(days: int) -> Report:
            self.asked.append(days)
            return Report(self.now, days, True, (), (), (), (), ())

        return Digest(
            report=report,
            marks=self.store.history,
            wanted=lambda: self.wanted,
            poster=self.poster,
            leads=lambda: self.leading,
            identity=lambda text: f"#{len(text)}",
            node="gw1",
            clock=lambda: self.now,
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = SqliteStore(tmp_path / "cache.db", {}, Changes(), 1 << 30)
    await store.open()
    poster = Poster(lambda: NOW, time=2.0)
    yield World(store, poster, Wanted(OutlookSection(), InviteSection(), None))
    await poster.close()
    await store.close()


async def test_it_comes_once_a_week_whatever_starts_again(world: World) -> None:
    async with Relay() as relay:
        world.mailing(relay, OPS)
        first, second = world.node(), world.node()
        for passed in (0, 60, 3 * DAY, 7 * DAY - 60, 7 * DAY, 7 * DAY + 60, 13 * DAY, 14 * DAY):
            world.now = NOW + passed
            for node in (first, second, world.node()):
                await node.send_due()
    assert world.asked == [30, 30, 30]
    assert len(relay.mails) == 3
    mail = message_from_bytes(relay.mails[0], policy=policy.SMTP)
    assert (mail["From"], mail["To"]) == ("keys@example.net", OPS)
    assert "nothing ends in the next 30 days" in mail["Subject"]
    assert "Nothing ends in the next 30 days." in mail.get_content()


async def test_nobody_is_told_where_nobody_is_named_or_this_node_follows(world: World) -> None:
    await world.node().send_due()
    async with Relay() as relay:
        world.mailing(relay, OPS)
        world.leading = False
        await world.node().send_due()
        assert (world.asked, relay.commands) == ([], [])
        world.leading = True
        await world.node().send_due()
        assert len(relay.mails) == 1


async def test_a_relay_that_fails_is_tried_again_later_and_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    node = world.node()
    async with Relay(RCPT="451 4.3.0 later") as relay:
        world.mailing(relay, OPS)
        for passed in (0, 60, AGAIN - 1):
            world.now = NOW + passed
            await node.send_due()
        assert len([c for c in relay.commands if c.startswith(b"RCPT")]) == 1
    assert "451 4.3.0 later" in caplog.text
    assert OPS not in caplog.text
    async with Relay() as relay:
        world.mailing(relay, OPS)
        await node.send_due()
        assert relay.mails == []
        world.now = NOW + AGAIN
        await node.send_due()
        await node.send_due()
        assert len(relay.mails) == 1


async def test_who_took_it_gets_it_once_though_another_did_not(world: World) -> None:
    node = world.node()
    async with Relay() as relay:
        world.mailing(relay, OPS)
        await node.send_due()
    async with Relay() as relay:
        world.mailing(relay, OPS, SOC)
        await node.send_due()
    assert [command for command in relay.commands if command.startswith(b"RCPT")] == [b"RCPT TO:<soc@example.net>"]


async def test_one_of_which_nobody_knows_is_not_sent_again(world: World) -> None:
    async with Relay(taken=HANGUP) as relay:
        world.mailing(relay, OPS)
        await world.node().send_due()
        await world.node().send_due()
        assert len(relay.mails) == 1


async def test_a_mark_that_could_not_be_made_is_made_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    node, move = world.node(), world.store.history.move

    async def failing(receiver: str, number: int) -> None:
        raise StoreError("the disk is full")

    async with Relay() as relay:
        world.mailing(relay, OPS)
        monkeypatch.setattr(world.store.history, "move", failing)
        with pytest.raises(StoreError):
            await node.send_due()
        monkeypatch.setattr(world.store.history, "move", move)
        await node.send_due()
        await world.node().send_due()  # another process knows by the mark alone
        assert len(relay.mails) == 1


async def test_a_mark_of_a_wrong_clock_silences_nobody(world: World) -> None:
    node = world.node()
    async with Relay() as relay:
        world.mailing(relay, OPS)
        world.now = NOW + 5000 * DAY
        await node.send_due()
        world.now = NOW
        again = world.node()
        for _ in range(3):
            await again.send_due()
        world.now = NOW + 7 * DAY
        await again.send_due()
        assert len(relay.mails) == 3


async def test_the_webhooks_receiver_gets_it_signed_and_its_check_passes_it_over(world: World) -> None:
    async with receiving() as receiver:
        said = OutlookSection(digest_webhook=True)
        world.wanted = Wanted(said, InviteSection(), Target(receiver.url, SECRET))
        node = world.node()
        await node.send_due()
        await node.send_due()
        [(headers, body, _)] = receiver.posts
        assert receiver.repeated == [0]  # signed, and no event
        assert check_of_the_document()(headers, body, SECRET, -1, NOW) == 0
        told = json.loads(body)
        assert {name: told[name] for name in ("id", "what", "node", "at", "days", "ending")} == {
            "id": 0,
            "what": "outlook",
            "node": "gw1",
            "at": NOW,
            "days": 30,
            "ending": [],
        }


async def test_trouble_ends_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The task lives on, and says it once."""
    async with Relay() as relay:
        world.mailing(relay, OPS)
        await world.store.close()
        task = asyncio.create_task(world.node().run())
        await asyncio.sleep(0.3)
        assert not task.done()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert relay.mails == []
    assert "outlook" in caplog.text
