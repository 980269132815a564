"""The page of processes."""

from __future__ import annotations

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from keyserver.admin.pages import Templates
from keyserver.admin.pages.assets import Assets
from keyserver.admin.pages.nodes import NodesPage
from support.administering import Admin

NOW = 1_800_000_000


async def test_each_process_with_its_restarts() -> None:
    nodes = [
        {"kind": "core", "pid": 7, "since": NOW - 7200, "restarts": 0, "connections": 0, "hot_answers": 0},
        {"kind": "front", "pid": 8, "since": NOW - 60, "restarts": 3, "connections": 12, "hot_answers": 1234567},
    ]
    page = NodesPage(lambda: nodes, Templates(Assets().places, lambda: NOW))

    reply = await page.show(make_mocked_request("GET", "/nodes"))
    assert isinstance(reply, web.Response)
    assert reply.text is not None
    for shown in ("core", "2 h ago", "1 min ago", "1\u202f234\u202f567", 'class="number warn">3<'):
        assert shown in reply.text


async def test_viewers_may_look(admin: Admin) -> None:
    assert (await admin.open("/nodes", await admin.viewer()))[0] == 200
