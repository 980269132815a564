"""Three nodes on one PostgreSQL, asked, changed and hurt at random; what came of it, for `history` to judge.

Each node reaches the database through a proxy of its own and goes by a clock of its own. The upstream gives another
version at every question. Of an outcome that is not acknowledged nobody knows whether it happens within UNKNOWN.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from keyserver.openpgp.armor import dearmor
from support.between import Between
from support.history import BOUND, Delete, Look, Put, agree, judge
from support.hurting import FAULTS, Hurting
from support.postgres import Cluster
from support.running import Service
from support.scripted import Behaviour, Request, Scripted, key
from support.shim import clock_shim
from support.subjects import AUTHSERV, Subject

SUBJECTS = 6
UNKNOWN = 15.0  # seconds: longer than any fault, and any statement of the store
PATIENCE = 4.0  # seconds that a client waits
DETACHED = {"a": 0, "b": 2, "c": 2}  # name of a node -> seconds of `server.max_detached`
TTLS = ("1h", "1d", "30d")  # whichever a node goes by, nothing expires meanwhile

_REFUSED = (OSError, asyncio.IncompleteReadError, TimeoutError)


class Nodes:
    """See the module; made by `nodes`."""

    def __init__(self, folder: Path, server: Cluster, upstream: Scripted, betweens: dict[str, Between]) -> None:
        self.server = server
        self.betweens = betweens
        self.done: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.hurts: list[str] = []
        """Each fault of this run: when, what, and where if that matters."""
        self.subjects: list[Subject] = []
        self.services: dict[str, Service] = {}
        self.offsets: dict[str, Path] = {}
        self._upstream = upstream
        self._versions = iter(range(1, 1 << 30))
        self._calm = 0.0  # when the last fault is surely over
        database = server.create()
        for name, between in betweens.items():
            (folder / name).mkdir()
            environment, self.offsets[name] = clock_shim(folder, f"offset-{name}")
            self.services[name] = Service(
                folder / name,
                upstreams=[upstream.url],
                environment=environment,
                settings={
                    "cache.database": f'"postgresql://keyserver@127.0.0.1:{between.port}/{database}"',
                    "server.state_dir": f'"{folder / name}"',
                    "server.node": f'"{name}"',
                    "server.max_detached": f'"{DETACHED[name]}s"',
                    "smime.trust_anchors": '"none"',
                    "mailflow.authserv_id": f'"{AUTHSERV}"',
                },
            )
            self.services[name].patience = 60.0  # on a busy machine

    def begin(self, chance: random.Random) -> None:
        """Forget what was, and go on with certificates that nobody has asked for yet."""
        self.chance, self.hurts = chance, []
        self._hurting = Hurting(self.server, self.services, self.betweens, self.offsets, chance)
        numbers = range(len(self._upstream.routes), len(self._upstream.routes) + SUBJECTS)
        self.subjects = [Subject(number) for number in numbers]
        for subject in self.subjects:
            self._upstream.routes[subject.primary.fingerprint] = self._find(subject)

    def _find(self, subject: Subject) -> Behaviour:
        async def behave(request: Request, writer: asyncio.StreamWriter) -> bool | None:
            at, number = time.monotonic(), next(self._versions)
            subject.finds[f"v{number}"] = Put(f"v{number}", at, begun=at, durable=False, replaced=True)
            if at > self._calm:
                subject.history.searches.append(at)
            await asyncio.sleep(self.chance.choice((0.0, 0.02, 0.5)))
            return await key(subject.version(number))(request, writer)

        return behave

    # --- what clients and administrators do

    async def work(self, seconds: float) -> None:
        """All at once, with one fault after the other."""
        self._over = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for name in self.services:
                group.create_task(self._look_on(name))
                group.create_task(self._look_on(name))
            group.create_task(self._change())
            group.create_task(self._change())
            group.create_task(self._block())
            group.create_task(self._mail())
            group.create_task(self._change_ttl())
            group.create_task(self._hurt())

    def _going(self) -> bool:
        return time.monotonic() < self._over

    async def _look_on(self, name: str) -> None:
        while self._going():
            if not await self.look(name, self.chance.choice(self.subjects)):
                await asyncio.sleep(0.1)
            await asyncio.sleep(self.chance.uniform(0, 0.04))

    async def look(self, name: str, subject: Subject) -> Look | None:
        """None: no definite answer."""
        start = time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                status, fields, body = await self.services[name].lookup(f"0x{subject.primary.fingerprint}")
        except _REFUSED:
            self.done["no reply"] += 1
            return None
        end = time.monotonic()
        self.done[f"looks {status}"] += 1
        if status not in (200, 404):
            return None
        octets = b"".join(dearmor(body)) if status == 200 else b""
        versions = frozenset(found.decode() for found in re.findall(rb"<(v\d+)@", octets))
        how = fields.get("x-cache", "")
        bound = BOUND
        if how == "DETACHED":  # it says that it may be older
            bound += DETACHED[name]
        revoked = frozenset({"revocation"} if subject.revocation in octets else ())
        if how == "MISS" and start < self._calm and self._uncached(subject, versions, start):
            deletes = subject.history.deletes
            spans = [(block.end, block.lifted) for block in deletes if block.end is not None]
            hidden = any(lifted is not None and at + BOUND < start and end < lifted for at, lifted in spans)
            self.done["looks uncached, though blocked" if hidden and status == 200 else "looks uncached"] += 1
            bound = math.inf
        look = Look(f"{name} ({how})", start, end, versions, revoked, bound)
        if how == "HIT":
            for version in versions & subject.finds.keys():
                find = subject.finds[version]
                if find.end is None:
                    subject.finds[version] = replace(find, end=end)
        subject.history.looks.append(look)
        return look

    def _uncached(self, subject: Subject, versions: frozenset[str], start: float) -> bool:
        """Is it what an upstream said just now? Without the database a node answers that as it is: it neither knows of
        blocks and revocations nor keeps what it finds."""
        return all(v in subject.finds and subject.finds[v].start > start - PATIENCE for v in versions)

    async def _change(self) -> None:
        while self._going():
            subject, name = self.chance.choice(self.subjects), self.chance.choice(list(self.services))
            if self.chance.random() < 0.6:
                await self._import(name, subject, revoked=self.chance.random() < 0.1)
            else:
                await self._delete(name, subject)
            await asyncio.sleep(self.chance.uniform(0, 0.3))

    async def _import(self, name: str, subject: Subject, *, revoked: bool) -> None:
        number, start = next(self._versions), time.monotonic()
        put = Put(f"v{number}", start, revocation="revocation" if revoked else "")
        place = len(subject.history.puts)
        subject.history.puts.append(put)  # it may be seen before it is acknowledged
        octets = subject.version(number, revoked=revoked)
        status, said = await self._admin(name, "POST", "/cache/import", octets, "application/pgp-keys")
        kept = status == 200 and said["new"] + said["changed"] == 1
        self.done["imports" if kept else "imports unknown"] += 1
        end = time.monotonic()
        changed = replace(put, end=end) if kept else replace(put, begun=end + UNKNOWN, revocation="")
        subject.history.puts[place] = changed

    async def _delete(self, name: str, subject: Subject) -> None:
        start = time.monotonic()
        delete = Delete(start)
        subject.history.deletes.append(delete)
        place = len(subject.history.deletes) - 1
        status, _ = await self._admin(name, "DELETE", f"/cache/{subject.primary.fingerprint}")
        end = time.monotonic()
        self.done["deletes" if status == 200 else f"deletes {status or 'unknown'}"] += 1
        # 404: there was nothing, and nothing happened
        done = (
            replace(delete, end=end)
            if status == 200
            else replace(delete, until=end + (UNKNOWN if status != 404 else 0))
        )
        subject.history.deletes[place] = done

    async def _block(self) -> None:
        """Blocks one after the other, each repeated until it is acknowledged, and lifted a while later."""
        while self._going():
            subject = self.chance.choice(self.subjects)
            place = len(subject.history.deletes)
            subject.history.deletes.append(Delete(time.monotonic(), lifted=math.inf))
            if not await self._until_done(subject, "/block"):
                return
            blocked = replace(subject.history.deletes[place], end=time.monotonic())
            subject.history.deletes[place] = blocked
            await asyncio.sleep(self.chance.uniform(0.5, 2.5))
            subject.history.deletes[place] = replace(blocked, lifted=time.monotonic())
            done = await self._until_done(subject, "/unblock")
            lifted = time.monotonic()  # until then it may be hidden
            subject.history.deletes.append(Delete(blocked.start, until=lifted if done else math.inf))
            self.done["blocks"] += 1
            await asyncio.sleep(self.chance.uniform(0.5, 1.5))

    async def _until_done(self, subject: Subject, act: str) -> bool:
        """False: the time is over before it is acknowledged."""
        while self._going():
            name = self.chance.choice(list(self.services))
            status, _ = await self._admin(name, "POST", f"/cache/{subject.primary.fingerprint}{act}")
            if status == 200 or (status == 404 and act == "/unblock"):
                return True
            await asyncio.sleep(0.1)
        return False

    async def _mail(self) -> None:
        """Mail shows one version after the other, each approved a while later, on any node: told of only then."""
        while self._going():
            subject, number, start = self.chance.choice(self.subjects), next(self._versions), time.monotonic()
            place = len(subject.history.puts)
            subject.history.puts.append(put := Put(f"v{number}", start, shown=math.inf))
            name = self.chance.choice(list(self.services))
            status, said = await self._admin(name, "POST", "/harvest", subject.mail(number), "message/rfc822")
            kept = status == 200 and [one["result"] for one in said["certificates"]] == ["cached"]
            self.done["harvests" if kept else "harvests unknown"] += 1
            end = time.monotonic()
            subject.history.puts[place] = put = replace(put, begun=end if kept else end + UNKNOWN)
            await asyncio.sleep(self.chance.uniform(0, 0.5))
            if kept:
                await self._approve(subject, place, subject.address(number))

    async def _approve(self, subject: Subject, place: int, address: str) -> None:
        name, start = self.chance.choice(list(self.services)), time.monotonic()
        put = subject.history.puts[place]
        subject.history.puts[place] = shown = replace(put, shown=start)
        path = f"/cache/{subject.primary.fingerprint}/approve?address={address}"
        status, _ = await self._admin(name, "POST", path)
        self.done["approvals" if status == 200 else f"approvals {status or 'unknown'}"] += 1
        if status == 200:
            subject.history.puts[place] = replace(shown, end=time.monotonic())
        elif status == 404:  # it was deleted, and nothing happened
            subject.history.puts[place] = put

    async def _change_ttl(self) -> None:
        """Another one in a node's file, to be read now or at its next start."""
        while self._going():
            await asyncio.sleep(self.chance.uniform(0.5, 2.0))
            service = self.services[self.chance.choice(list(self.services))]
            new = service.config.with_suffix(".new")
            new.write_text(f'[cache]\nttl = "{self.chance.choice(TTLS)}"\n')
            new.replace(service.config)
            process = service.process
            if any(line.startswith("ready admin") for line in service.ready) and process and process.poll() is None:
                process.send_signal(signal.SIGHUP)
            self.done["ttl changes"] += 1

    async def _admin(
        self, name: str, method: str, path: str, body: bytes = b"", type_: str = ""
    ) -> tuple[int, dict[str, Any]]:
        """Status and JSON; 0: no answer."""
        service = self.services[name]
        headers = {"Content-Type": type_} if type_ else {}
        try:
            headers["Authorization"] = f"Bearer {service.token}"
            async with asyncio.timeout(PATIENCE):
                status, _, said = await service.get(
                    f"/api/v1{path}", method=method, headers=headers, face="admin", body=body
                )
            return status, json.loads(said) if status == 200 else {}
        except _REFUSED:
            return 0, {}

    # --- what goes wrong

    async def _hurt(self) -> None:
        while self._going():
            await asyncio.sleep(self.chance.uniform(0.3, 1.5))
            fault = self.chance.choice(FAULTS)
            self.faults[fault] += 1
            self._calm = math.inf
            start = time.monotonic()
            name = self.chance.choice(list(self.services))
            if (crash := await self._hurting.hurt(fault, name)) is not None:
                for subject in self.subjects:
                    subject.history.crashes.append(crash)
            self.hurts.append(f"{start:.3f}-{time.monotonic():.3f} {fault} {name}")
            self._calm = time.monotonic() + 3.0

    # --- the end

    async def settle(self) -> list[str]:
        """Wait until all is well and all nodes have heard all; what is wrong, a line each."""
        for offset in self.offsets.values():
            offset.write_text("0")
        async with asyncio.timeout(40):
            for service in self.services.values():
                while not (await service.get("/readyz"))[2].startswith(b"ok\n"):
                    await asyncio.sleep(0.1)
        for _ in range(2):
            await asyncio.sleep(BOUND + 0.3)
            last = [[await self.look(name, subject) for name in self.services] for subject in self.subjects]
        wrong: list[str] = []
        for subject, looks in zip(self.subjects, last, strict=True):
            assert all(looks), f"no definite answer at the end of s{subject.number}"
            found = [*judge(subject.known()), *agree(look for look in looks if look)]
            wrong += [f"s{subject.number}: {line}" for line in found]
        return wrong


@contextlib.asynccontextmanager
async def nodes(folder: Path) -> AsyncIterator[Nodes]:
    """Three, over a private PostgreSQL."""
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Scripted({}))
        server = stack.enter_context(Cluster(settings={"synchronous_commit": "on"}))
        betweens = {name: await stack.enter_async_context(Between(server.port)) for name in DETACHED}
        made = Nodes(folder, server, upstream, betweens)
        for service in made.services.values():
            stack.callback(service.kill)
        await asyncio.gather(*(asyncio.to_thread(service.start) for service in made.services.values()))
        yield made
