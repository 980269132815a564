"""What the page of acts shows, and of whom."""

from __future__ import annotations

import re

from keyserver.store.administration import StoredAct
from support.administering import Admin
from support.hostile_text import NASTY, harmless

NOW = 1_800_000_000


async def note(admin: Admin, act: str, who: str = "anna", at: int = NOW - 7200, **facts: object) -> None:
    await admin.store.administration.note(StoredAct(at, who, "page", "192.0.2.7", act, "AB" * 20, facts))


async def test_acts_latest_first_with_all_that_is_known(admin: Admin) -> None:
    await note(admin, "delete", entries=2)
    await note(admin, "pause", who="bert", at=NOW - 60, upstream="partner directory")
    status, page, headers = await admin.open("/audit")
    assert status == 200
    assert page.index("pause") < page.index("2 h ago")
    for shown in ("1 min ago", "upstream partner directory", "entries 2", "192.0.2.7", f"/cache/{'AB' * 20}"):
        assert shown in page
    assert headers["Vary"] == "HX-Request"


async def test_filters_are_in_the_address_and_in_the_exports(admin: Admin) -> None:
    await note(admin, "delete")
    await note(admin, "approve", who="bert")
    page = (await admin.open("/audit?who=bert&act=approve&from=2027-01-01"))[1]
    assert "2 h ago" in page
    assert "/audit?who=anna" not in page
    assert "<option selected>approve</option>" in page
    assert 'href="/api/v1/audit?who=bert&amp;act=approve&amp;from=2027-01-01&amp;format=csv"' in page
    exported = (await admin.open("/api/v1/audit?who=bert&act=approve&from=2027-01-01&format=csv"))[1]
    assert exported.count("approve") == 1
    assert "Nothing matches" in (await admin.open("/audit?who=carl"))[1]


async def test_an_act_of_a_name_that_is_not_offered_can_be_looked_for(admin: Admin) -> None:
    page = (await admin.open("/audit?act=dance"))[1]
    assert "<option selected>dance</option>" in page


async def test_pages_go_on_where_the_one_before_ended(admin: Admin) -> None:
    for number in range(120):
        await note(admin, "delete", entries=number + 1000)
    seen: list[str] = []
    address = "/audit?act=delete"
    while address:
        page = (await admin.open(address))[1]
        seen += re.findall(r"entries (\d+)", page)
        found = re.search(r'href="([^"]+)" rel="next"', page)
        address = found[1].replace("&amp;", "&") if found else ""
    assert [int(number) for number in seen] == list(range(1119, 999, -1))


async def test_what_is_typed_wrong_is_said_on_a_page(admin: Admin) -> None:
    status, page, headers = await admin.open("/audit?from=yesterday", headers={"Accept": "text/html"})
    assert (status, headers["Content-Type"]) == (400, "text/html; charset=utf-8")
    assert "Unix seconds" in page
    status, _, headers = await admin.open("/audit?from=yesterday")
    assert (status, headers["Content-Type"]) == (400, "application/problem+json")


async def test_hostile_texts_do_no_harm(admin: Admin) -> None:
    for text in NASTY:
        await admin.store.administration.note(StoredAct(NOW, text, text, text, text, text, {"reason": text}))
    status, page, _ = await admin.open("/audit")
    assert status == 200
    assert harmless(page)


async def test_htmx_gets_the_rows_alone(admin: Admin) -> None:
    page = (await admin.open("/audit", headers={"HX-Request": "true"}))[1]
    assert page.lstrip().startswith('<div id="acts">')
    assert "<html" not in page
