"""The service under test: the real one, in a process of its own, over a database filled beforehand."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path

from bench.certificates import Made
from bench.processes import Running
from bench.setting import MODULE_PATH, module_path
from keyserver.app import hygiene_of
from keyserver.changes import Changes
from keyserver.model import Certificate, Find, Kind, Record, Source
from keyserver.openpgp import clean
from keyserver.query import name_of
from keyserver.store.base import Store
from keyserver.store.sqlite import SqliteStore

UPSTREAM = "bench"
_BATCH = 500


class Service:
    """`keyserver serve` on 127.0.0.1, ended with `stack`."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        upstream: str,
        cpus: frozenset[int],
        settings: Mapping[str, str] | None = None,
        checkout: Path | None = None,
        keys: str = "",
        inside: Sequence[str] = (),
    ) -> None:
        """`folder` may hold a filled keyserver.db; `upstream` is a URL; `checkout`: of another commit; `keys`: further
        lines of the upstream's table, and tables behind it; `inside`: words before the command.

        Returns when it is ready."""
        self.folder = folder
        config = folder / "keyserver.toml"
        config.write_text(f'[[upstream]]\nname = "{UPSTREAM}"\nurl = "{upstream}"\ntimeout = "5s"\n{keys}')
        given = {
            "hkp.listen": '["127.0.0.1:0"]',
            "ldap.listen": '["127.0.0.1:0"]',
            "admin.listen": '"127.0.0.1:0"',
            "cache.database": f'"sqlite:///{database(folder)}"',
            **(settings or {}),
        }
        command = [*inside, sys.executable, "-m", "keyserver", "serve", "--config", str(config)]
        for key, value in given.items():
            command += ["--set", f"{key}={value}"]
        environment = module_path(checkout) if checkout else MODULE_PATH
        number = len(list(folder.glob("service*.log")))  # each start has a log of its own
        self.running = stack.enter_context(
            Running(command, folder / f"service{number}.log", cpus=cpus, environment=environment, folder=folder)
        )
        self.running.until(lambda: "ready admin " in self.running.text())
        self.port = self.port_of("hkp") or 0
        self.ldap_port = self.port_of("ldap")
        self.admin_port = self.port_of("admin") or 0

    def port_of(self, face: str) -> int | None:
        """Where it listens for this face; None: nowhere."""
        found = re.search(rf"^ready {face} \S+:(\d+)$", self.running.text(), re.MULTILINE)
        return int(found[1]) if found else None

    @property
    def token(self) -> str:
        """Of the admin API."""
        return (self.folder / "admin.token").read_text().strip()

    def get(self, path: str) -> tuple[int, bytes]:
        """One request on a connection of its own: status and body."""
        return get(self.port, path)

    def warm(self, paths: Iterable[str], expected: int = 200) -> None:
        """Ask for each once, so that memory knows the answers. Raises RuntimeError for another status."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        for path in paths:
            connection.request("GET", path)
            reply = connection.getresponse()
            reply.read()
            if reply.status != expected:
                raise RuntimeError(
                    f"{path}: {reply.status} where {expected} was expected; {self.running.text()[-500:]}"
                )
        connection.close()


def database(folder: Path) -> Path:
    """Where a service in this folder has its database."""
    return folder / "keyserver.db"


def get(port: int, path: str) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply.status, body


def lookup(search: str) -> str:
    """The path that gpg asks for."""
    return f"/pks/lookup?op=get&options=mr&search={search if '@' in search else f'0x{search}'}"


def fill(
    folder: Path,
    certificates: Sequence[Made],
    absent: Sequence[str] = (),
    source: Source = Source.KEYSERVER,
    *,
    found: Sequence[str] = (),
    origin: str = UPSTREAM,
) -> None:
    """Put certificates, as if the upstream `origin` had sent them, and its word on some addresses: that it does not
    know them, that it has found them."""
    store = SqliteStore(database(folder), hygiene_of(), Changes(), 1 << 40)
    asyncio.run(fill_store(store, certificates, absent, source, found=found, origin=origin))


async def fill_store(
    store: Store,
    certificates: Sequence[Made],
    absent: Sequence[str] = (),
    source: Source = Source.KEYSERVER,
    *,
    found: Sequence[str] = (),
    origin: str = UPSTREAM,
) -> None:
    """The same with a store of whatever kind, which is opened for it and closed."""
    now = int(time.time())
    await store.open()
    try:
        for start in range(0, len(certificates), _BATCH):
            finds = [
                Find(certificate, source, origin)
                for made in certificates[start : start + _BATCH]
                for certificate in clean(made.octets, now)
                if isinstance(certificate, Certificate)
            ]
            await store.put(finds, [], await store.begin(), now)
        said = [(address, False) for address in absent] + [(address, True) for address in found]
        for start in range(0, len(said), _BATCH):
            records = [
                Record(name_of(Kind.OPENPGP, "addr", address), origin, is_there, now)
                for address, is_there in said[start : start + _BATCH]
            ]
            await store.put([], records, await store.begin(), now)
    finally:
        await store.close()
