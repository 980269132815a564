"""`/mailflow`: the queue, the latest mails, and what waits."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.model import Source, State, Voucher
from support.administering import Admin, running
from support.hostile_text import NASTY, harmless
from support.mails import attached_key, head, multipart, text
from support.openpgp import CREATED, make

NOW = CREATED + 86400
BOB = "bob@partner.example"


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW) as one:
        yield one


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.partition("<main")[2]))


def mail(octets: bytes, sender: str = f"Bob <{BOB}>") -> bytes:
    return head(sender) + multipart(text(), attached_key(octets))


async def test_nothing_yet(admin: Admin) -> None:
    status, page, _ = await admin.open("/mailflow")
    assert status == 200
    for said in ("Nothing is held.", "No mail has been read", "No address has shown another certificate"):
        assert said in words(page)


async def test_mails_and_changes(admin: Admin) -> None:
    one, two = make([f"Bob <{BOB}>"], seed="one"), make([f"Bob <{BOB}>"], seed="two")
    for made in (one, two):
        await admin.parts.operations.service.harvest(mail(made.octets))
    _, page, _ = await admin.open("/mailflow")
    said = words(page)
    assert "inbound" in said
    assert "held" in said
    changed = page.partition("Changed certificates")[2]
    assert changed.index(two.fingerprint) < changed.index(one.fingerprint)
    forms = re.findall(r'action="/mailflow/approve".*?value="([^"]*)".*?value="([^"]*)".*?value="([^"]*)"', page)
    assert forms == [(two.fingerprint, BOB, "mailflow"), (one.fingerprint, BOB, "mailflow")]
    form = {"fingerprint": two.fingerprint, "address": BOB, "source": "mailflow"}
    status, _, headers = await admin.open("/mailflow/approve", method="POST", data=form)
    assert (status, headers["Location"]) == (303, "/mailflow?done=approved&n=1")
    assert await admin.state(BOB) is State.FOUND
    _, page, _ = await admin.open(headers["Location"])
    assert "Approved 1 entry." in page
    waiting = page.partition("waiting for an administrator")[2].partition("Changed certificates")[0]
    assert one.fingerprint in waiting
    assert two.fingerprint not in waiting
    status, page, _ = await admin.open("/mailflow/approve", method="POST", data={"source": "mailflow"})
    assert (status, "fingerprint is missing" in page) == (400, True)


@pytest.mark.parametrize("text_", NASTY)
async def test_hostile_texts(admin: Admin, text_: str) -> None:
    made = make([text_])
    held = (Voucher("evil@example.org", held=True),)
    await admin.put(made.octets, Source.MAILFLOW, "example.org", vouchers=held, detail=text_[:900])
    await admin.parts.operations.service.harvest(mail(made.octets, "evil@example.org"))
    status, page, _ = await admin.open("/mailflow")
    assert (status, harmless(page)) == (200, True)
    assert made.fingerprint in page
    assert len(page) < 25_000


async def test_viewers_only_read(admin: Admin) -> None:
    fingerprint = await admin.put(
        make([f"Bob <{BOB}>"]).octets, Source.MAILFLOW, "partner.example", vouchers=(Voucher(BOB, held=True),)
    )
    reader = await admin.viewer()
    status, page, _ = await admin.open("/mailflow", reader)
    assert (status, fingerprint in page) == (200, True)
    assert "<form" not in page.partition("<main")[2]
    form = {"fingerprint": fingerprint, "address": BOB, "source": "mailflow"}
    assert (await admin.open("/mailflow/approve", reader, "POST", data=form))[0] == 403
    assert await admin.state(BOB) is not State.FOUND
