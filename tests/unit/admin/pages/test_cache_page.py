"""`/cache`: the table, its filters, and what is done to many at once."""

import csv
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from keyserver.admin.api.reading import MAX_JSON
from keyserver.admin.bulk import Bulk, Picked
from keyserver.admin.pages.cache import ROWS
from keyserver.admin.pages.filtering import chips, link, newer, older
from keyserver.admin.service import Listing
from keyserver.model import Found, Kind, Raw, Source, State, Voucher
from support.administering import NAME, Admin, running
from support.hostile_text import NASTY, harmless
from support.openpgp import CREATED, Made, make

NOW = CREATED + 86400
BOB = "bob@partner.example"
MAILFLOW = (Source.MAILFLOW, "partner.example")
HTMX = {"HX-Request": "true"}


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW) as one:
        yield one


@pytest.fixture(scope="module")
def many() -> list[Made]:
    """More than one page of them."""
    return [
        make([f"Person {n:03} <p{n:03}@example.org>"], seed=f"person {n}", encryption=None) for n in range(ROWS + 5)
    ]


def rows(page: str) -> list[str]:
    """The fingerprints in the table, in its order."""
    return re.findall(r'<a href="/cache/([0-9A-F]{40})"><bdi>', page)


def href(page: str, text: str) -> str:
    """Where the link with this text leads."""
    match = re.search(rf'<a [^>]*?href="([^"]*)"[^>]*>{re.escape(text)}</a>', page)
    assert match is not None, text
    return unescape(match[1])


def words(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.partition("<main")[2]))


async def act(admin: Admin, query: str = "", **form: str | list[str]) -> tuple[int, str, str]:
    """Status, page, and where the browser goes."""
    fields = [(name, value) for name, given in form.items() for value in ([given] if isinstance(given, str) else given)]
    status, page, headers = await admin.open(f"/cache/act{query}", method="POST", data=fields)
    return status, page, headers.get("Location", "")


async def test_the_table(admin: Admin) -> None:
    made = make([f"Bob <{BOB}>", "Robert <robert@partner.example>"])
    await admin.put(made.octets)
    await admin.put(made.octets, *MAILFLOW, vouchers=(Voucher(BOB, held=True),))
    status, page, headers = await admin.open("/cache")
    assert (status, headers["Vary"]) == (200, "HX-Request")
    assert rows(page) == [made.fingerprint] * 2
    text = words(page)
    assert "2 match" in text
    assert "+1" in text
    assert made.fingerprint[-4:] in text
    assert re.search(r"Mailflow: partner.example 0 s ago 180 d no · held · seen in mail, held until", text)
    assert re.search(rf"keyserver: {NAME} 0 s ago 1 d yes · fresh", text)


async def test_two_clicks_to_why_bob_is_not_encrypted(admin: Admin) -> None:
    bob = await admin.put(make([f"Bob <{BOB}>"]).octets, *MAILFLOW, vouchers=(Voucher(BOB, held=True),))
    _, page, _ = await admin.open(f"/cache?q={BOB}")
    assert "no · held · seen in mail, held until an administrator approves it" in words(page)
    assert rows(page) == [bob]


async def test_filters_chips_and_their_opposites(admin: Admin) -> None:
    one, two = make([f"Bob <{BOB}>"], seed="one"), make(["Carol <carol@other.example>"], seed="two")
    await admin.put(one.octets)
    await admin.put(two.octets, *MAILFLOW, vouchers=(Voucher("carol@other.example", held=True),))
    for query, expected in (
        ("q=bob", [one]),
        ("domain=other.example", [two]),
        ("source=mailflow", [two]),
        ("not_source=mailflow", [one]),
        (f"upstream={NAME}", [one]),
        ("held=1", [two]),
        ("held=0", [one]),
        ("status=fresh&kind=openpgp", [one]),
        ("kind=x509", []),
    ):
        _, page, _ = await admin.open(f"/cache?{query}")
        assert rows(page) == [made.fingerprint for made in expected], query
        assert page.count('class="chip"') == query.count("=")
    _, page, _ = await admin.open("/cache?source=mailflow&held=1")
    assert parse_qs(urlsplit(href(page, "×")).query) == {"held": ["1"]}
    assert parse_qs(urlsplit(href(page, "not")).query) == {"held": ["1"], "not_source": ["mailflow"]}
    _, page, _ = await admin.open(href(page, "not"))
    assert rows(page) == []
    for bad in ("source=x", "sort=x", "held=2", "from=yesterday", "cursor=x"):
        status, page, _ = await admin.open(f"/cache?{bad}")
        assert (status, "Not done" in page) == (400, True)


async def test_paging_there_and_back(admin: Admin, many: list[Made]) -> None:
    for n, made in enumerate(many):
        admin.clock.now = NOW + n
        await admin.put(made.octets)
    newest_first = [made.fingerprint for made in reversed(many)]
    _, first, _ = await admin.open("/cache?source=keyserver")
    assert rows(first) == newest_first[:ROWS]
    assert f"{ROWS + 5} match" in words(first)
    assert "newer" not in first
    _, second, _ = await admin.open(href(first, "older ›"))
    assert rows(second) == newest_first[ROWS:]
    assert "older" not in second
    assert "source: keyserver" in words(second)
    _, back, _ = await admin.open(href(second, "‹ newer"))
    assert rows(back) == rows(first)


async def test_sorting_by_header_links(admin: Admin) -> None:
    fingerprints = [
        await admin.put(make([f"{name} <{name}@example.org>"], seed=name).octets) for name in ("b", "a", "c")
    ]
    b, a, c = fingerprints
    _, page, _ = await admin.open("/cache")
    assert 'aria-sort="descending"' in page
    _, page, _ = await admin.open(href(page, "Identity"))
    assert rows(page) == [a, b, c]
    _, page, _ = await admin.open(href(page, "Identity ▲"))
    assert rows(page) == [c, b, a]


async def test_htmx_gets_the_table_alone(admin: Admin) -> None:
    await admin.put(make([f"Bob <{BOB}>"]).octets)
    _, part, headers = await admin.open("/cache?q=bob&source=&sort=", headers=HTMX)
    assert "<html" not in part
    assert len(rows(part)) == 1
    assert headers["HX-Push-Url"] == "/cache?q=bob"
    _, whole, _ = await admin.open("/cache?q=bob", headers={**HTMX, "HX-History-Restore-Request": "true"})
    assert "<html" in whole


async def test_delete_some_and_undo(admin: Admin) -> None:
    one, two = make([f"Bob <{BOB}>"], seed="one"), make([f"Bob <{BOB}>"], seed="two")
    for made in (one, two):
        await admin.put(made.octets)
    _, page, _ = await admin.open("/cache?q=bob")
    ids = re.findall(r'name="id" value="([^"]*)"', page)
    assert len(ids) == 2
    status, _, place = await act(admin, "?q=bob", do="delete", id=ids)
    assert (status, place[:13]) == (303, "/cache?q=bob&")
    assert await admin.state(one.fingerprint) is not State.FOUND
    _, page, _ = await admin.open(place)
    assert "Deleted 2 entries. It can be undone for 10:00." in page
    undo = re.search(r'action="(/undo/\w+)"', page)
    assert undo is not None
    _, _, headers = await admin.open(undo[1], method="POST", headers={"Referer": admin.url + place})
    assert headers["Location"] == "/cache?q=bob&done=undone&n=2"
    assert await admin.state(one.fingerprint) is State.FOUND


@pytest.mark.parametrize("query", ["?source=keyserver", "?source=keyserver&status=fresh"])
async def test_delete_all_that_match_asks_first(admin: Admin, many: list[Made], query: str) -> None:
    for made in many:
        await admin.put(made.octets)
    kept = await admin.put(make([f"Bob <{BOB}>"]).octets, *MAILFLOW)
    status, page, _ = await act(admin, query, do="delete", all="1", id=f"{kept}.mailflow.partner.example")
    assert status == 200
    assert f"Delete {ROWS + 5} entries?" in words(page)
    assert "source: keyserver" in words(page)
    assert page.count("<bdi>Person") == 5
    assert (await admin.store.stats()).certificates == ROWS + 6  # it asks first
    status, _, place = await act(admin, query, do="delete", all="1", sure="1")
    assert status == 303
    assert parse_qs(urlsplit(place).query)["n"] == [str(ROWS + 5)]
    _, page, _ = await admin.open("/cache")
    assert rows(page) == [kept]
    _, page, _ = await admin.open(place)
    assert "/undo/" in page


async def test_one_act_goes_over_so_many_entries_and_says_that_more_match(
    admin: Admin, many: list[Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    for made in many:
        await admin.put(made.octets)
    monkeypatch.setattr(Bulk.matching, "__defaults__", (10,))
    status, _, place = await act(admin, "?status=fresh", do="delete", all="1", sure="1")
    assert (status, place.partition("&undo=")[0]) == (303, "/cache?status=fresh&done=deleted&n=10&m=1")
    _, page, _ = await admin.open(place)
    assert "Deleted 10 entries; more match: do it again. It can be undone for 10:00." in page
    assert f"{ROWS - 5} match" in words(page)


async def test_a_search_that_takes_long_says_how_far_it_is(admin: Admin, many: list[Made]) -> None:
    for made in many:
        await admin.put(made.octets)
    service = admin.parts.operations.service
    whole = service.list

    async def cut(*given: Any, **more: Any) -> Listing:
        found = await whole(*given, **more)
        return replace(found, entries=(), searched=5000, of=272_000)

    service.list = cut  # type: ignore[method-assign]
    _, page, _ = await admin.open("/cache?q=person")
    assert "searched 5 000 of about 272 000" in words(page)
    assert "cursor=" in href(page, "continue")
    assert "Nothing among the 5 000 looked at so far" in words(page)


async def test_purge_and_block_ask_first_and_purge_cannot_be_undone(admin: Admin) -> None:
    bob = await admin.put(make([f"Bob <{BOB}>"]).octets)
    id_ = f"{bob}.keyserver.{NAME}"
    for do, text in (("block", "until they are unblocked"), ("purge", "this cannot be undone")):
        status, page, _ = await act(admin, do=do, id=id_)
        assert status == 200
        assert text in page
        assert f'name="id" value="{id_}"' in page
    assert await admin.store.blocked() == ()
    assert (await act(admin, do="block", id=id_, sure="1"))[2] == "/cache?done=blocked&n=1"
    assert await admin.store.blocked() == (bob,)
    assert (await act(admin, do="purge", id=id_, sure="1"))[2] == "/cache?done=purged&n=1"
    assert (await admin.parts.operations.undoing.waiting()) == ()


async def test_approve_refresh_keep_and_export_some(admin: Admin) -> None:
    one, two = make([f"Bob <{BOB}>"], seed="one"), make(["Eve <eve@partner.example>"], seed="two")
    ids = []
    for made, address in ((one, BOB), (two, "eve@partner.example")):
        await admin.put(made.octets, *MAILFLOW, vouchers=(Voucher(address, held=True),))
        ids.append(f"{made.fingerprint}.mailflow.partner.example")
    assert (await act(admin, "?held=1", do="approve", id=ids))[2] == "/cache?held=1&done=approved&n=2"
    assert await admin.state(BOB) is State.FOUND
    admin.upstream.answers[one.fingerprint] = Found((Raw(Kind.OPENPGP, one.octets),))
    place = (await act(admin, do="refresh", id=ids))[2]
    assert place == "/cache?done=refreshed&n=1&m=1"
    _, page, _ = await admin.open(place)
    assert "Asked the upstreams: 1 has it; 1 not: upstreams have no news of them" in page
    assert (await act(admin, do="keep", id=ids))[2] == "/cache?done=kept&n=2"
    status, text, _ = await act(admin, do="export", id=ids)
    assert (status, text.count("BEGIN PGP PUBLIC KEY BLOCK")) == (200, 2)
    assert (await act(admin, do="approve", id=f"{'A' * 40}.local.x"))[0] == 404  # gone meanwhile


async def test_nothing_picked_and_nonsense(admin: Admin) -> None:
    assert (await act(admin, "?q=a", do="delete"))[2] == "/cache?q=a&done=none&n=0"
    for id_ in ("", "x", "A.B.C", "A.keyserver.x", "é.local.x", f"{'a' * 40}.local.x"):
        assert (await act(admin, do="delete", id=id_))[2].startswith("/cache?done=none")
    status, page, _ = await act(admin, do="<b>", id=f"{'A' * 40}.local.x")
    assert (status, "<b>" in words(page)) == (400, False)
    assert (await act(admin, "?source=x", do="delete", all="1", sure="1"))[0] == 400
    assert (await act(admin, do="delete", id="A" * MAX_JSON))[0] == 413


@pytest.mark.parametrize("text", NASTY)
async def test_hostile_texts(admin: Admin, text: str) -> None:
    made = make([text])
    await admin.put(made.octets)
    for path in ("/cache", "/cache?source=keyserver"):
        status, page, _ = await admin.open(path)
        assert (status, harmless(page)) == (200, True)
        assert rows(page) == [made.fingerprint]
        assert len(page) < 20_000
    _, page, _ = await admin.open("/cache", params={"q": text[:300], "upstream": text[:300], "not_q": text[:300]})
    assert harmless(page)
    _, page, _ = await act(admin, do="purge", id=f"{made.fingerprint}.keyserver.{NAME}")
    assert harmless(page)


async def test_viewers_only_read(admin: Admin) -> None:
    await admin.put(make([f"Bob <{BOB}>"]).octets)
    reader = await admin.viewer()
    status, page, _ = await admin.open("/cache", reader)
    assert (status, len(rows(page))) == (200, 1)
    assert 'method="post"' not in page.replace('action="/cache/act"', "") or "<button name" not in page
    assert "checkbox" not in page
    assert (await admin.open("/cache/act", reader, "POST", data={"do": "delete", "all": "1", "sure": "1"}))[0] == 403
    assert (await admin.store.stats()).certificates == 1


async def test_who_sees_no_addresses_sees_none_here(tmp_path: Path) -> None:
    async with running(tmp_path, NOW, viewer_identities=False) as admin:
        await admin.put(make([f"Bob Builder <{BOB}>"]).octets)
        reader = await admin.viewer()
        for path in ("/cache", f"/cache?q={BOB}", "/api/v1/cache?format=csv", "/api/v1/cache?format=jsonl"):
            status, page, _ = await admin.open(path, reader)
            assert status == 200
            assert "@partner.example" in page
            assert not any(name in page.replace(f'value="{BOB}"', "") for name in ("Bob", "bob@"))
        for path in ("/cache?q=bo", "/cache?sort=address", "/api/v1/cache?format=csv&q=bo"):
            assert (await admin.open(path, reader))[0] == 403


async def test_tables_of_exactly_what_the_filter_shows(admin: Admin, many: list[Made]) -> None:
    for made in many:
        await admin.put(made.octets)
    bob = await admin.put(make(["=cmd|x", f"Bob <{BOB}>"]).octets, *MAILFLOW)
    _, page, _ = await admin.open("/cache?source=mailflow")
    _, text, headers = await admin.open(href(page, "CSV"))
    assert headers["Content-Type"] == "text/csv; charset=utf-8; header=present"
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["fingerprint"], row["source"], row["answered"]) == (bob, "mailflow", "no")
    assert row["identities"].startswith("'=cmd|x; Bob")
    assert row["cached_at"] == "2020-09-14T12:26:40Z"
    _, text, _ = await admin.open(href(page, "JSON lines"))
    assert [json.loads(line)["fingerprint"] for line in text.splitlines()] == [bob]
    _, text, _ = await admin.open("/api/v1/cache?format=jsonl&sort=address&not_source=mailflow")
    listed = [json.loads(line)["fingerprint"] for line in text.splitlines()]
    assert listed == [made.fingerprint for made in many]
    for bad in ("format=csv&limit=1", "format=jsonl&cursor=x", "format=xml"):
        status, body = await admin.call("GET", f"/api/v1/cache?{bad}")
        assert (status, "accepted" in str(body["detail"]) or "all that match" in str(body["detail"])) == (400, True)


def test_links() -> None:
    given = {"q": "a&b", "sort": "cached"}
    assert link(given, sort=None) == "/cache?q=a%26b"
    assert [chip.text for chip in chips({"not_q": "x", "held": "1", "kind": "x509"})] == [
        "kind: X.509",
        "not text: x",
        "held",
    ]
    pages = [given]
    for n in range(200):
        pages.append(dict(pair.split("=") for pair in older(pages[-1], f"cursor{n}").partition("?")[2].split("&")))
        pages[-1]["q"] = "a&b"
    assert max(len(older(page, "x")) for page in pages) < 3500
    back = newer(pages[3])
    assert "cursor=cursor1" in back
    assert newer(pages[1]) == "/cache?q=a%26b&sort=cached"
    assert newer(given) == older(given, None) == ""


def test_what_a_form_picks() -> None:
    one = Picked("AB12" * 10, Source.KEYSERVER, "a. strange name.")
    assert Picked.read(one.id) == one
    assert Picked.read(f"{'AB12' * 10}.elsewhere.x") is None
    assert Picked.read("../x.local.y") is None
