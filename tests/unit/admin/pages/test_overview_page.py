"""The overview: true numbers, each a link to what it counts, and no green light that lies."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from keyserver.model import Found, Kind, Raw, Source, View, Voucher
from keyserver.query import parse
from support.administering import NAME, Admin
from support.hostile_text import NASTY, harmless
from support.openpgp import make

ALICE = make(["Alice <alice@example.org>"], seed="alice")
BOB = make(["Bob <bob@partner.example>"], seed="bob")


async def show(admin: Admin, *token: str) -> str:
    status, page, _ = await admin.open("/", *token)
    assert status == 200
    return page


async def look(admin: Admin, term: str) -> None:
    """As a face does: a lookup, and what it tells the observer."""
    answer = await admin.resolver.lookup(parse(term), View())
    admin.parts.observer.lookup("hkp", term, answer, 200, 0.001)


async def test_an_empty_service_claims_nothing(admin: Admin) -> None:
    page = await show(admin)
    assert "Nothing needs you" in page
    assert "of 1 upstream, 0 answered within the last hour" in page
    assert "not asked yet" in page
    assert "badge good" not in page
    assert page.count("nothing was answered") == 3
    assert page.count("since the start") == 3


async def test_hits_misses_and_entries_are_counted_and_linked(admin: Admin) -> None:
    admin.upstream.answers["alice@example.org"] = Found((Raw(Kind.OPENPGP, ALICE.octets),))
    for _ in range(4):
        await look(admin, "alice@example.org")
    await admin.put(BOB.octets, Source.LOCAL, "administrator")
    page = await show(admin)
    assert "<b>75.0 %</b>" in page
    assert '<a href="/cache?status=fresh">3</a>' in page
    assert 'href="/cache?source=keyserver"><b>1</b>' in page
    assert 'href="/cache?source=local"><b>1</b>' in page
    assert 'href="/cache?source=mailflow"><b>0</b>' in page
    assert f'href="/cache?upstream={quote(NAME)}">1</a>' in page
    assert '<span class="badge good">answers</span>' in page
    assert "every upstream answers" in page
    admin.clock.now += 7200
    assert "not asked lately" in await show(admin)


async def test_what_expires_next_and_what_is_held(admin: Admin) -> None:
    await admin.put(ALICE.octets)
    await admin.put(
        BOB.octets, Source.MAILFLOW, "partner.example", vouchers=(Voucher("bob@partner.example", held=True),)
    )
    page = await show(admin)
    assert f'/cache/{ALICE.fingerprint}"><bdi>Alice &lt;alice@example.org&gt;' in page.split('id="next"')[1]
    assert f'/cache/{BOB.fingerprint}"><bdi>Bob' in page.split('id="held"')[1]
    assert 'warn" href="/cache?held=1"><b>1</b>' in page


async def test_every_number_leads_somewhere(admin: Admin) -> None:
    """Whatever link is on the page, the API takes its filter."""
    await admin.put(ALICE.octets)
    page = await show(admin)
    links = {link.replace("&amp;", "&") for link in re.findall(r'href="(/[^"]*)"', page)}
    lists = [link for link in links if link.startswith("/cache?")]
    assert len(lists) > 6
    for link in lists:
        status, body = await admin.call("GET", f"/api/v1{link}")
        assert status == 200, (link, body)


async def test_a_paused_upstream_and_a_sick_clock_are_said_before_all_else(admin: Admin) -> None:
    await admin.parts.operations.pausing.pause(NAME)
    admin.clock.now += 30 * 86400
    await admin.parts.upkeep.poll()
    page = await show(admin)
    assert "Nothing needs you" not in page
    assert f"{NAME} is paused: it is not asked, and counts as failed." in page
    assert "No upstream does well" in page
    assert "The clock jumped 30 days ahead" in page
    assert page.index("No upstream does well") < page.index(f"{NAME} is paused")


async def test_a_store_that_cannot_be_read_is_said(admin: Admin) -> None:
    await admin.store.close()
    page = await show(admin)
    assert "The cache cannot be read: " in page
    assert 'role="alert"' in page
    assert "Upstreams" in page


async def test_viewers_who_see_no_addresses_see_the_rest(tmp_path_factory: pytest.TempPathFactory) -> None:
    from support.administering import running

    async with running(tmp_path_factory.mktemp("masked"), 1_800_000_000, viewer_identities=False) as admin:
        await admin.put(ALICE.octets)
        page = await show(admin, await admin.viewer())
        assert "alice" not in page.lower()
        assert "@example.org" in page
        assert "<svg" in page


async def test_hostile_texts_do_no_harm(admin: Admin) -> None:
    for text in NASTY[:4]:
        await admin.put(make([text], seed=text[:8]).octets)
    page = await show(admin)
    assert harmless(page)
