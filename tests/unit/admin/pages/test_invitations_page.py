"""The page of invitations: a form, what became of each in words, and nothing of a relay's words as markup."""

from __future__ import annotations

import re

import pytest

from keyserver.admin.pages.invitations import WORDS
from keyserver.config.sections.mail import InviteSection
from keyserver.model import Kind, Source, Voucher
from keyserver.store.invitations import Invitation, Quota, Stage
from support import openpgp
from support.administering import NAME, Admin
from support.relays import Relay

HERE = "/invitations"
ALICE = "alice@example.org"


def through(admin: Admin, relay: Relay | None) -> None:
    keys = {"smtp": relay.url if relay else "", "sender": "keys@example.net", "public_url": "https://optin.example.net"}
    admin.parts.rules.invite.replace(InviteSection.model_validate({**keys, "smtp_tls": "offered"}))


async def mailed(admin: Admin) -> str:
    octets = openpgp.make([f"<{ALICE}>"]).octets
    return await admin.put(octets, Source.MAILFLOW, "example.org", vouchers=(Voucher(ALICE, True),))


async def test_somebody_is_invited_by_the_form(admin: Admin) -> None:
    fingerprint = await mailed(admin)
    async with Relay() as relay:
        through(admin, relay)
        page = (await admin.open(HERE))[1]
        assert "Nobody has been invited yet" in page
        assert '<form method="post" action="/invitations"' in page
        status, _, headers = await admin.open(HERE, method="POST", data={"address": ALICE})
        assert (status, headers["Location"]) == (303, f"{HERE}?sent=1")
    assert len(relay.mails) == 1
    page = (await admin.open(headers["Location"]))[1]
    assert "The relay has taken the invitation" in page
    assert "waits for the owner" in page
    assert ALICE in page
    assert f"/cache/{fingerprint}" in page
    assert "14 d" in page


async def test_the_certificate_has_a_button_for_each_address_that_could_be_approved(admin: Admin) -> None:
    fingerprint = await mailed(admin)
    through(admin, None)
    assert f"Invite {ALICE}" not in (await admin.open(f"/cache/{fingerprint}"))[1]
    async with Relay() as relay:
        through(admin, relay)
        page = (await admin.open(f"/cache/{fingerprint}"))[1]
        (form,) = re.findall(r'<form method="post" action="/invitations">(.*?)</form>', page)
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
        assert fields == {"address": ALICE, "fingerprint": fingerprint, "source": "mailflow"}
        assert (await admin.open(HERE, method="POST", data=fields))[0] == 303
        assert "its owner invited" in (await admin.open(f"/cache/{fingerprint}"))[1]


async def test_what_is_wrong_is_said_and_what_was_typed_stays(admin: Admin) -> None:
    async with Relay() as relay:
        through(admin, relay)
        status, page, _ = await admin.open(HERE, method="POST", data={"address": '<b>"'})
        assert status == 400
        assert 'value="&lt;b&gt;&#34;"' in page
        status, page, _ = await admin.open(HERE, method="POST", data={"address": ALICE})
        assert status == 404
        assert not relay.commands


async def test_several_that_fit_have_a_button_each(admin: Admin) -> None:
    one, other = await mailed(admin), await mailed(admin)
    async with Relay() as relay:
        through(admin, relay)
        status, page, _ = await admin.open(HERE, method="POST", data={"address": ALICE})
        assert status == 409
        assert {one, other} == set(re.findall(r'name="fingerprint" value="([0-9A-F]+)"', page))
        await admin.put((await admin.store.certificate(one)).entries[0].octets)
        form = {"address": ALICE, "fingerprint": one}
        page = (await admin.open(HERE, method="POST", data=form))[1]
        assert re.findall(r'name="source" value="(\w+)"', page) == ["keyserver", "mailflow"]
        assert f'name="upstream" value="{NAME}"' in page


async def test_each_stage_has_words_and_why_is_shown_as_text(admin: Admin) -> None:
    assert set(WORDS) == {*Stage, "expired"}
    fingerprint = await mailed(admin)
    store, now = admin.store.invitations, admin.clock.now
    made = Invitation("1" * 32, ALICE, fingerprint, Kind.OPENPGP, Source.MAILFLOW, "example.org", now, "anna", now + 60)
    assert await store.prepare(made, b"c" * 32, b"w" * 32, Quota(9, 9, 9)) is None
    assert "on its way" in (await admin.open(HERE))[1]
    await store.delivered(made.id, now)
    assert await store.bounced(made.id, now, "550 <script>alert(1)</script>")
    page = (await admin.open(HERE))[1]
    assert "came back" in page
    assert "550 &lt;script&gt;" in page
    admin.clock.pass_(60)
    page = (await admin.open(HERE))[1]
    assert "expired without an answer" in page
    assert "550 &lt;script&gt;" in page


async def test_viewers_have_no_form(admin: Admin) -> None:
    token = await admin.viewer()
    async with Relay() as relay:
        through(admin, relay)
        assert '<form method="post"' not in (await admin.open(HERE, token))[1]
        assert (await admin.open(HERE, token, method="POST", data={"address": ALICE}))[0] == 403


async def test_without_a_relay_the_page_says_so(admin: Admin) -> None:
    page = (await admin.open(HERE))[1]
    assert "names no relay" in page
    assert '<form method="post" action="/invitations"' not in page


@pytest.mark.parametrize("query", ["cursor=x", "address=nobody", "other=1"])
async def test_wrong_addresses_of_the_page(admin: Admin, query: str) -> None:
    assert (await admin.open(f"{HERE}?{query}"))[0] == 400
