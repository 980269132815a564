"""The service's own webhook and feed: TLS, kill -9, two nodes on PostgreSQL, a viewer, the log."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from support.openpgp import make
from support.postgres import shared
from support.running import Service
from support.tls import Authority

MADE = [make([f"n{n} <n{n}@example.org>"], seed=f"n{n}") for n in range(8)]


@dataclass
class Receiver:
    """Takes all, each with a 200; `hold`: it takes them, and never says so."""

    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    hold: bool = False

    @property
    def numbers(self) -> list[int]:
        return [body["id"] for body in self.bodies]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        if self.hold:
            await asyncio.sleep(60)
        return web.Response(text="thanks")


@asynccontextmanager
async def receiving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    receiver.url = f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def settings(folder: Path, url: str) -> dict[str, str]:
    secret = folder / "webhook.secret"
    secret.write_text("a secret of many octets\n")
    secret.chmod(0o600)
    return {
        "events.webhook": f'"{url}"',
        "events.webhook_secret_file": f'"{secret}"',
        "smime.trust_anchors": '"none"',
        "log.level": '"debug"',
    }


async def bring(service: Service, n: int) -> None:
    headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/pgp-keys"}
    status, _, body = await service.get(
        "/api/v1/cache/import", method="POST", headers=headers, face="admin", body=MADE[n].octets
    )
    assert status == 200, body


async def numbers(receiver: Receiver, many: int, seconds: float = 30) -> list[int]:
    async with asyncio.timeout(seconds):
        while len(receiver.bodies) < many:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    return receiver.numbers


async def begun(service: Service) -> None:
    """What comes from now on is sent: the cursor is set within a moment of the start."""
    async with asyncio.timeout(20):
        while "keyserver_cluster_leads 1.0" not in (await exposed(service)):
            await asyncio.sleep(0.1)
    await asyncio.sleep(1.5)


async def exposed(service: Service) -> str:
    headers = {"Authorization": f"Bearer {service.token}"}
    return (await service.get("/metrics", headers=headers, face="admin"))[2].decode()


@pytest.mark.usefixtures("both_shapes")
async def test_events_arrive_hashed_and_in_order(tmp_path: Path) -> None:
    async with receiving() as receiver:
        with Service(tmp_path, settings=settings(tmp_path, receiver.url)) as service:
            await begun(service)
            for n in range(3):
                await bring(service, n)
            got = await numbers(receiver, 3)
            assert got == sorted(set(got))
            assert len(got) == 3
            assert re.search(r'keyserver_webhook_deliveries_total{outcome="delivered"} [34]\.0', await exposed(service))
            for made, body in zip(MADE, receiver.bodies, strict=False):
                assert (body["what"], body["source"]) == ("first seen", "local")
                assert body["fingerprint"].startswith("#")
                assert made.fingerprint not in json.dumps(body)
                assert body["node"]
            log = "\n".join(service.log)
            assert "example.org" not in log
            assert "secret of many" not in log


async def test_tls_is_checked(tmp_path: Path) -> None:
    """By the system's authorities, here those of SSL_CERT_FILE."""
    ours, strange = Authority(tmp_path / "ours"), Authority(tmp_path / "strange", "Strange CA")
    for authority, good in ((ours, True), (strange, False)):
        folder = tmp_path / ("good" if good else "bad")
        folder.mkdir()
        async with receiving(authority.server()) as receiver:
            environment = {"SSL_CERT_FILE": str(ours.ca_file)}
            given = settings(folder, receiver.url)
            with Service(folder, settings=given, environment=environment) as service:
                await begun(service)
                await bring(service, 0)
                if good:
                    assert len(await numbers(receiver, 1)) == 1
                    continue
                async with asyncio.timeout(20):
                    while "its TLS certificate is not good" not in "\n".join(service.log):
                        await asyncio.sleep(0.1)
                assert not receiver.bodies
                assert re.search(r"keyserver_webhook_waiting [12]\.0", await exposed(service))


async def test_killed_between_post_and_mark_one_event_comes_twice_and_none_is_lost(tmp_path: Path) -> None:
    async with receiving() as receiver:
        with Service(tmp_path, settings=settings(tmp_path, receiver.url)) as service:
            await begun(service)
            await bring(service, 0)
            first = await numbers(receiver, 1)
            receiver.hold = True
            for n in range(1, 4):
                await bring(service, n)
            held = (await numbers(receiver, 2))[1]
            service.kill()
            receiver.hold = False
            service.start()
            got = await numbers(receiver, 5)
    assert got[:3] == [*first, held, held]
    assert got[3:] == sorted(set(got[3:]))
    assert len(set(got)) == 4


async def test_two_nodes_tell_once_and_the_next_goes_on(tmp_path: Path) -> None:
    name = shared().create()
    url = shared().url(name)
    services: list[Service] = []
    async with receiving() as receiver:
        try:
            for node in ("one", "two"):
                folder = tmp_path / node
                folder.mkdir()
                given = settings(folder, receiver.url) | {
                    "cache.database": f'"{url}"',
                    "server.state_dir": f'"{folder}"',
                    "server.node": f'"{node}"',
                }
                services.append(Service(folder, settings=given).start())
                if node == "one":
                    await begun(services[0])
            one, two = services
            for n in range(4):
                await bring(services[n % 2], n)
            got = await numbers(receiver, 4)
            assert len(got) == 4
            assert got == sorted(set(got))
            assert {body["node"] for body in receiver.bodies} == {"one"}
            async with asyncio.timeout(20):
                while str(got[-1]) not in shared().sql("SELECT number FROM delivery", database=name):
                    await asyncio.sleep(0.1)
            one.kill()
            await bring(two, 4)
            await bring(two, 5)
            got = await numbers(receiver, 6)
            assert len(got) == 6
            assert got == sorted(set(got))
            assert [body["node"] for body in receiver.bodies[4:]] == ["two", "two"]
        finally:
            for service in services:
                service.kill()
            shared().give_back(name)


async def test_a_feed_of_one_node_tells_within_a_second_what_another_changed(tmp_path: Path) -> None:
    name = shared().create()
    url = shared().url(name)
    services: list[Service] = []
    try:
        for node in ("one", "two"):
            folder = tmp_path / node
            folder.mkdir()
            given = {
                "cache.database": f'"{url}"',
                "server.state_dir": f'"{folder}"',
                "smime.trust_anchors": '"none"',
                "server.node": f'"{node}"',
            }
            services.append(Service(folder, settings=given).start())
        one, two = services
        reader, writer = await asyncio.open_connection("127.0.0.1", two.port("admin"))
        writer.write(
            f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {two.token}\r\n\r\n".encode()
        )
        async with asyncio.timeout(20):
            await reader.readuntil(b"id: ")
            took = []
            loop = asyncio.get_running_loop()
            for n in range(4):
                await bring(one, n)
                began = loop.time()
                await reader.readuntil(MADE[n].fingerprint.encode())
                took.append(loop.time() - began)
        assert sorted(took)[1] < 1.0, took
        writer.close()
    finally:
        for service in services:
            service.kill()
        shared().give_back(name)
