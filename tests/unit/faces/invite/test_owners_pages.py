"""The pages behind an invitation, over the real store: what changes by which request, and what nobody gets to know."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer

from keyserver import smime
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.faces.invite.app import Deed, Owners, make_pages
from keyserver.faces.invite.pages import OwnersPages
from keyserver.invite.tokens import Token
from keyserver.model import Certificate, Entry, Find, Kind, Source, Voucher
from keyserver.store.base import StoreError
from keyserver.store.invitations import Invitation, Quota, Stage
from keyserver.store.sqlite import SqliteStore
from support.listed import listed
from support.openpgp import CREATED, Made, make

NOW = CREATED + 86400 * 365
DAY = 86400
ALICE = "alice@partner.example"
QUOTA = Quota(1000, 1000, 1000)


@dataclass
class World:
    """The pages, and one certificate by mail, which is not approved."""

    store: SqliteStore
    hygiene: Any
    now: int = NOW
    made: Made = field(default_factory=lambda: make([f"<{ALICE}>"], seed="alice"))
    notes: list[tuple[Deed, str]] = field(default_factory=list)
    client: TestClient[web.Request, web.Application] = field(init=False)
    sender: str = "keys@here.example"
    number: int = 0

    async def note(self, deed: Deed, invitation: Invitation, request: web.Request) -> None:
        self.notes.append((deed, invitation.id))

    def pages(self, store: Any = None) -> web.Application:
        return make_pages(
            Owners(
                store=store or self.store,
                hygiene=self.hygiene,
                clock=lambda: self.now,
                sender=lambda: self.sender,
                note=self.note,
            )
        )

    async def cache(self, made: Made, origin: str = "partner.example", address: str = ALICE) -> None:
        (clean,) = self.hygiene[Kind.OPENPGP].clean(made.octets, self.now)
        assert isinstance(clean, Certificate)
        voucher = Voucher(address, held=True, seen_at=self.now)
        find = Find(clean, Source.MAILFLOW, origin, replace=False, vouchers=(voucher,))
        await self.store.put([find], [], await self.store.begin(), self.now)

    async def invite(self, address: str = ALICE, fingerprint: str = "", kind: Kind = Kind.OPENPGP) -> Token:
        self.number += 1
        token = Token(self.number.to_bytes(32, "big"))
        invitation = Invitation(
            id=f"{self.number:032x}",
            address=address,
            fingerprint=fingerprint or self.made.fingerprint,
            kind=kind,
            source=Source.MAILFLOW,
            origin="partner.example",
            made_at=self.now,
            made_by="ann",
            expires_at=self.now + 14 * DAY,
        )
        refused = await self.store.invitations.prepare(invitation, token.digest, token.withdrawal.digest, QUOTA)
        assert refused is None
        await self.store.invitations.delivered(invitation.id, self.now)
        return token

    async def entry(self) -> Entry | None:
        found = [e for e in await listed(self.store) if e.fingerprint == self.made.fingerprint]
        return found[0] if found else None

    async def stage(self) -> Stage:
        return (await self.store.invitations.invitations(1))[0].stage

    async def approved(self) -> bool:
        entry = await self.entry()
        voucher = entry.voucher(ALICE) if entry is not None else None
        return voucher is not None and voucher.approved


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    hygiene = hygiene_of(smime.Anchors([]))
    made = World(SqliteStore(tmp_path / "keyserver.db", hygiene, Changes(), max_size=1 << 30), hygiene)
    await made.store.open()
    await made.cache(made.made)
    made.client = TestClient(TestServer(made.pages()))
    await made.client.start_server()
    try:
        yield made
    finally:
        await made.client.close()
        await made.store.close()


async def said(response: ClientResponse) -> str:
    """The words of a page; what holds for all of them holds for it."""
    headers, page = response.headers, await response.text()
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Robots-Tag"] == "noindex"
    assert "Access-Control-Allow-Origin" not in headers
    assert '<html lang="en">' in page
    assert "<script" not in page
    assert len(re.findall("<h1>", page)) == 1
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL).split())


async def test_only_the_button_confirms(world: World) -> None:
    token = await world.invite()
    for _ in range(3):  # a scanner, an impatient reader
        shown = await world.client.get(f"/confirm/{token}?utm_source=x")
        assert shown.status == 200
        page = await said(shown)
        assert ALICE in page
        assert world.made.fingerprint[:4] in page
        assert (await world.client.head(f"/confirm/{token}")).status == 200
        assert (await world.client.get(f"/withdraw/{token.withdrawal}")).status == 200
    assert not await world.approved()
    assert world.notes == []
    assert await world.stage() is Stage.SENT

    world.now += 60
    pressed = await world.client.post(f"/confirm/{token}")
    assert pressed.status == 200
    assert f"/withdraw/{token.withdrawal}" in await pressed.text()
    assert await world.approved()
    assert world.notes == [(Deed.CONFIRM, f"{1:032x}")]
    (kept,) = await world.store.invitations.invitations(10)
    assert (kept.stage, kept.confirmed_at) == (Stage.CONFIRMED, world.now)


async def test_a_form_posts_to_where_it_stands(world: World) -> None:
    token = await world.invite()
    page = await (await world.client.get(f"/confirm/{token}")).text()
    assert '<form method="post"><button>' in page
    assert str(token) not in page, "the page itself holds no secret until it is used"


async def test_a_second_press_says_that_it_is_done(world: World) -> None:
    token = await world.invite()
    await world.client.post(f"/confirm/{token}")
    again = await world.client.post(f"/confirm/{token}")
    assert again.status == 410
    assert "Already confirmed" in await said(again)
    shown = await world.client.get(f"/confirm/{token}")
    assert shown.status == 200
    assert f"/withdraw/{token.withdrawal}" in await shown.text()
    assert len(world.notes) == 1


async def test_a_withdrawal_deletes_the_entry_and_works_once(world: World) -> None:
    token = await world.invite()
    await world.client.post(f"/confirm/{token}")
    world.now += 1000 * DAY
    shown = await world.client.get(f"/withdraw/{token.withdrawal}")
    assert shown.status == 200
    assert "Withdraw your consent?" in await said(shown)
    assert await world.entry() is not None
    gone = await world.client.post(f"/withdraw/{token.withdrawal}")
    assert gone.status == 200
    assert "Withdrawn" in await said(gone)
    assert await world.entry() is None
    assert [deed for deed, _ in world.notes] == [Deed.CONFIRM, Deed.WITHDRAW]
    for method in ("GET", "POST"):
        again = await world.client.request(method, f"/withdraw/{token.withdrawal}")
        assert again.status == 410
        assert "has been withdrawn" in await said(again)
        late = await world.client.request(method, f"/confirm/{token}")
        assert late.status == 410


async def test_a_withdrawal_before_any_consent_ends_the_invitation(world: World) -> None:
    token = await world.invite()
    assert (await world.client.post(f"/withdraw/{token.withdrawal}")).status == 200
    assert (await world.client.post(f"/confirm/{token}")).status == 410
    assert not await world.approved()


async def test_an_expired_invitation_is_shown_as_such(world: World) -> None:
    token = await world.invite()
    world.now += 14 * DAY
    for method in ("GET", "POST"):
        late = await world.client.request(method, f"/confirm/{token}")
        assert late.status == 410
        assert "has expired" in await said(late)
    assert not await world.approved()


async def test_the_later_of_two_invitations_counts(world: World) -> None:
    first, second = await world.invite(), await world.invite()
    for method in ("GET", "POST"):
        refused = await world.client.request(method, f"/confirm/{first}")
        assert refused.status == 410
        assert "later invitation" in await said(refused)
    assert (await world.client.get(f"/withdraw/{first.withdrawal}")).status == 410
    assert not await world.approved()
    assert (await world.client.post(f"/confirm/{second}")).status == 200
    assert await world.approved()


async def test_a_deleted_entry_cannot_be_confirmed(world: World) -> None:
    token = await world.invite()
    await world.store.delete(world.made.fingerprint, world.now)
    for method in ("GET", "POST"):
        gone = await world.client.request(method, f"/confirm/{token}")
        assert gone.status == 410
        assert "not known here any more" in await said(gone)


async def test_another_entry_of_the_same_certificate_is_not_meant(world: World) -> None:
    token = await world.invite()
    await world.store.delete(world.made.fingerprint, world.now)
    await world.cache(world.made, origin="other.example")
    for method in ("GET", "POST"):
        assert (await world.client.request(method, f"/confirm/{token}")).status == 410
    assert not await world.approved()


async def test_a_blocked_certificate_cannot_be_confirmed(world: World) -> None:
    token = await world.invite()
    await world.store.block(world.made.fingerprint, world.now, "why")
    for method in ("GET", "POST"):
        gone = await world.client.request(method, f"/confirm/{token}")
        assert gone.status == 410
        assert "blocked" in await said(gone)
    await world.store.unblock(world.made.fingerprint, world.now)
    assert (await world.client.post(f"/confirm/{token}")).status == 200


@pytest.mark.parametrize("how", [{"revoked": 0}, {"subkeys_revoked": 0}, {"revoked_user_ids": [f"<{ALICE}>"]}])
async def test_a_certificate_that_was_revoked_meanwhile(world: World, how: dict[str, Any]) -> None:
    """By whatever way the revocation came: it is kept apart, or stands in another origin's copy."""
    token = await world.invite()
    revoked = make([f"<{ALICE}>"], seed="alice", **how)
    assert revoked.fingerprint == world.made.fingerprint
    await world.cache(revoked, origin="other.example")
    for method in ("GET", "POST"):
        gone = await world.client.request(method, f"/confirm/{token}")
        assert gone.status == 410, await said(gone)
        assert "revoked" in await said(gone)
    assert not await world.approved()


async def test_links_that_are_none_are_all_answered_alike(world: World) -> None:
    token = await world.invite()
    unknown = Token(b"\xff" * 32)
    found = set()
    for path in (
        f"/confirm/{unknown}",
        f"/withdraw/{unknown}",
        f"/confirm/{token.withdrawal}",
        f"/withdraw/{token}",
        f"/confirm/{str(token)[:-1]}",
        f"/confirm/{token}x",
        "/confirm/%00",
        "/confirm/..%2f..%2fetc",
        "/confirm/" + "A" * 5000,
        "/confirm/" + "é" * 43,
    ):
        for method in ("GET", "POST"):
            reply = await world.client.request(method, path)
            assert reply.status == 404, path
            found.add(await reply.text())
    for path in (
        "/confirm",
        "/confirm/",
        "/healthz",
        "/metrics",
        "/pks/lookup",
        "/favicon.ico",
        f"/confirm/{token}/",
    ):
        reply = await world.client.get(path)
        assert reply.status == 404, path
        found.add(await reply.text())
    assert len(found) == 1


async def test_other_methods_change_nothing(world: World) -> None:
    token = await world.invite()
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        for path in (f"/confirm/{token}", f"/withdraw/{token.withdrawal}", "/"):
            reply = await world.client.request(method, path)
            assert reply.status == 405
            await said(reply)
    assert (await world.client.post("/")).status == 405
    assert await world.stage() is Stage.SENT


async def test_the_first_page_says_whom_to_ask_and_sends_nothing(world: World) -> None:
    page = await said(await world.client.get("/"))
    assert "keys@here.example" in page
    assert "This page sends nothing" in page
    assert "<form" not in await (await world.client.get("/")).text()
    world.sender = ""
    assert "administrators" not in await said(await world.client.get("/"))


class Broken:
    """A store that cannot be had."""

    def __getattr__(self, name: str) -> Any:
        if name == "invitations":
            return self

        async def fail(*_: object) -> None:
            raise StoreError("disk full")

        return fail


async def test_a_store_that_fails_uses_no_token_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    token = await world.invite()
    broken = TestClient(TestServer(world.pages(Broken())))
    await broken.start_server()
    for method in ("GET", "POST"):
        for path in (f"/confirm/{token}", f"/withdraw/{token.withdrawal}"):
            reply = await broken.request(method, path)
            assert reply.status == 503
            assert "the link still works" in await said(reply)
        assert (await broken.request(method, "/confirm/nonsense")).status == 404, "nobody asks the store about that"
    await broken.close()
    assert "disk full" in caplog.text
    assert str(token) not in caplog.text
    assert (await world.client.post(f"/confirm/{token}")).status == 200


async def test_secrets_stand_in_no_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = await world.invite()

    async def fail(*_: object) -> None:
        raise RuntimeError("ours")

    world.note = fail  # type: ignore[method-assign]
    client = TestClient(TestServer(world.pages()))
    await client.start_server()
    reply = await client.post(f"/confirm/{token}")
    assert reply.status == 500
    await said(reply)
    await client.close()
    assert "unhandled error" in caplog.text
    ours = [r.getMessage() + str(r.__dict__) for r in caplog.records if r.name.startswith("keyserver")]
    assert not any(str(secret) in line for line in ours for secret in (token, token.withdrawal))


def test_hostile_text_of_an_invitation_is_escaped() -> None:
    invitation = Invitation(
        id="7" * 32,
        address='"<b>&x"@partner.example',
        fingerprint="AB" * 20,
        kind=Kind.X509,
        source=Source.MAILFLOW,
        origin="partner.example",
        made_at=NOW,
        made_by="ann",
        expires_at=NOW + DAY,
    )
    pages = OwnersPages()
    for page in (pages.confirm(invitation), pages.withdraw(invitation), pages.confirmed(invitation, "/", before=True)):
        assert "<b>" not in page.html
        assert "&lt;b&gt;&amp;x" in page.html
    assert "<b>" not in pages.start("<b>@here.example").html
