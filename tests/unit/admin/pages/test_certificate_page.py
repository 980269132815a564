"""`/cache/{fingerprint}` and `/undo/{id}`."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.admin.pages.undo import back_of
from keyserver.model import Failed, Found, Kind, Raw, Source, State, Voucher
from support.administering import NAME, Admin, running
from support.hostile_text import NASTY, harmless
from support.openpgp import CREATED, make
from support.upstreams import NOTHING
from tests.unit.admin.pages.test_lookup_page import verdict

NOW = CREATED + 86400
BOB = "bob@partner.example"
HELD = Voucher(BOB, held=True)
MAILFLOW = (Source.MAILFLOW, "partner.example")


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW) as one:
        yield one


async def post(admin: Admin, path: str, **form: str) -> str:
    """Where the browser goes after a form."""
    status, page, headers = await admin.open(path, method="POST", data=form)
    assert status == 303, page
    return headers["Location"]


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.partition("<main")[2]))


async def test_what_it_shows(admin: Admin) -> None:
    made = make([f"Bob <{BOB}>", "Robert <robert@partner.example>"], expires=30 * 86400)
    await admin.put(made.octets)
    status, page, headers = await admin.open(f"/cache/{made.fingerprint}")
    assert (status, headers["Cache-Control"]) == (200, "no-store")
    assert verdict(page).startswith("Answered by fingerprint; for addresses after a search no search for this address")
    assert page.index('id="verdict"') < page.index("<svg") < page.index("User IDs")
    text = words(page)
    for expected in (f"Bob <{BOB}>".replace("<", "&lt;").replace(">", "&gt;"), f"keyserver: {NAME}", "Subkeys"):
        assert expected in text
    assert "expires 2020-10-13" in text
    status, by_address, _ = await admin.open(f"/cache/{BOB}")
    assert (status, made.fingerprint in by_address) == (200, True)


async def test_each_view_has_its_own_answer(tmp_path: Path) -> None:
    views = [{"name": "gateway", "answer_mailflow": True, "hkp_listen": ["127.0.0.1:0"]}]
    async with running(tmp_path, NOW, views) as admin:
        seen = await admin.put(make([f"Bob <{BOB}>"]).octets, *MAILFLOW, vouchers=(Voucher(BOB, authenticated=True),))
        _, page, _ = await admin.open(f"/cache/{seen}")
        rows = re.findall(r'data-name="View">([^<]*)</td>\s*<td data-name="Answered\?"><b[^>]*>([^<]*)</b>', page)
        assert rows == [("default", "no"), ("gateway", "after a search")]
        assert verdict(page).startswith("Not answered"), "the sentence is the default view's"
        kept = await admin.put(make([f"Bob <{BOB}>"], seed="another").octets, Source.LOCAL, "admin")
        _, page, _ = await admin.open(f"/cache/{kept}")
        assert re.findall(r'data-name="View">([^<]*)</td>', page) == ["every view"]


async def test_a_view_that_keeps_back_what_cannot_be_encrypted_to_says_so(tmp_path: Path) -> None:
    views = [{"name": "gateway", "usable_only": True, "hkp_listen": ["127.0.0.1:0"]}]
    async with running(tmp_path, NOW, views) as admin:
        kept = await admin.put(make([f"Bob <{BOB}>"], encryption=None).octets, Source.LOCAL, "admin")
        _, page, _ = await admin.open(f"/cache/{kept}")
        rows = re.findall(r'data-name="View">([^<]*)</td>\s*<td data-name="Answered\?"><b[^>]*>([^<]*)</b>', page)
        assert rows == [("default", "yes"), ("gateway", "no")]
        assert "nobody can encrypt with it (it has no key for encryption that is valid now)" in words(page)
        assert "/approve" not in page, "an approval would change nothing"


async def test_what_changed_is_told_as_far_as_it_is_known(admin: Admin) -> None:
    made = make([f"Bob <{BOB}>"])
    await admin.put(made.octets)
    await admin.call("POST", f"/api/v1/cache/{made.fingerprint}/block", json={"reason": "<b>stolen"})
    admin.clock.pass_(60)
    await admin.call("POST", f"/api/v1/cache/{made.fingerprint}/unblock")
    _, page, _ = await admin.open(f"/cache/{made.fingerprint}")
    told = page.partition("What changed")[2].partition("<h2>")[0]
    whats = re.findall(r'data-name="What">(.*?)</td>', told)
    assert [what.split(" (")[0] for what in whats] == ["unblocked", "blocked", f"cached from keyserver: {NAME}", "made"]
    assert "<b>stolen" not in page


async def test_held_is_approved_for_one_address(admin: Admin) -> None:
    fingerprint = await admin.put(make([f"Bob <{BOB}>"]).octets, *MAILFLOW, vouchers=(HELD,))
    _, page, _ = await admin.open(f"/cache/{fingerprint}")
    assert verdict(page) == "Not answered its only entry: seen in mail, held until an administrator approves it"
    forms = re.findall(r'action="(/cache/[0-9A-F]+/approve)".*?value="([^"]*)".*?value="([^"]*)"', page)
    assert forms == [(f"/cache/{fingerprint}/approve", BOB, "mailflow")]
    place = await post(admin, forms[0][0], address=BOB, source="mailflow")
    assert place == f"/cache/{fingerprint}?done=approved&n=1"
    _, page, _ = await admin.open(place)
    assert "Approved 1 entry." in page
    assert verdict(page).startswith("Answered by fingerprint; for addresses after a search")
    assert (await admin.state(BOB)) is State.FOUND
    _, page, _ = await admin.open(place)
    assert verdict(page) == "Answered mailflow entry of partner.example, fresh"


async def test_delete_and_undo(admin: Admin) -> None:
    made = make([f"Bob <{BOB}>"])
    await admin.put(made.octets)
    path = f"/cache/{made.fingerprint}"
    assert await admin.state(made.fingerprint) is State.FOUND
    place = await post(admin, f"{path}/delete")
    assert re.fullmatch(rf"{path}\?done=deleted&n=1&undo=[0-9a-f]{{12}}", place)
    assert await admin.state(made.fingerprint) is not State.FOUND
    status, page, _ = await admin.open(place)
    assert status == 404
    assert "Deleted 1 entry. It can be undone for 10:00." in page
    undo = re.search(r'action="(/undo/[0-9a-f]{12})"', page)
    assert undo is not None
    _, _, headers = await admin.open(undo[1], method="POST", headers={"Referer": admin.url + place})
    assert headers["Location"] == f"{path}?done=undone&n=1"
    assert await admin.state(made.fingerprint) is State.FOUND
    _, page, _ = await admin.open(headers["Location"])
    assert "Brought back 1 entry." in page
    status, page, _ = await admin.open(undo[1], method="POST")
    assert (status, "nothing is there to undo" in page) == (404, True)


async def test_one_entry_of_several_is_deleted(admin: Admin) -> None:
    made = make([f"Bob <{BOB}>"])
    await admin.put(made.octets)
    await admin.put(made.octets, *MAILFLOW)
    await post(admin, f"/cache/{made.fingerprint}/delete", source="mailflow", origin="partner.example")
    _, page, _ = await admin.open(f"/cache/{made.fingerprint}")
    entries, _, history = page.partition("<h2>History</h2>")
    assert f"keyserver: {NAME}" in entries
    assert "mailflow: partner.example" not in entries
    assert "<b>deleted</b>" in history


async def test_refresh_keep_block(admin: Admin) -> None:
    made = make([f"Bob <{BOB}>"])
    await admin.put(made.octets)
    admin.upstream.answers[made.fingerprint] = Found((Raw(Kind.OPENPGP, made.octets),))
    path = f"/cache/{made.fingerprint}"
    assert await post(admin, f"{path}/refresh") == f"{path}?done=refreshed&n=1"
    assert await post(admin, f"{path}/keep") == f"{path}?done=kept&n=1"
    _, page, _ = await admin.open(path)
    assert "local: administrator" in page
    status, page, _ = await admin.open(f"{path}/block", method="POST")
    assert (status, "Block this certificate?" in page) == (200, True)
    assert await admin.store.blocked() == ()  # it asks first
    assert await post(admin, f"{path}/block", sure="1") == f"{path}?done=blocked&n=1"
    _, page, _ = await admin.open(path)
    assert verdict(page).startswith("Not answered an administrator has blocked it")
    assert await post(admin, f"{path}/unblock") == f"{path}?done=unblocked&n=1"


async def test_what_the_last_search_said_counts(admin: Admin) -> None:
    """As a lookup does: a certificate that only claims an address is not answered for it."""
    made = make([f"Bob <{BOB}>"])
    await admin.put(made.octets)
    path = f"/cache/{made.fingerprint}"
    admin.upstream.otherwise = Failed("down")
    await admin.state(BOB)
    assert verdict((await admin.open(path))[1]).startswith("Answered by fingerprint; for addresses after a search")
    admin.upstream.otherwise = NOTHING
    assert await admin.state(BOB) is State.ABSENT
    assert verdict((await admin.open(path))[1]) == (
        "Answered by fingerprint, for no address it claims the address, but the last search for it found it nowhere"
    )
    admin.clock.pass_(3600)
    admin.upstream.answers[BOB] = Found((Raw(Kind.OPENPGP, made.octets),))
    assert await admin.state(BOB) is State.FOUND
    assert verdict((await admin.open(path))[1]) == f"Answered keyserver entry of {NAME}, fresh"


async def test_others_of_the_address_stand_beside_it(admin: Admin) -> None:
    one, two = make([f"Bob <{BOB}>"], seed="one"), make([f"Other Bob <{BOB}>"], seed="two")
    for made in (one, two):
        await admin.put(made.octets)
    _, page, _ = await admin.open(f"/cache/{one.fingerprint}")
    assert f'<a href="/cache/{two.fingerprint}">' in page.partition("Same address")[2]
    status, page, _ = await admin.open(f"/cache/{BOB}")
    assert status == 409
    assert all(f'href="/cache/{made.fingerprint}"' in page for made in (one, two))


async def test_download(admin: Admin) -> None:
    made = make([f"Bob <{BOB}>"])
    await admin.put(made.octets)
    status, text, headers = await admin.open(f"/cache/{made.fingerprint}/download")
    assert (status, headers["Content-Type"]) == (200, "application/pgp-keys")
    assert headers["Content-Disposition"] == 'attachment; filename="certificate.asc"'
    assert text.startswith("-----BEGIN PGP PUBLIC KEY BLOCK-----")


@pytest.mark.parametrize("text", NASTY)
async def test_hostile_texts(admin: Admin, text: str) -> None:
    one, two = make([text], seed="one"), make([text], seed="two")
    for made in (one, two):
        await admin.put(made.octets)
    for path in (f"/cache/{one.fingerprint}", "/cache/evil@example.org"):
        _, page, _ = await admin.open(path)
        assert harmless(page)
        assert len(page) < 25_000
    status, page, _ = await admin.open(f"/cache/{one.fingerprint}/block", method="POST")
    assert (status, harmless(page)) == (200, True)


@pytest.mark.parametrize("act", ["approve", "refresh", "keep", "block", "unblock", "delete"])
async def test_viewers_only_read(admin: Admin, act: str) -> None:
    fingerprint = await admin.put(make([f"Bob <{BOB}>"]).octets, *MAILFLOW, vouchers=(HELD,))
    reader = await admin.viewer()
    status, page, _ = await admin.open(f"/cache/{fingerprint}", reader)
    assert status == 200
    assert "<form" not in page.partition("<main")[2]
    status, _, _ = await admin.open(f"/cache/{fingerprint}/{act}", reader, "POST", data={"sure": "1"})
    assert status == 403
    assert (await admin.open("/undo/0123456789ab", reader, "POST"))[0] == 403


async def test_who_sees_no_addresses_sees_none_here(tmp_path: Path) -> None:
    async with running(tmp_path, NOW, viewer_identities=False) as admin:
        made = make([f"Bob Builder <{BOB}>"], seed="one")
        await admin.put(made.octets)
        await admin.put(make([f"Robert <{BOB}>"], seed="two").octets)
        reader = await admin.viewer()
        status, page, _ = await admin.open(f"/cache/{made.fingerprint}", reader)
        assert status == 200
        assert "@partner.example" in page
        assert not any(name in page for name in ("Bob", "bob@", "Robert"))
        assert (await admin.open(f"/cache/{made.fingerprint}/download", reader))[0] == 403


async def test_notices_are_ours_alone(admin: Admin) -> None:
    fingerprint = await admin.put(make([f"Bob <{BOB}>"]).octets)
    for made_up in ("done=<b>x</b>&n=1", "done=deleted&n=<b>&undo=<b>", "done=deleted&n=99999999999999"):
        status, page, _ = await admin.open(f"/cache/{fingerprint}?{made_up}")
        assert status == 200
        assert "<b>x" not in page
        assert "/undo/" not in page
    assert (await admin.open(f"/cache/{fingerprint}?text=free"))[0] == 400


@pytest.mark.parametrize(
    ("referer", "back"),
    [
        ("https://evil.example/x", "/cache"),
        ("https://evil.example/cache?q=a&done=deleted&undo=1", "/cache?q=a"),
        ("http://us//evil.example/cache", "/cache"),
        ("http://us/cache/act?q=a", "/cache"),
        ("http://[", "/cache"),
        ("", "/cache"),
    ],
)
def test_back_leads_to_pages_of_ours(referer: str, back: str) -> None:
    assert back_of(referer) == back
