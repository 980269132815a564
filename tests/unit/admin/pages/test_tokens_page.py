"""Tokens on the page: shown once, revoked at once, and nothing for viewers."""

from __future__ import annotations

import re

from support.administering import Admin

OURS = {"Sec-Fetch-Site": "same-origin"}
TOKENS = "/settings/tokens"


async def test_a_new_token_is_shown_once_and_works(admin: Admin) -> None:
    status, page, headers = await admin.open(TOKENS, method="POST", data={"name": "anna", "role": "viewer"})
    assert status == 200
    assert headers["Cache-Control"] == "no-store"
    found = re.search(r"ks_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", page)
    assert found is not None
    assert (await admin.open("/audit", found[0]))[0] == 200
    page = (await admin.open(TOKENS))[1]
    assert found[0] not in page
    assert found[0].split("_")[1] in page


async def test_a_revoked_token_is_nobodys(admin: Admin) -> None:
    token = await admin.viewer()
    status, _, headers = await admin.open(f"{TOKENS}/reader/revoke", method="POST")
    assert (status, headers["Location"]) == (303, TOKENS)
    assert (await admin.open("/audit", token))[0] == 401
    status, page, _ = await admin.open(f"{TOKENS}/reader/revoke", method="POST")
    assert status == 404
    assert "no token is named reader" in page


async def test_what_is_wrong_is_said_and_what_was_typed_stays(admin: Admin) -> None:
    status, page, _ = await admin.open(TOKENS, method="POST", data={"name": '<b>"', "role": "viewer"})
    assert status == 400
    assert 'value="&lt;b&gt;&#34;"' in page
    assert "accepted are 1 to 64 letters" in page
    status, page, _ = await admin.open(TOKENS, method="POST", data={"name": "admin", "role": "viewer"})
    assert status == 409
    assert (await admin.open(f"{TOKENS}/admin/revoke", method="POST"))[0] == 409


async def test_the_first_token_cannot_be_revoked_here(admin: Admin) -> None:
    page = (await admin.open(TOKENS))[1]
    assert "/settings/tokens/admin/revoke" not in page
    assert "admin.token_file" in page


async def test_viewers_get_nowhere(admin: Admin) -> None:
    token = await admin.viewer()
    for method, path in (("GET", TOKENS), ("POST", TOKENS), ("POST", f"{TOKENS}/reader/revoke")):
        assert (await admin.open(path, token, method))[0] == 403
    status, page, _ = await admin.open(TOKENS, token, headers={"Accept": "text/html"})
    assert status == 403
    assert "the role viewer does not suffice" in page


async def test_no_other_site_adds_a_token(admin: Admin) -> None:
    signed = await admin.session.post(
        admin.url + "/sign-in", headers=OURS, data={"token": await operator(admin)}, allow_redirects=False
    )
    cookie = {"Cookie": f"keyserver-session={signed.cookies['keyserver-session'].value}"}
    admin.session.cookie_jar.clear()
    for site, status in (("cross-site", 403), ("same-origin", 200)):
        headers = {**cookie, "Sec-Fetch-Site": site}
        form = {"name": "mallory", "role": "operator"}
        reply = await admin.session.post(admin.url + TOKENS, headers=headers, data=form)
        assert reply.status == status


async def operator(admin: Admin) -> str:
    return (await admin.parts.operations.tokens.add("anna", "operator")).token
