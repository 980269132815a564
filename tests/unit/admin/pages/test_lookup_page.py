"""`/lookup` and its streams."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.admin.api import streams
from keyserver.model import Failed, Found, Kind, Raw, Source, Voucher
from support.administering import TOKEN, Admin, running
from support.hostile_text import NASTY, harmless
from support.openpgp import CREATED, make

NOW = CREATED + 86400
BEARER = {"Authorization": f"Bearer {TOKEN}"}
HTMX = {"HX-Request": "true"}
BOB = "bob@partner.example"


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW) as one:
        yield one


def found(octets: bytes) -> Found:
    return Found((Raw(Kind.OPENPGP, octets),))


async def stream(admin: Admin, path: str, token: str = TOKEN) -> list[tuple[str, str]]:
    """All events of a stream until it ends: name and data."""
    async with admin.session.get(admin.url + path, headers={"Authorization": f"Bearer {token}"}) as reply:
        assert (reply.status, reply.content_type) == (200, "text/event-stream")
        text = await reply.text()
    events = []
    for block in text.split("\n\n"):
        lines = [line.partition(": ") for line in block.splitlines() if not line.startswith(":")]
        if lines:
            name = next((value for field, _, value in lines if field == "event"), "")
            events.append((name, "\n".join(value for field, _, value in lines if field == "data")))
    return events


def verdict(page: str) -> str:
    """The words of the paragraph that stands first."""
    match = re.search(r'<p id="verdict".*?</p>', page, re.DOTALL)
    assert match is not None
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", match[0])).strip()


async def test_the_verdict_stands_first_then_the_trace(admin: Admin) -> None:
    bob = make([f"Bob <{BOB}>"])
    admin.upstream.answers[BOB] = found(bob.octets)
    status, page, headers = await admin.open(f"/lookup?q={BOB}")
    assert status == 200
    assert headers["Vary"] == "HX-Request"
    assert verdict(page) == "Found: 1 certificate is answered searched"
    assert page.index('id="verdict"') < page.index(f'href="/cache/{bob.fingerprint}"') < page.index("proves the query")
    assert "keyserver lookup bob@partner.example --trace" in page


async def test_why_is_bob_not_encrypted(admin: Admin) -> None:
    """One click: the lookup says why; the second: the certificate that is kept back."""
    bob = await admin.put(
        make([f"Bob <{BOB}>"]).octets, Source.MAILFLOW, "partner.example", vouchers=(Voucher(BOB, held=True),)
    )
    _, page, _ = await admin.open(f"/lookup?q={BOB}")
    assert verdict(page) == (
        "Not found for clients: one certificate is known and kept back"
        " seen in mail, held until an administrator approves it"
    )
    assert f'<a href="/cache/{bob}">' in page


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Failed("it timed out"), "Not known: an upstream could not be asked"),
        (None, "Not found it says so"),
    ],
)
async def test_what_is_not_found(admin: Admin, answer: Failed | None, expected: str) -> None:
    if answer is not None:
        admin.upstream.otherwise = answer
    _, page, _ = await admin.open(f"/lookup?q={BOB}")
    assert verdict(page).startswith(expected)


async def test_what_cannot_be_encrypted_to(admin: Admin) -> None:
    admin.upstream.answers[BOB] = found(make([f"Bob <{BOB}>"], revoked=0, revoked_at=CREATED).octets)
    _, page, _ = await admin.open(f"/lookup?q={BOB}")
    assert verdict(page) == "Not usable: 1 certificate is answered, and nobody can encrypt it is revoked"


async def test_htmx_gets_the_place_into_which_the_stream_writes(admin: Admin) -> None:
    status, part, _ = await admin.open(f"/lookup?q={BOB}", headers=HTMX)
    assert status == 200
    assert "<html" not in part
    assert 'hx-sse:connect="/lookup/stream?q=bob%40partner.example"' in part
    assert admin.upstream.asked == []
    _, whole, _ = await admin.open(f"/lookup?q={BOB}", headers={**HTMX, "HX-History-Restore-Request": "true"})
    assert "<html" in whole
    assert "hx-sse:connect" not in whole


async def test_steps_are_told_as_they_happen(admin: Admin) -> None:
    bob = make([f"Bob <{BOB}>"])
    admin.upstream.answers[BOB] = found(bob.octets)
    admin.upstream.open.clear()
    async with admin.session.get(f"{admin.url}/api/v1/lookup/stream?q={BOB}", headers=BEARER) as reply:
        heard = ""
        async with asyncio.timeout(4):
            while '"asked"' not in heard:
                heard += (await reply.content.readany()).decode()
        assert "event: result" not in heard
        admin.upstream.open.set()
        heard += await reply.text()
    names = re.findall(r"^event: (\w+)$", heard, re.MULTILINE)
    assert names == ["step"] * (len(names) - 1) + ["result"]
    steps = [json.loads(line) for line in re.findall(r"^event: step\ndata: (.*)$", heard, re.MULTILINE)]
    result = json.loads(heard.rpartition("data: ")[2])
    assert sorted(steps, key=lambda s: s["at"]) == sorted(result["steps"], key=lambda s: s["at"])
    assert result["verdict"] == "usable"


async def test_who_joins_a_search_hears_what_was_before(admin: Admin) -> None:
    admin.upstream.open.clear()
    first = asyncio.ensure_future(stream(admin, f"/api/v1/lookup/stream?q={BOB}"))
    async with asyncio.timeout(4):
        while not admin.upstream.asked:
            await asyncio.sleep(0.01)
    second = asyncio.ensure_future(stream(admin, f"/api/v1/lookup/stream?q={BOB}"))
    await asyncio.sleep(0.1)
    admin.upstream.open.set()
    for events in (await first, await second):
        whats = [json.loads(data)["what"] for name, data in events if name == "step"]
        assert (whats.count("asked"), whats.count("absent")) == (1, 1)
    assert admin.upstream.asked == [BOB]


async def test_the_page_hears_parts_and_an_end(admin: Admin) -> None:
    bob = make([f"Bob <{BOB}>"])
    admin.upstream.answers[BOB] = found(bob.octets)
    *steps, (name, answer), done = await stream(admin, f"/lookup/stream?q={BOB}")
    assert all(name == "" and data.startswith("<li>") for name, data in steps)
    assert name == ""
    assert verdict(answer) == "Found: 1 certificate is answered searched"
    assert 'hx-swap-oob="true"' in answer
    assert done == ("done", "")


async def test_a_term_that_is_none(admin: Admin) -> None:
    status, page, _ = await admin.open("/lookup?q=bob")
    assert (status, "policy.text_search is off" in page) == (400, True)
    (name, answer), done = await stream(admin, "/lookup/stream?q=bob")
    assert (name, done[0]) == ("", "done")
    assert verdict(answer).startswith("Not done this is text")
    assert (await admin.call("GET", "/api/v1/lookup/stream?q=bob"))[0] == 400


@pytest.mark.parametrize("text", NASTY)
async def test_hostile_texts(admin: Admin, text: str) -> None:
    admin.upstream.answers["evil@example.org"] = found(make([text]).octets)
    status, page, _ = await admin.open("/lookup?q=evil@example.org")
    assert (status, harmless(page)) == (200, True)
    events = await stream(admin, "/lookup/stream?q=evil@example.org")
    assert all(harmless(data) for _, data in events)
    status, page, _ = await admin.open("/lookup", params={"q": text})
    assert harmless(page)
    assert len(page) < 20_000


async def test_viewers_ask_nobody(admin: Admin) -> None:
    reader = await admin.viewer()
    status, page, _ = await admin.open(f"/lookup?q={BOB}", reader)
    assert status == 200
    assert "needs the role operator" in page
    assert '<form class="filters"' not in page
    for path in (f"/lookup/stream?q={BOB}", f"/api/v1/lookup/stream?q={BOB}"):
        assert (await admin.open(path, reader))[0] == 403
    assert admin.upstream.asked == []


async def test_so_many_streams_and_no_more(admin: Admin) -> None:
    admin.upstream.open.clear()
    path = f"/api/v1/lookup/stream?q={BOB}"
    replies = [await admin.session.get(admin.url + path, headers=BEARER) for _ in range(streams.MOST)]
    assert {reply.status for reply in replies} == {200}
    status, refusal = await admin.call("GET", path)
    assert (status, refusal["title"]) == (503, "Too many streams")
    admin.upstream.open.set()
    for reply in replies:
        assert "event: result" in await reply.text()
    assert (await stream(admin, path))[-1][0] == "result"


async def test_a_revoked_token_ends_its_streams(admin: Admin) -> None:
    made = await admin.parts.operations.tokens.add("second", "operator")
    admin.upstream.open.clear()
    sent = {"Authorization": f"Bearer {made.token}"}
    async with admin.session.get(f"{admin.url}/api/v1/lookup/stream?q={BOB}", headers=sent) as reply:
        await reply.content.readany()
        await admin.parts.operations.tokens.revoke("second")
        async with asyncio.timeout(streams.ASKED + 2):
            assert "event: result" not in await reply.text()
    admin.upstream.open.set()


async def test_clients_that_are_gone_leave_nothing(admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    admin.upstream.open.clear()
    path = f"{admin.url}/api/v1/lookup/stream?q={BOB}"
    for _ in range(streams.MOST):
        reply = await admin.session.get(path, headers=BEARER)
        await reply.content.readany()
        reply.close()
    admin.upstream.open.set()
    await asyncio.sleep(0.2)
    assert (await stream(admin, f"/api/v1/lookup/stream?q={BOB}"))[-1][0] == "result"
    assert not [record for record in caplog.records if record.exc_info]


def test_events_cannot_be_forged() -> None:
    assert streams.framed("a\nevent: b\r\ndata: c\rd") == b"data: a\ndata: event: b\ndata: data: c\ndata: d\n\n"
    assert json.loads(streams.event("x", {"a": "\u2028\n"}).decode().partition("data: ")[2]) == {"a": "\u2028\n"}
