"""The description of the API is true: every route, who may, what it takes; and whoever may not gets nowhere."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from openapi_spec_validator import validate

import keyserver.admin.api
from keyserver.admin.api.guard import may
from support.administering import NAME, TOKEN, Admin, running

NOW = 1_800_000_000
BEARER = {"Authorization": f"Bearer {TOKEN}"}
DESCRIPTION = json.loads((Path(keyserver.admin.api.__file__).parent / "openapi.json").read_text(encoding="utf-8"))
METHODS = ("get", "post", "put", "patch", "delete")


def operations() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(method, path, operation) of everything described; the path's parameters are put to the operation's own."""
    for path, item in DESCRIPTION["paths"].items():
        for method in METHODS:
            if method in item:
                given = [resolved(p) for p in (*item.get("parameters", ()), *item[method].get("parameters", ()))]
                yield method.upper(), path, {**item[method], "parameters": given}


def resolved(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in value:
        return value
    found: Any = DESCRIPTION
    for part in value["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found  # type: ignore[no-any-return]


def filled(path: str) -> str:
    """A path with its parameters in place: of things that exist nowhere, but for the upstream."""
    named = {"id": "AB" * 20, "name": "nobody"}
    if path.startswith("/api/v1/upstreams"):
        named["name"] = quote(NAME)
    return re.sub(r"\{(\w+)\}", lambda found: named.get(found[1], "1"), path)


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW) as one:
        yield one


async def ask(admin: Admin, method: str, path: str, headers: Mapping[str, str], **more: Any) -> tuple[int, str]:
    admin.session.cookie_jar.clear()
    async with admin.session.request(method, admin.url + path, headers=headers, allow_redirects=False, **more) as reply:
        return reply.status, await reply.text()


def test_the_description_is_one() -> None:
    validate(DESCRIPTION)


async def test_every_route_is_described_and_every_description_is_a_route(admin: Admin) -> None:
    routes = {
        (route.method, route.resource.canonical): may(route.handler)
        for route in admin.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routes == {(method, path): operation["x-role"] for method, path, operation in operations()}


def test_what_is_described_is_complete() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    for method, path, operation in operations():
        in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert in_path == set(re.findall(r"\{(\w+)\}", path)), (method, path)
        assert operation["summary"]
        assert (operation.get("security") == []) == (operation["x-role"] == "anyone"), (method, path)


async def test_parameters_are_those_that_the_handlers_take(admin: Admin) -> None:
    """What a handler does not know it names what it accepts instead."""
    for method, path, operation in operations():
        described = [p["name"] for p in operation["parameters"] if p["in"] == "query"]
        headers = {"Sec-Fetch-Site": "same-origin"} if operation["x-role"] == "anyone" else BEARER
        _, text = await ask(admin, method, f"{filled(path)}?zz=1", headers)
        accepted = re.search(r"unknown parameter 'zz'; accepted are ([a-z_, ]+)", text)
        given = accepted[1].split(", ") if accepted and accepted[1] != "none" else []
        assert sorted(given) == sorted(described), (method, path, text[:200])


async def test_it_is_served_to_viewers(admin: Admin) -> None:
    made = await admin.parts.operations.tokens.add("eyes", "viewer")
    status, text = await ask(admin, "GET", "/api/v1/openapi.json", {"Authorization": f"Bearer {made.token}"})
    assert (status, json.loads(text)) == (200, DESCRIPTION)


# --- who may: every route, every caller

BODIES: Mapping[str, Mapping[str, object]] = {
    "/api/v1/cache/purge": {"json": {"expired": True}},
    "/api/v1/cache/import": {"data": b"", "headers": {"Content-Type": "application/octet-stream"}},
    "/api/v1/harvest": {"data": b"", "headers": {"Content-Type": "message/rfc822"}},
    "/api/v1/tokens": {"json": {"name": "made", "role": "viewer"}},
}

LASTS: Mapping[str, str] = {"/api/v1/events": "?what=nothing"}
"""What ends at once an answer that would last, for whoever is let in."""

SAME, CROSS = {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "cross-site"}


async def callers(admin: Admin) -> dict[str, dict[str, str]]:
    """Headers of everybody who may come."""
    tokens, access = admin.parts.operations.tokens, admin.parts.operations.access
    made = {name: (await tokens.add(name, role)).token for name, role in
            {"eyes": "viewer", "hands": "operator", "gone": "operator"}.items()}  # fmt: skip
    cookies = {}
    for name, token in made.items():
        holder = await access.holder(token, "")
        assert holder is not None
        cookies[name] = {"Cookie": f"keyserver-session={await access.begin(holder, '')}"}
    await tokens.revoke("gone")
    bearers = {name: {"Authorization": f"Bearer {token}"} for name, token in made.items()}
    return {
        "none": {},
        "viewer": bearers["eyes"],
        "operator": bearers["hands"],
        "revoked": bearers["gone"],
        "viewer's page": {**cookies["eyes"], **SAME},
        "operator's page": {**cookies["hands"], **SAME},
        "revoked's page": {**cookies["gone"], **SAME},
        "forged cookie": {"Cookie": f"keyserver-session={'A' * 43}", **SAME},
        "cross-site": {**cookies["hands"], **CROSS},
        "no word of whose page": dict(cookies["hands"]),
        "operator by a wrong name": {**bearers["hands"], "Host": "evil.example"},
        "operator's page by a wrong name": {**cookies["hands"], **SAME, "Host": "evil.example"},
    }


def expected(method: str, path: str, role: str, caller: str) -> set[int]:
    """What the guard says to a caller; empty where it lets them in."""
    api = path.startswith("/api/") or path == "/metrics"
    if caller.endswith("wrong name"):
        return {421}
    if caller == "cross-site" and (method != "GET" or api):
        return {403}
    if caller == "no word of whose page" and method != "GET":
        return {403}
    if role == "anyone":
        return {403} if method != "GET" and caller == "none" else set()
    if caller in ("none", "revoked", "revoked's page", "forged cookie"):
        return {401}
    return {403} if role == "operator" and caller.startswith("viewer") else set()


async def test_everybody_gets_as_far_as_they_may_and_no_further(admin: Admin) -> None:
    wrong = []
    for method, path, operation in operations():
        people = await callers(admin)
        for caller, headers in people.items():
            more = dict(BODIES.get(path, {})) if method == "POST" else {}
            sent = {**headers, **more.pop("headers", {})}  # type: ignore[dict-item]
            status, text = await ask(admin, method, filled(path) + LASTS.get(path, ""), sent, **more)
            barred = expected(method, path, operation["x-role"], caller)
            refused = status in (401, 421, 429) or (status == 403 and text.startswith("{"))
            if (status not in barred) if barred else refused:
                wrong.append((caller, method, path, status, text[:80]))
        for name in ("eyes", "hands", "made"):
            await admin.parts.store.administration.revoke_token(name)
        admin.clock.pass_(60)  # the attempts at one route are not the next one's
    assert not wrong


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE"])
async def test_other_methods_are_refused_and_tell_strangers_nothing(admin: Admin, method: str) -> None:
    for path in {path for _, path, _ in operations()}:
        assert (await ask(admin, method, filled(path), {}))[0] == 401, path
        status, text = await ask(admin, method, filled(path), BEARER)
        assert (status, json.loads(text)["title"]) == (405, "Method not allowed"), path
