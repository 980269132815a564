"""What administrators do on the pages, and what clients get after it."""

from __future__ import annotations

import re

from playwright.sync_api import Page, expect

from browser.looks import Looks, sign_in
from browser.world import BOB, LATE, World


def identities(page: Page) -> list[str]:
    return page.locator("td[data-name=Identity]").all_inner_texts()


def test_filters_live_in_the_address_and_back_goes_back(looks: Looks) -> None:
    page = looks.page()
    page.goto("/cache")
    everybody = len(identities(page))
    page.get_by_label("Source", exact=True).select_option("local")
    page.wait_for_url("**source=local**")
    expect(page.locator("td[data-name=Source]").first).to_have_text("local")
    assert set(page.locator("td[data-name=Source]").all_inner_texts()) == {"local"}
    page.reload()
    assert set(page.locator("td[data-name=Source]").all_inner_texts()) == {"local"}
    page.go_back()
    expect(page.locator("td[data-name=Identity]")).to_have_count(everybody)
    assert "source=local" not in page.url
    page.keyboard.press("/")
    page.keyboard.type("alice@example.org")
    expect(page.locator("td[data-name=Identity]")).to_have_count(1)
    assert "Alice Arden" in identities(page)[0]


def test_a_delete_is_a_miss_and_an_undo_is_a_hit(looks: Looks, there: World) -> None:
    assert there.look("carol@example.org") == "200 HIT"
    page = looks.page()
    delete(page, "carol@example.org")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("status").first).to_contain_text("Brought back 1 entry")
    assert there.look("carol@example.org") == "200 HIT"
    delete(page, "dave@example.net")
    assert there.look("dave@example.net") == "200 MISS"


def test_deleting_without_javascript(looks: Looks, there: World) -> None:
    delete(looks.page(script=False), "ivan@example.edu")
    assert there.look("ivan@example.edu") == "200 MISS"


def delete(page: Page, address: str) -> None:
    page.goto(f"/cache?q={address}")
    assert len(identities(page)) == 1
    page.locator("input[name=id]").check()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("status").first).to_contain_text("Deleted 1 entry")


def test_why_bob_is_not_answered_in_two_clicks_and_the_cure(looks: Looks, there: World) -> None:
    page = looks.page()
    page.goto("/")
    page.get_by_role("link", name="held, waiting").click()
    page.locator("td[data-name=Identity] a", has_text=BOB).click()
    expect(page.locator("#verdict")).to_contain_text("Not answered")
    page.get_by_role("button", name="Approve").click()
    expect(page.get_by_role("status").first).to_contain_text("Approved")
    expect(page.locator("#verdict")).not_to_contain_text("Not answered")


def test_a_lookup_tells_its_steps_as_they_happen(looks: Looks) -> None:
    page = looks.page()
    page.goto("/lookup")
    page.get_by_label("E-mail address").fill(LATE)
    page.get_by_role("button", name="Look up").click()
    expect(page.locator(".trace li").first).to_be_visible()
    expect(page.locator("#verdict")).to_contain_text("Looking up")  # the upstream has not said anything yet
    expect(page.locator("#verdict")).not_to_contain_text("Looking up")
    assert page.locator(".trace li").count() > 2
    assert f"q={LATE.replace('@', '%40')}" in page.url
    page.reload()
    assert page.locator(".trace li").count() > 0


def test_verdicts_come_and_the_noes_are_searched_again(looks: Looks) -> None:
    page = looks.page()
    page.goto("/can-encrypt")
    page.get_by_label("Addresses of recipients").fill("alice@example.org\nnobody-has-this@example.org")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#verdict")).to_contain_text("1 yes, 1 no")
    assert page.locator("#rows tr").count() == 2
    with page.expect_download() as export:
        page.get_by_role("button", name="Export as CSV").click()
    assert export.value.path().read_text().startswith("address,verdict,")
    page.get_by_role("button", name="Search for the 1 no again").click()
    expect(page.locator("#verdict")).to_contain_text("0 yes, 1 no")
    expect(page.locator("#rows tr")).to_have_count(1)


def test_a_token_is_shown_once_and_revoking_it_signs_out(looks: Looks, there: World) -> None:
    page = looks.page()
    page.goto("/settings/tokens")
    page.get_by_label("Name").fill("night shift")
    page.get_by_role("button", name="Add").click()
    token = page.locator("code.secret").inner_text()
    other = looks.page(signed_in=False)
    other.goto("/audit")
    other.get_by_label("Token").fill(token)
    other.get_by_role("button", name="Sign in").click()
    other.wait_for_url("**/audit")
    assert other.get_by_role("link", name="Settings").count() == 0
    page.goto("/settings/tokens")
    assert token not in page.content()
    page.get_by_role("button", name="Revoke night shift").click()
    page.wait_for_url("**/settings/tokens")
    other.goto("/audit")
    assert "/sign-in" in other.url


def test_a_paused_upstream_is_shown_loudly_until_it_is_resumed(looks: Looks, there: World) -> None:
    page = looks.page()
    page.goto("/upstreams")
    page.get_by_role("button", name="Pause keys.openpgp.org").click()
    expect(page.get_by_text("it is not asked, and counts as failed")).to_be_visible()
    page.goto("/")
    expect(page.get_by_text("keys.openpgp.org is paused")).to_be_visible()
    page.get_by_role("link", name="Go there").last.click()
    page.get_by_role("button", name="Resume keys.openpgp.org").click()
    expect(page.get_by_text("it is not asked, and counts as failed")).to_have_count(0)


def test_an_upstream_is_tested(looks: Looks) -> None:
    page = looks.page()
    page.goto("/upstreams")
    card = page.locator("section.upstream", has_text="keyserver.ubuntu.com")
    card.get_by_label("Address, fingerprint").fill("alice@example.org")
    card.get_by_role("button", name="Test").click()
    expect(page.get_by_role("status")).to_contain_text("keyserver.ubuntu.com: found")


def test_a_reload_says_what_it_changed(looks: Looks, there: World) -> None:
    file = there.service.config
    before = file.read_text()
    page = looks.page()
    try:
        file.write_text(before + "nonsense = 1\n")
        page.goto("/settings")
        expect(page.get_by_text("1 mistake")).to_be_visible()
        page.get_by_role("button", name="Reload").click()
        expect(page.get_by_role("alert")).to_contain_text("nothing was changed")
        file.write_text(before + "answer_mailflow = true\n")
        page.get_by_role("button", name="Reload").click()
        expect(page.get_by_role("status")).to_contain_text("changed: policy.answer_mailflow")
    finally:
        file.write_text(before)
        page.goto("/settings")
        page.get_by_role("button", name="Reload").click()
    assert re.search("changed: policy.answer_mailflow", page.get_by_role("status").inner_text())


def test_signing_out_everywhere(looks: Looks, there: World) -> None:
    token = there.send("/api/v1/tokens", b'{"name": "guest", "role": "operator"}', "application/json")
    secret = re.search(rb"ks_[0-9a-zA-Z_-]+", token)
    assert secret is not None
    pages = [looks.page(signed_in=False) for _ in range(2)]
    for page in pages:
        sign_in(page, there, secret[0].decode())
    pages[0].goto("/sign-out")
    pages[0].get_by_role("button", name="Sign out everywhere").click()
    pages[0].wait_for_url("**/sign-in")
    pages[1].goto("/nodes")
    assert "/sign-in" in pages[1].url
