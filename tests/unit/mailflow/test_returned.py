"""What follows from mail beside entries: invitations that have come back, and people who may be invited."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from keyserver import smime
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.invite.automatic import WAITING, Automatic
from keyserver.mailflow.counts import Counts
from keyserver.mailflow.intake import Intake
from keyserver.mailflow.memory import ArrivingMail, MailMemory
from keyserver.mailflow.milter import Conversation
from keyserver.mailflow.values import Envelope, Rules, Way
from keyserver.model import Find, Kind, Source
from keyserver.policy import with_subdomains
from keyserver.resolver.cleaner import Cleaner
from keyserver.rules import InForce
from keyserver.store.base import StoreError
from keyserver.store.invitations import Invitation, Quota, Stage
from keyserver.store.sqlite import SqliteStore
from keyserver.wire import milter
from support import milter_client
from support.listed import listed
from support.mails import attached_key, crlf, head, multipart, text
from support.milter_client import connect, negotiate
from support.openpgp import CREATED, Made, make

NOW = CREATED + 86400 * 365
ID = "00112233445566778899aabbccddeeff"
ALICE = "alice@partner.example"
PASSED = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=partner.example"}
RULES = Rules(authserv_id="mx.here.example", internal_domains=with_subdomains(["here.example"]))


@dataclass
class World:
    """An intake over the real store, and who was offered to be invited."""

    intake: Intake
    store: SqliteStore
    fresh: list[tuple[str, str]] = field(default_factory=list)
    reader: asyncio.Task[None] | None = None

    async def deliver(self, octets: bytes, way: Way = Way.LMTP, sender: str = "") -> None:
        if way is Way.FILE:
            await self.intake.harvest(octets)
            return
        holding = ArrivingMail(self.intake.memory, 1 << 20)
        holding.add(octets)
        assert self.intake.offer(Envelope(way, sender=sender), holding)
        await self.intake.drain(10)

    async def stage(self) -> tuple[Stage, str]:
        (one,) = await self.store.invitations.invitations(1)
        return one.stage, one.note


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    hygiene = hygiene_of(smime.Anchors([]))
    store = SqliteStore(tmp_path / "keyserver.db", hygiene, Changes(), max_size=1 << 30)
    cleaner = Cleaner({kind: own.clean for kind, own in hygiene.items()}, monotonic=time.monotonic)
    fresh: list[tuple[str, str]] = []
    intake = Intake(
        store=store,
        cleaner=cleaner,
        hygiene=hygiene,
        rules=InForce(RULES),
        clock=lambda: NOW,
        counts=Counts(CollectorRegistry()),
        identity=lambda identity: "#hash",
        memory=MailMemory(),
        fresh=lambda address, fingerprint: fresh.append((address, fingerprint)),
    )
    await store.open()
    made = World(intake, store, fresh)
    made.reader = asyncio.get_running_loop().create_task(intake.run())
    try:
        yield made
    finally:
        made.reader.cancel()
        intake.close()
        await cleaner.close()
        await store.close()


@pytest.fixture
async def invited(world: World) -> World:
    """An invitation has been sent."""
    made = make([f"<{ALICE}>"])
    (clean,) = hygiene_of(smime.Anchors([]))[Kind.OPENPGP].clean(made.octets, NOW)
    find = Find(clean, Source.MAILFLOW, "partner.example")  # type: ignore[arg-type]
    await world.store.put([find], [], await world.store.begin(), NOW)
    invitation = Invitation(ID, ALICE, made.fingerprint, Kind.OPENPGP, Source.MAILFLOW, "partner.example",
                            NOW, "ann", NOW + 86400)  # fmt: skip
    assert await world.store.invitations.prepare(invitation, b"c" * 32, b"w" * 32, Quota(9, 9, 9)) is None
    await world.store.invitations.delivered(ID, NOW)
    return world


def returned(of: str = f"<{ID}.invitation@here.example>", action: str = "failed") -> bytes:
    status = f"Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; {ALICE}\nAction: {action}\nStatus: 5.1.1\n"
    parts = [
        text("Sorry.\n"),
        f"Content-Type: message/delivery-status\n\n{status}".encode(),
        f"Content-Type: text/rfc822-headers\n\nMessage-ID: {of}\n".encode(),
    ]
    body = multipart(*parts).replace(b"multipart/mixed", b"multipart/report; report-type=delivery-status")
    return crlf(head("MAILER-DAEMON@mx.here.example", MIME_Version="1.0") + body)


@pytest.mark.parametrize("way", [Way.LMTP, Way.MILTER])
async def test_an_invitation_that_has_come_back(invited: World, way: Way) -> None:
    await invited.deliver(returned(), way)
    assert await invited.stage() == (Stage.BOUNCED, "5.1.1")


async def test_the_milter_wants_to_see_notifications_of_our_own_mail_server(invited: World) -> None:
    """Their From is internal, which is otherwise enough to read no further."""
    conversation, said = Conversation(invited.intake), b""
    frames = negotiate() + connect() + b"".join(milter_client.mail(returned(), sender="<>"))
    for one in milter.Reader().feed(frames):
        said += conversation.answer(one)
    await invited.intake.drain(10)
    assert (await invited.stage())[0] is Stage.BOUNCED


@pytest.mark.parametrize(
    ("octets", "options"),
    [
        (returned(), {"sender": "mailer-daemon@partner.example"}),
        (returned(), {"way": Way.FILE}),
        (returned(action="delayed"), {}),
        (returned(f"<{'0' * 32}.invitation@here.example>"), {}),
        (returned(f"<{ID}@here.example>"), {}),
        (returned(f"<x{ID}.invitation@here.example>"), {}),
        (returned().replace(b"report-type=delivery-status", b"report-type=x"), {}),
    ],
)
async def test_what_says_nothing_of_ours(invited: World, octets: bytes, options: dict[str, object]) -> None:
    await invited.deliver(octets, **options)  # type: ignore[arg-type]
    assert (await invited.stage())[0] is Stage.SENT


async def test_a_consent_does_not_come_back(invited: World) -> None:
    await invited.store.invitations.confirm(b"c" * 32, NOW)
    await invited.deliver(returned())
    assert (await invited.stage())[0] is Stage.CONFIRMED


async def test_a_store_that_fails_ends_nothing(invited: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> bool:
        raise StoreError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(invited.store.invitations, "bounced", fail)
        await invited.deliver(returned())
    await invited.deliver(returned())
    assert (await invited.stage())[0] is Stage.BOUNCED


def shows(made: Made, sender: str = ALICE, **more: str) -> bytes:
    return crlf(head(sender, **more) + multipart(text(), attached_key(made.octets)))


async def test_an_authenticated_senders_new_certificate_is_fresh_once(world: World) -> None:
    made = make([f"<{ALICE}>"])
    for _ in range(2):
        await world.deliver(shows(made, **PASSED), sender=ALICE)
    assert world.fresh == [(ALICE, made.fingerprint)]


async def test_nobody_else_is(world: World) -> None:
    made, other, internal = make([f"<{ALICE}>"]), make([f"<{ALICE}>"]), make(["<bob@here.example>"])
    await world.deliver(shows(make([f"<{ALICE}>"])), sender=ALICE)  # not authenticated
    await world.deliver(shows(made, **PASSED), Way.FILE)  # an old file is nobody's writing now
    assert made.fingerprint in {entry.fingerprint for entry in await listed(world.store)}
    await world.deliver(shows(other, **PASSED), sender=ALICE)  # held: it showed another one before
    ours = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=here.example"}
    await world.deliver(shows(internal, "bob@here.example", **ours), sender="bob@here.example")
    assert world.fresh == []


class Inviting:
    """What is asked to invite; `gate`: when it may."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, address: str, fingerprint: str) -> None:
        self.asked.append((address, fingerprint))
        await self.gate.wait()
        if address.startswith("no"):
            raise RuntimeError("the relay refuses")


async def running(world: World, inviting: Inviting, wanted: list[bool]) -> tuple[Automatic, asyncio.Task[None]]:
    automatic = Automatic(
        wanted=lambda: wanted[0],
        invitations=world.store.invitations,
        identity=lambda identity: f"#{len(identity)}",
    )
    return automatic, asyncio.get_running_loop().create_task(automatic.run(inviting))


async def test_each_is_invited_once_and_failures_are_logged(invited: World, caplog: pytest.LogCaptureFixture) -> None:
    inviting, known = Inviting(), (await invited.store.invitations.invitations(1))[0].fingerprint
    automatic, task = await running(invited, inviting, [True])
    for address, fingerprint in (
        (ALICE, known),
        (ALICE, "AB" * 20),
        ("nobody@x.example", "CD" * 20),
        ("z@x.example", "EF" * 20),
    ):
        automatic.offer(address, fingerprint)
    await automatic.drained()
    assert inviting.asked == [(ALICE, "AB" * 20), ("nobody@x.example", "CD" * 20), ("z@x.example", "EF" * 20)]
    assert "the relay refuses" in caplog.text
    assert "nobody@x.example" not in caplog.text
    task.cancel()


async def test_nothing_is_sent_unless_it_is_switched_on(world: World) -> None:
    inviting, wanted = Inviting(), [False]
    automatic, task = await running(world, inviting, wanted)
    automatic.offer(ALICE, "AB" * 20)
    await automatic.drained()
    wanted[0] = True
    automatic.offer(ALICE, "AB" * 20)
    wanted[0] = False  # before its turn
    await automatic.drained()
    assert inviting.asked == []
    task.cancel()


async def test_a_flood_is_bounded(world: World) -> None:
    inviting = Inviting()
    inviting.gate.clear()
    automatic, task = await running(world, inviting, [True])
    for number in range(3 * WAITING):
        automatic.offer(f"a{number}@x.example", "AB" * 20)
    inviting.gate.set()
    await automatic.drained()
    assert len(inviting.asked) == WAITING
    task.cancel()
