"""Clients of all kinds, and what they were told."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from keyserver.model import Malformed
from keyserver.openpgp.armor import dearmor
from support.openpgp import Made
from support.persistent import keep_asking
from support.running import Service, read_reply

PATIENCE = 30.0
"""Seconds that a client waits for a reply."""

JOINS = 10.0
"""Seconds after a change in which a question may still join a search that began before it, of which nothing counts."""

LAWFUL = frozenset({200, 404, 500, 503})


@dataclass
class Load:
    """Who asks. `people`: certificates that an upstream has, by address; no upstream ever says that they are not there,
    so that 404 for one is wrong, unless it has just been deleted. `latencies`: seconds of good answers since the last
    look."""

    service: Service
    people: Mapping[str, Made]
    chance: random.Random
    faults: Sequence[str] = ()
    """The latest, as they happen."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    seen: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    touched: dict[str, float] = field(default_factory=dict)
    """When an administrator last changed a person: infinite while it is under way."""
    latencies: list[float] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def client(self) -> None:
        """Asks on one connection after the other."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            for _ in range(self.chance.randrange(1, 200)):
                if self.over.is_set():
                    break
                await self._ask(reader, writer)
                await asyncio.sleep(self.chance.uniform(0, 0.02))

        await keep_asking(self.service.port, self.over, self.seen, talk, 0.1)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        known = self.chance.random() < 0.8
        address = self.chance.choice(list(self.people)) if known else f"n{next(self.numbers)}@nowhere.example"
        began = time.monotonic()
        target = f"/pks/lookup?op=get&options=mr&search={quote(address)}"
        writer.write(f"GET {target} HTTP/1.1\r\nHost: soak\r\n\r\n".encode())
        status, fields, body = await asyncio.wait_for(read_reply(reader), PATIENCE)
        self.seen[str(status)] += 1
        unchanged = self.touched.get(address, -JOINS) + JOINS < began
        if (
            status not in LAWFUL
            or (status == 404 and known and unchanged)
            or (status == 200 and not self._right(address, body))
        ):
            why = f"x-cache {fields.get('x-cache')}, age {fields.get('age')}, behind {' '.join(self.faults)}"
            self.wrong.append(f"{address}: {status} {body[:80]!r} ({why})")
        elif status in (200, 404) and fields.get("x-cache") == "HIT":
            self.latencies.append(time.monotonic() - began)

    def _right(self, address: str, body: bytes) -> bool:
        made = self.people.get(address)
        try:
            return made is not None and made.primary.hashed[3:] in b"".join(dearmor(body))
        except Malformed:
            return False

    def _authorization(self) -> str:
        return f"Authorization: Bearer {self.service.token}"

    async def watcher(self) -> None:
        """An administrator's stream of events, opened again and again."""
        while not self.over.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.service.port("admin"))
                head = f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n{self._authorization()}\r\n\r\n"
                writer.write(head.encode())
                with contextlib.suppress(TimeoutError):
                    self.seen[f"feed {(await reader.readline())[9:12].decode()}"] += 1
                    async with asyncio.timeout(self.chance.uniform(1, 30)):
                        while line := await reader.readline():
                            self.seen["events"] += line.startswith(b"event:")
                writer.transport.abort()
            except (OSError, ValueError):
                pass
            await asyncio.sleep(0.5)
