"""Every page as people see it: light, dark, on a phone, without JavaScript; nobody is kept out by how it is made."""

from __future__ import annotations

import pytest

from browser.looks import SHOTS, Axe, Looks
from browser.world import World

PAGES = {
    "overview": "/",
    "cache": "/cache",
    "cache-filtered": "/cache?source=keyserver&domain=example.org&not_status=expired",
    "cache-empty": "/cache?q=nobody-has-this",
    "certificate": "/cache/{alice}",
    "certificate-x509": "/cache/{mia}",
    "lookup": "/lookup",
    "lookup-found": "/lookup?q=alice@example.org",
    "lookup-absent": "/lookup?q=nobody@example.org",
    "can-encrypt": "/can-encrypt",
    "invitations": "/invitations",
    "upstreams": "/upstreams",
    "mailflow": "/mailflow",
    "settings": "/settings",
    "settings-some": "/settings?q=ttl&set=1",
    "tokens": "/settings/tokens",
    "audit": "/audit",
    "history": "/history?q=alice@example.org",
    "history-then": "/history?q=alice@example.org&at=2026-01-01T09:00",
    "outlook": "/outlook",
    "nodes": "/nodes",
    "sign-out": "/sign-out",
    "nothing": "/nothing",
}


def pages(there: World) -> dict[str, str]:
    """Each page's address, by the name of its picture."""
    shown = {"alice": there.certificates["alice@example.org"].fingerprint, "mia": there.mia.fingerprint}
    return {name: path.format_map(shown) for name, path in PAGES.items()}


@pytest.mark.parametrize("look", ["light", "dark", pytest.param("phone", marks=pytest.mark.soak)])
def test_nobody_is_kept_out(looks: Looks, there: World, axe: Axe, look: str) -> None:
    page = looks.page(dark=look == "dark", phone=look == "phone")
    found = {}
    for name, path in pages(there).items():
        page.goto(path)
        page.screenshot(path=SHOTS / look / f"{name}.png", full_page=look == "light")
        if violations := axe(page, look == "dark"):
            found[name] = violations
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} must be scrolled sideways by {wide} px"
        assert page.evaluate("document.title").endswith("Keyserver")
    assert not found


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_the_way_in(looks: Looks, axe: Axe, there: World, look: str) -> None:
    page = looks.page(dark=look == "dark", phone=look == "phone", signed_in=False)
    page.goto("/audit")
    assert page.url.endswith("/sign-in?to=%2Faudit")
    page.screenshot(path=SHOTS / look / "sign-in.png")
    assert not axe(page, False)
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    assert "nobody's" in page.get_by_role("alert").inner_text()
    assert not axe(page, False)
    page.get_by_label("Token").fill(there.service.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/audit")


def test_without_javascript(looks: Looks, there: World) -> None:
    page = looks.page(script=False)
    for name, path in pages(there).items():
        reply = page.goto(path)
        assert reply is not None
        assert reply.status == (404 if name == "nothing" else 200)
        assert page.locator("h1").count() == 1
    page.goto("/audit")
    page.get_by_label("Act", exact=True).select_option("sign in")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**act=sign+in**")
    assert set(page.locator("td[data-name=Act]").all_inner_texts()) == {"sign in"}
