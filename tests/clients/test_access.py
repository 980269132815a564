"""Tokens, sessions and the audit of a running service, from the shell, over HTTP and over TLS."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp

from support.running import Service
from support.tls import Authority


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def status(service: Service, path: str, headers: dict[str, str], method: str = "GET") -> int:
    return (await service.get(path, method=method, headers=headers, face="admin"))[0]


def audit(service: Service, *words: str) -> list[dict[str, Any]]:
    return list(json.loads(service.cli("audit", "--json", *words))["acts"])


async def test_tokens_from_the_shell_act_at_once_and_every_act_is_in_the_audit(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        eyes = service.cli("token", "add", "grafana", "--role", "viewer").strip()
        hands = json.loads(service.cli("token", "add", "ops", "--role", "operator", "--json"))["token"]
        assert "exists already" in service.cli("token", "add", "ops", "--role", "viewer", code=1)
        assert "viewer, operator" in service.cli("token", "add", "x", "--role", "root", code=2)
        assert await status(service, "/metrics", bearer(eyes)) == 200
        assert await status(service, "/api/v1/cache", bearer(eyes)) == 200
        assert await status(service, "/api/v1/lookup?q=a@b.example", bearer(eyes)) == 403
        one = "AB" * 20
        assert await status(service, f"/api/v1/cache/{one}/block", bearer(eyes), "POST") == 403
        assert await status(service, f"/api/v1/cache/{one}/block", bearer(hands), "POST") == 200
        listed = service.cli("token", "list")
        assert "grafana" in listed
        assert eyes[12:] not in listed + service.cli("token", "list", "--json")
        service.cli("token", "revoke", "grafana")
        assert await status(service, "/metrics", bearer(eyes)) == 401
        assert await status(service, "/api/v1/cache", {"Host": "evil.example", **bearer(hands)}) == 421
        service.cli("token", "revoke", "grafana", code=1)
        assert service.stop() == 0
        assert eyes not in "\n".join(service.log)
        assert hands not in "\n".join(service.log)

        # without a service it is the same store
        assert "revoked ops" in service.cli("token", "revoke", "ops")
        rows = audit(service)
        assert [(row["who"], row["way"], row["act"]) for row in rows] == [
            ("admin", "cli", "token revoke"),
            ("nobody", "api", "refused"),
            ("admin", "cli", "token revoke"),
            ("ops", "api", "block"),
            ("admin", "cli", "token add"),
            ("admin", "cli", "token add"),
        ]
        assert rows[3]["certificate"] == one
        assert rows[3]["place"] == "127.0.0.1"
        assert [row["act"] for row in audit(service, "--who", "ops")] == ["block"]
        assert [row["act"] for row in audit(service, "--act", "refused", "--limit", "1")] == ["refused"]
        assert audit(service, "--to", "2020-01-01") == []
        assert len(audit(service, "--from", "2020-01-01T00:00:00Z")) == len(rows)
        assert "2026-11-28" in service.cli("audit", "--from", "yesterday", code=2)
        table = list(csv.DictReader(io.StringIO(service.cli("audit", "--csv"))))
        lines = [json.loads(line) for line in service.cli("audit", "--jsonl").splitlines()]
        assert [row["act"] for row in table] == [row["act"] for row in lines] == [row["act"] for row in rows]
        assert lines == rows
        assert json.loads(table[3]["facts"]) == {}
        assert "token revoke" in service.cli("audit")
        service.start()
        assert audit(service) == rows


async def test_a_browser_signs_in_over_tls(tmp_path: Path) -> None:
    issued = Authority(tmp_path / "ca").issue()
    settings = {
        "admin.listen": '"tls:127.0.0.1:0"',
        "admin.tls_certificate": f'"{issued.certificate}"',
        "admin.tls_key_file": f'"{issued.key}"',
    }
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca" / "test-ca.pem"))
    with Service(tmp_path, settings=settings) as service:
        url = f"https://localhost:{service.port('admin')}"
        connector = aiohttp.TCPConnector(ssl=trusted, family=2)
        async with aiohttp.ClientSession(connector=connector) as browser:

            async def ask(method: str, path: str, **options: Any) -> tuple[int, str]:
                async with browser.request(method, url + path, allow_redirects=False, **options) as reply:
                    cookies.update(reply.cookies)
                    return reply.status, await reply.text()

            cookies: Any = {}
            origin = {"Origin": url}
            assert (await ask("GET", "/cache", headers={"Accept": "text/html"}))[0] == 303
            assert (await ask("GET", "/sign-in"))[0] == 200
            assert (await ask("POST", "/sign-in", data={"token": service.token}))[0] == 403
            assert (await ask("POST", "/sign-in", data={"token": "wrong"}, headers=origin))[0] == 403
            assert (await ask("POST", "/sign-in", data={"token": service.token}, headers=origin))[0] == 303
            morsel = cookies["__Host-keyserver"]
            assert (morsel["secure"], morsel["httponly"], morsel["samesite"]) == (True, True, "Strict")
            assert (await ask("GET", "/api/v1/cache"))[0] == 200
            purge = {"json": {"expired": True}}
            assert (await ask("POST", "/api/v1/cache/purge", **purge))[0] == 403
            assert (await ask("POST", "/api/v1/cache/purge", headers=origin, **purge))[0] == 200
            assert (await ask("POST", "/sign-out", headers=origin))[0] == 303
            assert (await ask("GET", "/api/v1/cache"))[0] == 401
        ways = [(row["way"], row["act"]) for row in await asyncio.to_thread(audit, service)]
        assert ways == [("page", "sign out"), ("page", "purge"), ("page", "sign in"), ("page", "refused")]
