"""The documentation's site, built as readers get it: strictly, and looked at in a browser that reaches nobody else."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Request

from browser import portraits, terminal
from support.running import ROOT

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [str(ROOT / "scripts" / "docs"), "--site-dir", str(folder)], capture_output=True, text=True, timeout=600
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.parametrize("name", ["index", "start", "not-encrypted", "way", "reference/api", "compared"])
def test_pages_load_nothing_from_elsewhere(site: Path, browser: Browser, name: str) -> None:
    asked: list[str] = []
    with browser.new_page() as page:

        def note(request: Request) -> None:
            asked.append(request.url)

        page.on("request", note)
        page.goto(f"{(site / f'{name}.html').as_uri()}")
        page.wait_for_timeout(1000)
        assert page.locator("h1").count() == 1
    assert not [url for url in asked if url.startswith("http")]


def test_diagrams_are_drawn(site: Path, browser: Browser) -> None:
    with browser.new_page() as page:
        page.goto((site / "index.html").as_uri())
        page.wait_for_selector("div.mermaid")


def test_pictures_can_be_drawn_anew(tmp_path: Path) -> None:
    drawn = terminal.picture(terminal.lines(tmp_path))
    assert all(f"$&#160;{typed}" in drawn for typed in ("keyserver&#160;serve", "gpg", "keyserver&#160;lookup"))
    assert "url(http" not in drawn.replace('"', "")
    assert set(portraits.PAGES) == {file.stem for file in (ROOT / "docs" / "screenshots").glob("*.png")}
