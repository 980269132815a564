"""Processes of a service under load that are killed again and again: nothing acknowledged is lost, every answer agrees
with what was acknowledged, and clients see at most reset connections or 500.

Without a supervisor there is no service: its connections are reset, then refused until somebody starts it again."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from keyserver.openpgp.armor import dearmor
from support.openpgp import Made, make
from support.persistent import keep_asking
from support.ports import free_port
from support.processes import alive, family
from support.running import Service, read_reply
from support.scripted import NOT_FOUND, Scripted, key

KINDS = ("front", "core", "supervisor")
PATIENCE = 15.0
"""Seconds that a client waits for a reply."""


@dataclass(slots=True)
class Subject:
    """A certificate that an administrator changes. `there`: what was acknowledged last, None while a change is under
    way."""

    made: Made
    address: str
    upstreams: bool
    """An upstream has it: it is blocked and unblocked. Otherwise it is imported and deleted."""
    there: bool | None
    changes: int = 0


@dataclass
class Load:
    """Clients and an administrator. `seen`: replies by status, and what came instead of one. `wrong`: answers that
    contradict what was acknowledged before their question and changed only after they came."""

    service: Service
    subjects: list[Subject]
    chance: random.Random
    seen: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    changed: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def client(self, cold: bool) -> None:
        """Asks on one connection after the other."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while not self.over.is_set() and await self._ask(reader, writer, cold):
                await asyncio.sleep(0.003)

        await keep_asking(self.service.port, self.over, self.seen, talk, 0.02)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cold: bool) -> bool:
        subject = self.chance.choice(self.subjects)
        term = f"nobody{next(self.numbers)}@example.org" if cold else subject.address
        changes, there = subject.changes, subject.there
        writer.write(f"GET /pks/lookup?op=get&options=mr&search={term} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        status, fields, body = await asyncio.wait_for(read_reply(reader), PATIENCE)
        self.seen[str(status)] += 1
        if status == 500:
            assert "retry-after" in fields or fields.get("cache-control") == "no-store"
            await asyncio.sleep(0.05)
            return False
        if cold:
            right = status == 404
        elif there is None or subject.changes != changes:
            right = status in (200, 404)
        else:
            right = status == (200 if there else 404)
        if right and status == 200:
            right = subject.made.primary.hashed[3:] in b"".join(dearmor(body))
        if not right:
            self.wrong.append(f"{term}: {status} after change {changes}, there: {there}")
        return True

    async def administrator(self) -> None:
        """One change after the other, each repeated until it is acknowledged."""
        while not self.over.is_set():
            subject = self.chance.choice(self.subjects)
            there = not subject.there
            subject.there, subject.changes = None, subject.changes + 1
            while not await self._change(subject, there):
                await asyncio.sleep(0.05)
            subject.there, self.changed = there, self.changed + 1
            await asyncio.sleep(0.01)

    async def _change(self, subject: Subject, there: bool) -> bool:
        """Acknowledged?"""
        headers = {"Authorization": f"Bearer {self.service.token}"}
        place, method, body = f"/api/v1/cache/{subject.made.fingerprint}", "POST", b""
        if subject.upstreams:
            place += "/unblock" if there else "/block"
        elif there:
            place, body = "/api/v1/cache/import", subject.made.octets
            headers["Content-Type"] = "application/pgp-keys"
        else:
            method = "DELETE"
        try:
            status, _, _ = await self.service.get(place, method=method, headers=headers, face="admin", body=body)
        except (OSError, asyncio.IncompleteReadError):
            return False
        done_before = status == 404 and (method == "DELETE" or place.endswith("/unblock"))  # and not acknowledged
        return status == 200 or done_before


@contextlib.asynccontextmanager
async def under_load(service: Service, subjects: list[Subject], chance: random.Random) -> AsyncIterator[Load]:
    load = Load(service, subjects, chance)
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(load.client(cold=number % 4 == 3))
        group.create_task(load.administrator())
        try:
            yield load
        finally:
            load.over.set()


async def kill(service: Service, kind: str, chance: random.Random) -> None:
    """One process of this kind; without a supervisor everybody ends within a second, and the service is started."""
    if kind != "supervisor":
        os.kill(chance.choice((await service.pids())[kind]), signal.SIGKILL)
        return
    assert service.process is not None
    pids = list(family(service.process.pid))
    began = time.monotonic()
    await asyncio.to_thread(service.kill)
    while any(map(alive, pids)):
        assert time.monotonic() - began < 1, "they outlive it"
        await asyncio.sleep(0.01)
    await asyncio.to_thread(service.start)


async def settled(load: Load, began: float) -> float:
    """Return when only good answers come, and changes are made again: seconds from `began` until then."""
    last = time.monotonic()
    before, good, changed = load.seen.copy(), 0, load.changed
    while good < 40 or load.changed < changed + 2:
        assert time.monotonic() - began < 60, "\n".join([f"no rest: {load.seen}", *load.service.log[-20:]])
        await asyncio.sleep(0.05)
        fresh, before = load.seen - before, load.seen.copy()
        good += fresh["200"] + fresh["404"]
        if set(fresh) - {"200", "404"}:
            good, last = 0, time.monotonic()
    return last - began


async def test_processes_killed_under_load_lose_nothing(
    tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(11)
    made = [make([f"<p{n}@example.org>"], seed=f"kills{n}", encryption=None) for n in range(8)]
    subjects = [Subject(one, f"p{n}@example.org", upstreams=n % 2 == 0, there=n % 2 == 0) for n, one in enumerate(made)]
    routes = {s.address: key(s.made.octets) for s in subjects if s.upstreams}
    settings = {f"{face}.listen": f'["127.0.0.1:{free_port()}"]' for face in ("hkp", "ldap")}
    settings |= {"server.workers": "2", "admin.listen": f'"127.0.0.1:{free_port()}"'}
    settings["smime.trust_anchors"] = '"none"'  # reading the system's would be most of a start
    total: dict[str, collections.Counter[str]] = {kind: collections.Counter() for kind in KINDS}
    longest = dict.fromkeys(KINDS, 0.0)
    order = itertools.chain.from_iterable(chance.sample(KINDS, len(KINDS)) for _ in itertools.count())
    async with Scripted({**routes, "*": NOT_FOUND}) as upstream:
        service = Service(tmp_path, upstreams=[upstream.url], settings=settings)
        service.patience = 60.0
        with service:
            for subject in subjects:  # the names of what is cached are known to `unblock`
                assert (await service.lookup(subject.address))[0] == (200 if subject.there else 404)
            async with under_load(service, subjects, chance) as load:
                await settled(load, time.monotonic())
                for kind in itertools.islice(order, pytestconfig.getoption("--kills")):
                    before = load.seen.copy()
                    await asyncio.sleep(chance.random() / 4)
                    began = time.monotonic()
                    await kill(service, kind, chance)
                    longest[kind] = max(longest[kind], await settled(load, began))
                    total[kind] += load.seen - before
                    assert not load.wrong, f"after a {kind} was killed: {load.wrong}"
            for subject in subjects:
                assert subject.there is not None
                status, _, body = await service.lookup(subject.address)
                assert status == (200 if subject.there else 404), (subject.address, body, service.log[-20:])
            assert service.stop() == 0
    with capsys.disabled():
        print(f"\n{load.changed} changes acknowledged")
        for kind, seen in total.items():
            print(f"{kind} killed: clients saw {dict(seen)}; at most {longest[kind]:.1f} s until all was well")
    for kind, seen in total.items():
        assert set(seen) <= {"200", "404", "500", "reset", *(["refused"] if kind == "supervisor" else [])}, (kind, seen)
