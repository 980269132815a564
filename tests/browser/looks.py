"""Windows of a browser, and what it says of our pages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

from browser.world import World

SHOTS = Path(__file__).parents[2] / "var" / "screenshots"
Axe: TypeAlias = Callable[[Page, bool], list[str]]
_REFUSED = "Failed to load resource: the server responded with a status of 4"  # what a page about a mistake is


class Looks:
    """Windows of one browser, signed in; `complaints` is what it said of our pages."""

    def __init__(self, browser: Browser, there: World) -> None:
        self._browser = browser
        self._there = there
        self._signed: dict[str, object] | None = None
        self._open: list[BrowserContext] = []
        self.complaints: list[str] = []

    def page(self, *, dark: bool = False, phone: bool = False, script: bool = True, signed_in: bool = True) -> Page:
        """A window of its own."""
        context = self._browser.new_context(
            base_url=self._there.url,
            color_scheme="dark" if dark else "light",
            viewport={"width": 390, "height": 844} if phone else {"width": 1280, "height": 860},
            java_script_enabled=script,
            storage_state=self._state() if signed_in else None,  # type: ignore[arg-type]
        )
        context.set_default_timeout(10_000)
        self._open.append(context)
        page = context.new_page()
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def close(self) -> None:
        """All windows."""
        while self._open:
            self._open.pop().close()

    def _state(self) -> dict[str, object]:
        """The session of the first sign-in, for all."""
        if self._signed is None:
            context = self._browser.new_context(base_url=self._there.url)
            sign_in(context.new_page(), self._there)
            self._signed = dict(context.storage_state())
            context.close()
        return self._signed

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not message.text.startswith(_REFUSED):
            self.complaints.append(message.text)


def sign_in(page: Page, there: World, token: str = "") -> None:
    """By the form, with the first operator's token where no other is given."""
    page.goto("/")
    page.get_by_label("Token").fill(token or there.service.token)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/")
