"""Draws docs/screenshots anew: a week of a service of its own, whose clock and upstreams are ours.

PYTHONPATH=tests .venv/bin/python -m browser.portraits
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from aiohttp import web
from playwright.async_api import async_playwright

from browser.world import BOB, MIA
from keyserver.admin.api.app import make_api
from keyserver.app import opened
from keyserver.app.administration import rules_of
from keyserver.app.parts import Parts
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.faces.http.app import make_runner
from keyserver.model import Failed, Found, Kind, Raw, UpstreamSpec, View
from keyserver.query import parse
from keyserver.upstreams.base import Upstream
from support.administering import Clock
from support.mails import attached_key, crlf, head, multipart, signed, text
from support.openpgp import make
from support.upstreams import Told
from support.x509 import authority, person, rsa_key

HERE = Path(__file__).parents[2] / "docs" / "screenshots"
UBUNTU, OPENPGP, PARTNER = "keyserver.ubuntu.com", "keys.openpgp.org", "partner directory"
STEP = 1800  # seconds
FIRST = ("Alice", "Bruno", "Carol", "Dave", "Erin", "Frank", "Grace", "Heidi", "Ivan", "Judy", "Karim", "Lena")
LAST = ("Arden", "Bauer", "Duarte", "Farkas", "Garcia", "Hansen", "Novak")
DOMAINS = ("example.org", "example.net", "example.com", "partner.example", "example.edu")
PAGES = {"overview": "/", "cache": "/cache", "upstreams": "/upstreams", "lookup": f"/lookup?q={BOB}"}


async def week(parts: Parts, clock: Clock, upstreams: dict[str, Told], chance: random.Random) -> None:
    """What comes in a week, by half hours."""
    people = [(f"{first} {last}", first, last) for first in FIRST for last in LAST]
    addresses = []
    for n, (name, first, last) in enumerate(people):
        address = f"{first}.{last}@{DOMAINS[n % len(DOMAINS)]}".lower()
        octets = make([f"{name} <{address}>"], created=clock.now - (n + 2) * 40 * 86400, seed=address).octets
        where = (UBUNTU,) if n % 3 else (OPENPGP,)
        for upstream in (PARTNER,) if address.endswith("partner.example") else where:
            upstreams[upstream].answers[address] = Found((Raw(Kind.OPENPGP, octets),))
        addresses.append(address)
    for step in range(7 * 86400 // STEP):
        clock.pass_(STEP)
        busy = 1.3 + math.sin((step % 48 - 18) / 48 * 2 * math.pi) if step % 336 // 48 < 5 else 0.5
        if step == 333:
            upstreams[PARTNER].otherwise = Failed("no answer within 2.0 s")
            upstreams[PARTNER].answers.clear()
        asked = [*chance.sample(addresses, int(6 * busy) + 1), f"nobody{step}@{DOMAINS[3 if step > 330 else step % 5]}"]
        for address in asked:
            answer = await parts.resolver.lookup(parse(address), View())
            parts.observer.lookup("hkp", address, answer, 200, 0.02)
        parts.observer.hot("hkp", int(90 * busy) + chance.randrange(20))


async def mail(parts: Parts) -> None:
    """What mail has brought: one certificate with a chain, one that waits."""
    service = parts.operations.service
    mia = person(MIA, authority(), key=rsa_key(2048, 1))
    await service.harvest(crlf(signed(text(), mia, sender=f"Mia Moor <{MIA}>")))
    key = attached_key(make([f"Bob Baumann <{BOB}>"], seed="bob").octets)
    await service.harvest(crlf(head(f"Bob Baumann <{BOB}>", "2@mail.example") + multipart(text(), key)))


async def draw(folder: Path) -> None:
    """All four."""
    clock = Clock(int(time.time()) - 7 * 86400)
    config = Config.model_validate(
        {
            "cache": {"database": f"sqlite:///{folder / 'cache.db'}"},
            "smime": {"trust_anchors": "none"},
            "upstream": [
                {"name": PARTNER, "url": "ldaps://ldap.partner.example", "priority": 5, "domains": ["partner.example"]},
                {"name": UBUNTU, "url": f"hkps://{UBUNTU}", "priority": 20},
                {"name": OPENPGP, "url": f"hkps://{OPENPGP}", "priority": 20},
            ],
        }
    )
    upstreams = {
        name: Told(UpstreamSpec(name), delay=delay)
        for name, delay in ((PARTNER, 0.004), (UBUNTU, 0.031), (OPENPGP, 0.017))
    }

    def scripted(section: UpstreamSection, spec: UpstreamSpec) -> Upstream:
        upstreams[spec.name].spec = spec
        return upstreams[spec.name]

    async with opened(config, Clocks(clock, clock.monotonic, lambda: 0.0), scripted) as parts:
        await mail(parts)
        await week(parts, clock, upstreams, random.Random(7))
        await mail(parts)
        token = parts.installation.token
        app = make_api(
            parts.operations, rules_of(config, parts.trust, parts.observer), token, nothing, config=lambda: config
        )
        runner = make_runner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            await pictures(f"http://127.0.0.1:{runner.addresses[0][1]}", token)
        finally:
            await runner.cleanup()


async def nothing() -> bytes:
    """No metrics."""
    return b""


async def pictures(url: str, token: str) -> None:
    """One of each page."""
    HERE.mkdir(exist_ok=True)
    async with async_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=arguments)
        page = await browser.new_page(base_url=url, viewport={"width": 1280, "height": 900})
        await page.goto("/sign-in")
        await page.get_by_label("Token").fill(token)
        await page.get_by_role("button", name="Sign in").click()
        await page.wait_for_url("**/")
        for name, path in PAGES.items():
            await page.goto(path)
            if name == "upstreams":
                await page.get_by_text("By domain").first.click()
            await page.screenshot(path=HERE / f"{name}.png")
        await browser.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        asyncio.run(draw(Path(name)))
