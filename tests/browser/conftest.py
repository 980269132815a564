"""One service and one browser for all tests here; what the browser complains of fails the test that it happened in."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.resources import files

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from browser.looks import Axe, Looks
from browser.world import World, world


@pytest.fixture(scope="package")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium is not None, "Debian's chromium is missing: scripts/test installs it"
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        one = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield one
        one.close()


@pytest.fixture
def looks(browser: Browser, there: World) -> Iterator[Looks]:
    one = Looks(browser, there)
    yield one
    one.close()
    assert not one.complaints


@pytest.fixture(scope="package")
def axe() -> Axe:
    """What axe-core has against a page: rule, and the first element. By its colours alone, or by everything."""
    source = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")

    def violations(page: Page, colours: bool) -> list[str]:
        page.evaluate(source)
        options = {"resultTypes": ["violations"], **({"runOnly": ["color-contrast"]} if colours else {})}
        found = page.evaluate("async (options) => (await axe.run(options)).violations", options)
        return [f"{one['id']}: {one['nodes'][0]['html'][:200]} {one['nodes'][0]['failureSummary']}" for one in found]

    return violations
