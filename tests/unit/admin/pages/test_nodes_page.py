"""The page of nodes and processes."""

from __future__ import annotations

from dataclasses import replace

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from keyserver.admin.pages import Templates
from keyserver.admin.pages.assets import Assets
from keyserver.admin.pages.nodes import NodesPage
from keyserver.resolver.membership import ClusterNode, Difference
from support.administering import Admin

NOW = 1_800_000_000


async def test_each_process_with_its_restarts() -> None:
    nodes = [
        {"kind": "core", "pid": 7, "since": NOW - 7200, "restarts": 0, "connections": 0, "hot_answers": 0},
        {"kind": "front", "pid": 8, "since": NOW - 60, "restarts": 3, "connections": 12, "hot_answers": 1234567},
    ]
    page = NodesPage(lambda: nodes, tuple, Templates(Assets().places, lambda: NOW))

    reply = await page.show(make_mocked_request("GET", "/nodes"))
    assert isinstance(reply, web.Response)
    assert reply.text is not None
    assert "Last seen" not in reply.text, "the cache is one node's alone"
    for shown in ("core", "2 h ago", "1 min ago", "1\u202f234\u202f567", 'class="number warn">3<'):
        assert shown in reply.text


async def test_each_node_with_what_differs() -> None:
    here = ClusterNode("1", "one", "1.0", NOW - 7200, NOW + 1, 0.2, living=True, leads=True, here=True, differences=())
    ttl = Difference("cache.ttl", "1 day", "2 days")
    more = Difference("upstream[<b>].url", "", "hkp://x.example")
    there = replace(here, id="2", name="two", seen=NOW - 60, here=False, leads=False, differences=(ttl, more))
    gone = replace(there, id="3", name="three", living=False, differences=())
    page = NodesPage(tuple, lambda: (here, there, gone), Templates(Assets().places, lambda: NOW))

    reply = await page.show(make_mocked_request("GET", "/nodes"))
    assert isinstance(reply, web.Response)
    assert reply.text is not None
    for shown in (
        "one",
        "this one",
        "0 s ago",
        "0.2 s",
        "leads",
        "follows",
        "gone",
        "2 days there, 1 day here",
        "&lt;b",
    ):
        assert shown in reply.text
    assert "hkp://x.example there, none here" in reply.text
    assert "<b>" not in reply.text


async def test_viewers_may_look(admin: Admin) -> None:
    assert (await admin.open("/nodes", await admin.viewer()))[0] == 200
