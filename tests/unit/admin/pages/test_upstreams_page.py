"""The page of upstreams: what each does, what it was told, pauses and tests."""

from __future__ import annotations

from urllib.parse import quote

from keyserver.model import Failed, Found, Kind, Raw, State
from support.administering import NAME, Admin
from support.hostile_text import NASTY, harmless
from support.openpgp import make

ALICE = make(["Alice <alice@example.org>"], seed="alice")
FOUND = Found((Raw(Kind.OPENPGP, ALICE.octets),))
HERE = f"/upstreams/{quote(NAME)}"


async def show(admin: Admin, token: str | None = None) -> str:
    status, page, _ = await admin.open("/upstreams", *([token] if token else []))
    assert status == 200
    return page


async def test_what_was_never_asked_is_not_called_well(admin: Admin) -> None:
    page = await show(admin)
    assert NAME in page
    assert "not asked yet" in page
    assert "badge good" not in page
    assert "hkp://keys.example.org" in page
    assert "Nothing yet." in page


async def test_what_it_answers_and_was_told(admin: Admin) -> None:
    admin.upstream.answers["alice@example.org"] = FOUND
    for term in ("alice@example.org", "bob@example.net", "nobody@example.net", "AB" * 20):
        await admin.state(term)
    page = await show(admin)
    assert '<span class="badge good">answers</span>' in page
    assert "naming 3 addresses of 2 domains, 1 fingerprint, 0 key IDs" in page
    assert "/cache?domain=example.net" in page
    assert "alice@example.org" not in page


async def test_pausing_is_loud_and_ends(admin: Admin) -> None:
    status, _, headers = await admin.open(f"{HERE}/pause", method="POST")
    assert (status, headers["Location"]) == (303, "/upstreams")
    page = await show(admin)
    assert "<b>Paused</b>" in page
    assert f"{HERE}/resume" in page
    assert await admin.state("alice@example.org") is State.FAILED
    await admin.open(f"{HERE}/resume", method="POST")
    assert "<b>Paused</b>" not in await show(admin)
    assert (await admin.open("/upstreams/nobody/pause", method="POST"))[0] == 404


async def test_testing_says_what_came_and_keeps_nothing(admin: Admin) -> None:
    admin.upstream.answers["alice@example.org"] = FOUND
    status, page, _ = await admin.open(f"{HERE}/test", method="POST", data={"query": " alice@example.org "})
    assert status == 200
    assert f"{NAME}: found" in page
    assert ALICE.fingerprint[:4] in page
    assert not (await admin.store.certificate(ALICE.fingerprint)).entries
    status, page, _ = await admin.open(f"{HERE}/test", method="POST", data={"query": ""})
    assert status == 400
    assert 'role="alert"' in page


async def test_viewers_look_and_touch_nothing(admin: Admin) -> None:
    token = await admin.viewer()
    page = await show(admin, token)
    assert "/test" not in page
    assert "/pause" not in page
    for what in ("test", "pause", "resume"):
        assert (await admin.open(f"{HERE}/{what}", token, "POST"))[0] == 403


async def test_hostile_texts_do_no_harm(admin: Admin) -> None:
    for text in NASTY:
        admin.upstream.answers["eve@example.org"] = Failed(text)
        await admin.open(f"{HERE}/test", method="POST", data={"query": "eve@example.org"})
        status, page, _ = await admin.open(f"{HERE}/test", method="POST", data={"query": text})
        assert status in (200, 400)
        assert harmless(page)
        assert harmless(await show(admin))
