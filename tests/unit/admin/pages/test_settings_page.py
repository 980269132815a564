"""The page of settings: what holds and who said so, what is wrong with the file now, and reading it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from keyserver.admin.acts import ACTOR, Actor
from keyserver.admin.api.guard import may
from keyserver.admin.pages import Templates
from keyserver.admin.pages.assets import Assets
from keyserver.admin.pages.settings import SettingsPage
from keyserver.admin.problems import Refusal
from keyserver.admin.reloading import Mistaken, Reloaded
from keyserver.admin.settings import Settings
from keyserver.config import Config, load
from keyserver.config.problem import Problem
from keyserver.config.settings import KeyChange
from support.hostile_text import NASTY, harmless

NOW = 1_800_000_000
FILE = """\
[cache]
ttl = "2 days"
[[upstream]]
name = "one.example"
url = "hkp://user:hidden@keys.example.org"
"""


@dataclass
class Told:
    """Reloads as it is told."""

    outcome: Reloaded | Exception

    async def reload(self) -> Reloaded:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Here:
    """The page over a file."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "keyserver.toml"
        self.file.write_text(FILE)
        self.config: Config = load(self.file, ["log.level=debug"], {"KEYSERVER_LIMITS__SEARCHES": "20"})
        self.told = Told(Reloaded(str(self.file), (), ()))
        self.page = SettingsPage(Settings(lambda: self.config), self.told, Templates(Assets().places, lambda: NOW))

    async def show(self, path: str = "/settings", **headers: str) -> str:
        return await text(self.page.show(make_mocked_request("GET", path, headers)), 200)  # type: ignore[arg-type]

    async def reload(self, status: int) -> str:
        return await text(self.page.reload(make_mocked_request("POST", "/settings/reload")), status)


async def text(reply: object, status: int) -> str:
    response = await reply  # type: ignore[misc]
    assert isinstance(response, web.Response)
    assert response.status == status
    assert response.text is not None
    return response.text


@pytest.fixture
def here(tmp_path: Path) -> Here:
    ACTOR.set(Actor("anna", "page", "127.0.0.1"))
    return Here(tmp_path)


def section(page: str, name: str) -> str:
    """The rows of one section."""
    return page.split(f"[{name}]")[1].split("<h2>")[0]


def row(page: str, key: str) -> str:
    """The row of one key."""
    (found,) = [part for part in page.split("<tr>") if f">{key}<" in part]
    return found


async def test_each_value_says_where_it_comes_from(here: Here) -> None:
    page = await here.show()
    assert "<b>&#34;2 days&#34;</b>" in section(page, "cache")
    assert "<b>&#34;debug&#34;</b>" in row(page, "level")
    assert "command line --set" in row(page, "level")
    assert "environment KEYSERVER_LIMITS__SEARCHES" in row(page, "searches")
    assert ">default" in row(page, "negative_ttl")
    assert "[upstream[one.example]]" in page
    assert "hidden" not in page
    assert "it says what holds" in page
    assert "Reload" in page


async def test_keys_are_found_by_name_value_and_meaning(here: Here) -> None:
    page = await here.show("/settings?q=searches")
    assert ">searches<" in page
    assert ">level<" not in page
    page = await here.show("/settings?set=1")
    assert ">level<" in page
    assert ">negative_ttl<" not in page
    assert "No key matches" in await here.show("/settings?q=nonsense")


async def test_what_the_file_says_by_now(here: Here) -> None:
    here.file.write_text(
        FILE.replace("2 days", "3 days").replace("[cache]", '[hkp]\nlisten = ["127.0.0.1:1"]\n[cache]')
    )
    page = await here.show()
    assert "something else than what holds" in page
    assert "cache.ttl" in page
    assert '<span class="warn">a restart</span>' in page
    here.file.write_text(FILE.replace("2 days", "soon") + "nonsense = 1\n")
    page = await here.show()
    assert "it has 2 mistakes" in page
    assert "cache.ttl" in page


async def test_reloading(here: Here) -> None:
    here.told.outcome = Reloaded("file.toml", (KeyChange("cache.ttl", 1, 2, False),), ())
    page = await here.reload(200)
    assert "file.toml was read: changed: cache.ttl" in page
    here.told.outcome = Mistaken("file.toml", [Problem("cache.ttl", "soon", "accepted is a time")])
    assert "1 mistake; nothing was changed" in await here.reload(400)
    here.told.outcome = Refusal("no service runs")
    assert "no service runs" in await here.reload(409)


def test_viewers_get_nowhere(here: Here) -> None:
    assert [may(route.handler) for route in here.page.routes()] == ["operator", "operator"]


async def test_htmx_gets_the_keys_alone(here: Here) -> None:
    page = await here.show("/settings?q=ttl", **{"HX-Request": "true"})
    assert page.lstrip().startswith('<div id="keys">')


async def test_hostile_texts_do_no_harm(here: Here) -> None:
    for number, nasty in enumerate(NASTY):
        here.file.write_text(
            f'[cache]\nttl = {nasty[:200]!r}\n[[upstream]]\nname = "u{number}"\nurl = {nasty[:150]!r}\n'
        )
        assert harmless(await here.show())
        here.told.outcome = Refusal(nasty)
        assert harmless(await here.reload(409))
