"""Every page as people see it: light, dark, on a phone, without JavaScript; nobody is kept out by how it is made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from browser.looks import SHOTS, Looks
from browser.world import World

PAGES = {
    "overview": "/",
    "upstreams": "/upstreams",
    "audit": "/audit",
    "tokens": "/settings/tokens",
    "nodes": "/nodes",
    "sign-out": "/sign-out",
    "nothing": "/nothing",
}


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_nobody_is_kept_out(looks: Looks, axe: Callable[[Page], list[str]], look: str) -> None:
    page = looks.page(dark=look == "dark", phone=look == "phone")
    found = {}
    for name, path in PAGES.items():
        page.goto(path)
        page.screenshot(path=SHOTS / look / f"{name}.png", full_page=True)
        if violations := axe(page):
            found[name] = violations
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{name} must be scrolled sideways by {wide} px"
        assert page.evaluate("document.title").endswith("Keyserver")
    assert not found


@pytest.mark.parametrize("look", ["light", "dark", "phone"])
def test_the_way_in(looks: Looks, axe: Callable[[Page], list[str]], there: World, look: str) -> None:
    page = looks.page(dark=look == "dark", phone=look == "phone", signed_in=False)
    page.goto("/audit")
    assert page.url.endswith("/sign-in?to=%2Faudit")
    page.screenshot(path=SHOTS / look / "sign-in.png")
    assert not axe(page)
    page.get_by_label("Token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    assert "nobody's" in page.get_by_role("alert").inner_text()
    assert not axe(page)
    page.get_by_label("Token").fill(there.service.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/audit")


def test_without_javascript(looks: Looks) -> None:
    page = looks.page(script=False)
    for name, path in PAGES.items():
        reply = page.goto(path)
        assert reply is not None
        assert reply.status == (404 if name == "nothing" else 200)
        assert page.locator("h1").count() == 1
    page.goto("/audit")
    page.get_by_label("Act", exact=True).select_option("sign in")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**act=sign+in**")
    assert set(page.locator("td[data-name=Act]").all_inner_texts()) == {"sign in"}
