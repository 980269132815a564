"""The owners' pages as people see them: light, dark, at 320 pixels, without JavaScript; by the button alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from browser.looks import SHOTS, Axe
from keyserver import smime
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.invite.tokens import Token
from keyserver.model import Certificate, Find, Kind, Source
from keyserver.store.invitations import Invitation, Quota
from keyserver.store.sqlite import SqliteStore
from support.openpgp import make
from support.running import Service

ALICE = "alice@partner.example"
LONG = "a-rather-long-local-part-of-an-address.that-does-not-fit@department.partner-with-a-long-name.example"
SIZES = {"light": (1280, 860), "dark": (390, 844), "narrow": (320, 640), "no script": (320, 640)}


@dataclass
class Owners:
    """A service that has invited two people."""

    service: Service
    tokens: dict[str, Token]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.port('invite')}"


async def _invited(path: Path, tokens: dict[str, Token]) -> None:
    hygiene, now = hygiene_of(smime.Anchors([])), int(time.time())
    store = SqliteStore(path, hygiene, Changes(), max_size=1 << 30)
    await store.open()
    for number, (address, token) in enumerate(tokens.items()):
        (clean,) = hygiene[Kind.OPENPGP].clean(make([f"<{address}>"], seed=address).octets, now)
        assert isinstance(clean, Certificate)
        origin = address.rpartition("@")[2]
        await store.put([Find(clean, Source.MAILFLOW, origin)], [], await store.begin(), now)
        invitation = Invitation(f"{number:032x}", address, clean.fingerprint, Kind.OPENPGP, Source.MAILFLOW, origin,
                                now, "ann", now + 86400)  # fmt: skip
        prepared = store.invitations.prepare(invitation, token.digest, token.withdrawal.digest, Quota(9, 9, 9))
        assert await prepared is None
    await store.close()


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Owners]:
    folder = tmp_path_factory.mktemp("owners")
    tokens = {address: Token(bytes([n]) * 32) for n, address in enumerate((ALICE, LONG), 1)}
    with ThreadPoolExecutor(1) as thread:  # the browser's driver has this one's loop
        thread.submit(lambda: asyncio.run(_invited(folder / "keyserver.db", tokens))).result()
    settings = {"invite.listen": '"127.0.0.1:0"', "invite.public_url": '"http://127.0.0.1:1"'}
    with Service(folder, settings=settings) as running:
        yield Owners(running, tokens)


@pytest.fixture
def windows(browser: Browser, owners: Owners) -> Iterator[dict[str, Page]]:
    """A window of each look; what the browser complains of fails the test."""
    complaints: list[str] = []
    made, contexts = {}, []
    for look in SIZES:
        width, height = SIZES[look]
        contexts.append(
            browser.new_context(
                base_url=owners.url,
                color_scheme="dark" if look == "dark" else "light",
                viewport={"width": width, "height": height},
                java_script_enabled=look != "no script",
            )
        )
        page = made[look] = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on(
            "console",
            lambda said: complaints.append(said.text) if "status of 4" not in said.text else None,
        )
    yield made
    for context in contexts:
        context.close()
    assert not complaints


def test_nobody_is_kept_out_and_only_the_button_confirms(windows: dict[str, Page], owners: Owners, axe: Axe) -> None:
    confirm, withdraw = (f"/confirm/{owners.tokens[ALICE]}", f"/withdraw/{owners.tokens[ALICE].withdrawal}")
    paths = {"start": "/", "confirm": confirm, "withdraw": withdraw, "nothing": "/confirm/x"}
    paths |= {"long": f"/confirm/{owners.tokens[LONG]}"}
    page = windows.pop("no script")
    _look_at(windows, paths, axe)
    page.goto(confirm)
    assert ALICE in page.locator("main").inner_text()
    page.get_by_role("button", name="Use this certificate for my mail").click()
    assert page.locator("h1").inner_text() == "Confirmed"
    _look_at(windows, {"confirmed": confirm}, axe)
    page.get_by_role("link", name="Withdraw my consent").click()
    page.wait_for_url(f"**{withdraw}")
    page.get_by_role("button", name="Withdraw my consent").click()
    assert page.locator("h1").inner_text() == "Withdrawn"
    _look_at(windows, {"used": confirm}, axe)


def _look_at(windows: dict[str, Page], paths: dict[str, str], axe: Axe) -> None:
    for look, page in windows.items():
        for name, path in paths.items():
            reply = page.goto(path)
            assert reply is not None
            assert reply.status == {"nothing": 404, "used": 410}.get(name, 200)
            page.screenshot(path=SHOTS / look / f"owners-{name}.png", full_page=True)
            assert page.locator("h1").count() == 1
            assert page.title() == page.locator("h1").inner_text()
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide <= 0, f"{name} must be scrolled sideways by {wide} px at {look}"
            assert not axe(page, look == "dark"), name
