"""Who gets in by which name, token, cookie and page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse, web

from keyserver.admin.access import IDLE
from keyserver.admin.api.guard import refuse_unmarked, viewer
from keyserver.admin.api.places import Places, Reached, same_origin
from keyserver.admin.pages import POLICY
from keyserver.store.administration import ActFilter
from support.administering import TOKEN, Admin, running

NOW = 1_800_000_000
BEARER = {"Authorization": f"Bearer {TOKEN}"}
OURS = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW, hosts=["keys.example.org", "[2001:db8::1]"]) as one:
        yield one


async def ask(admin: Admin, method: str, path: str, headers: Mapping[str, str], **more: Any) -> ClientResponse:
    """One request without the session's own cookies, read to its end; redirects are not followed."""
    admin.session.cookie_jar.clear()
    async with admin.session.request(method, admin.url + path, headers=headers, allow_redirects=False, **more) as reply:
        await reply.read()
        return reply


async def sign_in(admin: Admin, token: str = TOKEN, headers: Mapping[str, str] = OURS, **form: str) -> ClientResponse:
    return await ask(admin, "POST", "/sign-in", headers, data={"token": token, **form})


async def cookie(admin: Admin, token: str = TOKEN) -> dict[str, str]:
    reply = await sign_in(admin, token)
    assert reply.status == 303
    return {"Cookie": f"keyserver-session={reply.cookies['keyserver-session'].value}"}


async def detail(reply: ClientResponse) -> str:
    assert reply.content_type == "application/problem+json"
    return str((await reply.json(content_type=None))["detail"])


# --- names


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:1", "127.0.0.1", "127.9.9.9:80", "[::1]:8371", "KEYS.example.org.", "[2001:DB8:0::1]"],
)
async def test_names_of_ours(admin: Admin, host: str) -> None:
    assert (await ask(admin, "GET", "/metrics", {**BEARER, "Host": host})).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "192.0.2.1", "", "a b", "keys.example.org@evil"]
)
async def test_other_names_get_nowhere_whoever_calls_them(admin: Admin, host: str) -> None:
    session = await cookie(admin)
    for path in ("/metrics", "/sign-in", "/api/v1/proof?nonce=" + "0" * 32, "/nothing"):
        for headers in (BEARER, session, {}):
            reply = await ask(admin, "GET", path, {**headers, "Host": host})
            if reply.status != 400:  # aiohttp's own word on what is no Host at all
                assert reply.status == 421
                assert "admin.hosts" in await detail(reply)


def test_places() -> None:
    places = Places(frozenset({"keys.example.org"}), "https://proxy.example.org")
    lan, tls = Reached("192.0.2.1:8371", "192.0.2.1", False), Reached("keys.example.org:8371", "192.0.2.1", True)
    proxied = Reached("proxy.example.org", "127.0.0.1", False)
    tunnel = Reached("localhost:9000", "127.0.0.1", False)
    socket = Reached("localhost", "", False)
    container = Reached("localhost:8371", "172.17.0.2", False)
    assert all(map(places.ours, (lan, tls, proxied, tunnel, socket, container)))
    assert not places.ours(Reached("192.0.2.2", "192.0.2.1", False))
    assert not places.ours(Reached("proxy.example.org:8371", "192.0.2.1", False))
    assert [places.protected(r) for r in (lan, tls, proxied, tunnel, socket, container)] == [
        False, True, True, True, True, False
    ]  # fmt: skip
    assert not places.protected(Reached("keys.example.org", "127.0.0.1", False))  # who knows how the browser came
    assert Places(public_url="http://localhost:8371").protected(container)
    assert places.origin(proxied) == "https://proxy.example.org"
    assert places.origin(tls) == "https://keys.example.org:8371"
    assert places.origin(lan) == "http://192.0.2.1:8371"
    assert same_origin("https://proxy.example.org:443", places.origin(proxied))
    for other in ("null", "", "http://proxy.example.org", "https://proxy.example.org.evil.example", "https://evil"):
        assert not same_origin(other, places.origin(proxied))


# --- pages of ours


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, 200),  # the browser's own word
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "{url}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({}, 403),
        ({"Referer": "{url}/cache"}, 403),
    ],
)
async def test_a_session_changes_something_only_from_our_own_pages(
    admin: Admin, headers: dict[str, str], status: int
) -> None:
    sent = {name: value.format(url=admin.url) for name, value in headers.items()}
    reply = await ask(admin, "POST", "/api/v1/cache/purge", {**sent, **await cookie(admin)}, json={"expired": True})
    assert reply.status == status
    reply = await ask(admin, "POST", "/api/v1/cache/purge", {**sent, **BEARER}, json={"expired": True})
    assert reply.status == 200  # a token is no browser's


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
async def test_no_other_page_reads_the_api(admin: Admin, site: str) -> None:
    session = await cookie(admin)
    headers = {**session, "Sec-Fetch-Site": site}
    assert (await ask(admin, "GET", "/api/v1/lookup?q=a@b.org", headers)).status == 403
    assert (await ask(admin, "GET", "/sign-out", headers)).status == 200  # a link may lead to a page
    assert (await ask(admin, "GET", "/api/v1/cache", session)).status == 200


# --- signing in


async def test_signing_in_and_out(admin: Admin) -> None:
    form = await ask(admin, "GET", "/sign-in?to=/cache%3Fq%3D%22%3E", {})
    assert form.status == 200
    assert 'value="/cache?q=&#34;&gt;"' in await form.text()
    assert form.headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    assert form.headers["Referrer-Policy"] == "same-origin"
    assert form.headers["Cache-Control"] == "no-store"
    reply = await sign_in(admin, to="/cache?q=a")
    assert (reply.status, reply.headers["Location"]) == (303, "/cache?q=a")
    morsel = reply.cookies["keyserver-session"]
    assert (morsel["httponly"], morsel["samesite"], morsel["path"], morsel["domain"]) == (True, "Strict", "/", "")
    session = {"Cookie": f"keyserver-session={morsel.value}"}
    assert (await ask(admin, "GET", "/api/v1/cache", session)).status == 200
    assert "Signed in as admin" in await (await ask(admin, "GET", "/sign-out", session)).text()
    assert (await ask(admin, "POST", "/sign-out", session)).status == 403  # whose page?
    out = await ask(admin, "POST", "/sign-out", {**session, **OURS})
    assert (out.status, out.headers["Location"]) == (303, "/sign-in")
    assert out.cookies["keyserver-session"].value == ""
    assert (await ask(admin, "GET", "/api/v1/cache", session)).status == 401


async def test_signing_out_everywhere(admin: Admin) -> None:
    here, there = await cookie(admin), await cookie(admin)
    await ask(admin, "POST", "/sign-out", {**here, **OURS}, data={"everywhere": "1"})
    assert [(await ask(admin, "GET", "/metrics", session)).status for session in (here, there)] == [401, 401]


async def test_a_session_ends_by_itself(admin: Admin) -> None:
    session = await cookie(admin)
    admin.clock.now += IDLE
    assert (await ask(admin, "GET", "/metrics", session)).status == 401
    page = await ask(admin, "GET", "/cache?q=a", {**session, "Accept": "text/html"})
    assert (page.status, page.headers["Location"]) == (303, "/sign-in?to=%2Fcache%3Fq%3Da")


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "/sign-out", "/a\nb", "x", "/api/v1/cache"]
)
async def test_where_one_is_led_is_ours(admin: Admin, to: str) -> None:
    assert (await sign_in(admin, to=to)).headers["Location"] == "/"


async def test_a_wrong_token_is_told_so_and_noted(admin: Admin) -> None:
    reply = await sign_in(admin, "wrong")
    assert reply.status == 403
    assert "nobody" in await reply.text()
    assert not reply.cookies
    for _ in range(20):
        reply = await sign_in(admin, "wrong")
    assert reply.status == 429
    assert int(reply.headers["Retry-After"]) >= 1
    assert (await sign_in(admin)).status == 429  # a right one could otherwise be found by trying
    assert (await ask(admin, "GET", "/metrics", {"Authorization": "Bearer wrong"})).status == 429
    admin.parts.operations.acts.note("x")
    page = await admin.parts.operations.auditing.list(ActFilter())
    assert [row.act for row in page.acts] == ["x", "refused"]
    assert page.acts[1].place == "127.0.0.1"


async def test_a_sign_in_is_in_the_audit(admin: Admin) -> None:
    await cookie(admin)
    (row,) = (await admin.parts.operations.auditing.list(ActFilter())).acts
    assert (row.act, row.who, row.way, row.place) == ("sign in", "admin", "page", "127.0.0.1")


async def test_nobody_signs_in_by_another_page_or_in_clear_from_elsewhere(admin: Admin) -> None:
    for headers in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert (await sign_in(admin, headers=headers)).status == 403
    elsewhere = {**OURS, "Host": "keys.example.org"}  # plain HTTP, and not to localhost
    for reply in (await sign_in(admin, headers=elsewhere), await ask(admin, "GET", "/sign-in", elsewhere)):
        assert reply.status == 403
        text = await reply.text()
        assert "admin.public_url" in text
        assert "admin.tls_certificate" in text
        assert "<form" not in text
    assert (await ask(admin, "GET", "/metrics", {**await cookie(admin), "Host": "keys.example.org"})).status == 401


async def test_behind_a_proxy_with_tls_the_cookie_is_secure(tmp_path: Path) -> None:
    async with running(tmp_path, NOW, public_url="https://keys.example.org/") as admin:
        headers = {"Host": "keys.example.org", "Origin": "https://keys.example.org"}
        reply = await sign_in(admin, headers=headers)
        morsel = reply.cookies["__Host-keyserver"]
        assert (reply.status, morsel["secure"], morsel["path"], morsel["domain"]) == (303, True, "/", "")
        session = {"Cookie": f"__Host-keyserver={morsel.value}", "Host": "keys.example.org"}
        assert (await ask(admin, "GET", "/metrics", session)).status == 200
        assert (await ask(admin, "GET", "/metrics", {**session, "Host": "localhost"})).status == 401


# --- roles


async def test_what_viewers_see_where_they_see_no_identities(tmp_path: Path) -> None:
    from support.openpgp import make

    async with running(tmp_path, NOW, viewer_identities=False) as admin:
        octets = make(["Alice <alice@example.org>"]).octets
        fingerprint = await admin.put(octets)
        made = await admin.parts.operations.tokens.add("eyes", "viewer")
        eyes = {"Authorization": f"Bearer {made.token}"}
        for path in ("/api/v1/cache", f"/api/v1/cache/{fingerprint}", "/api/v1/cache/alice@example.org"):
            text = await (await ask(admin, "GET", path, eyes)).text()
            assert fingerprint in text
            assert "@example.org" in text
            assert "alice" not in text.lower()
            assert "alice" in (await (await ask(admin, "GET", path, BEARER)).text()).lower()
        for path in (
            "/api/v1/cache?q=ali",
            "/api/v1/cache?not_q=ali",
            "/api/v1/cache?sort=address",  # whose cursors name one
            "/api/v1/cache/export",
        ):
            reply = await ask(admin, "GET", path, eyes)
            assert (reply.status, "viewer_identities" in await detail(reply)) == (403, True)
        assert (await ask(admin, "GET", "/api/v1/cache?q=alice@example.org", eyes)).status == 200


def test_a_route_that_does_not_say_who_may_is_refused() -> None:
    async def open_(request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/closed", viewer(open_))
    refuse_unmarked(app)

    async def forgotten(request: web.Request) -> web.Response:
        return web.Response()

    app.router.add_get("/open", forgotten)
    with pytest.raises(ValueError, match="/open"):
        refuse_unmarked(app)
