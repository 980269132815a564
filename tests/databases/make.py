"""Makes the databases of landed schema versions, each by the release that had it: see `scripts/keep-database`.

One world for all: what is cached from a keyserver, from mail and by hand, approvals, holds, blocks, revocations,
absences, and what administration keeps, as far as that release has it. The commands and the configuration are those
that every release has.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import lzma
import re
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from databases.asking import CONFIG, VIEWS, answers
from support import postgres
from support.mails import autocrypt, head, signed, text
from support.openpgp import Made, make
from support.running import ROOT, Service
from support.scripted import NOT_FOUND, Scripted, key
from support.x509 import person

KEPT = ROOT / "tests" / "vectors" / "databases"
AUTHSERV_ID = "mx.kept.example"  # in CONFIG, too
ABSENT = "gone@example.org"
TOKEN = "monitor"
FACTS = ("fingerprint", "kind", "source", "origin", "cached_at", "identities")
"""What is compared of each entry."""


def certificate(name: str, domain: str = "example.org", number: int = 1, **options: Any) -> Made:
    """The same octets in every run."""
    return make([f"{name.title()} <{name}@{domain}>"], seed=f"kept {name} {number}", **options)


FOUND = {name: certificate(name) for name in ("alice", "bob", "greta", "heidi", "judy", "ivan")}
LOCAL = certificate("carol")
REVOKED = certificate("ivan", revoked=1)
APPROVED, NEW = certificate("erin", "partner.example"), certificate("frank", "partner.example")
CHANGED = certificate("frank", "partner.example", 2)


def mail(sender: str, made: Made) -> bytes:
    """A mail with a certificate, whose sender our own server has authenticated."""
    verdict = f"{AUTHSERV_ID}; dmarc=pass header.from={sender.partition('@')[2]}"
    more = {"Autocrypt": autocrypt(sender, made.octets), "Authentication_Results": verdict}
    return head(sender, f"{made.key_id}@p", **more) + text()


class Older(Service):
    """A service of another checkout."""

    patience = 120.0

    def __init__(self, checkout: Path, directory: Path, settings: dict[str, str], config: str) -> None:
        super().__init__(directory, settings=settings, config=config)
        del self.settings["server.workers"]  # the oldest have no such section
        self.checkout = checkout

    def command(self, *words: str) -> list[str]:
        return ["env", "-C", str(self.checkout), sys.executable, "-m", "keyserver", *words]

    def tried(self, *words: str) -> bool:
        """A command that not every release has."""
        said = self.cli(*words, code=None)
        return not re.search(r"No such (command|option)|[Uu]nexpected extra|unrecognized", said)


async def fill(service: Older, upstream: Scripted) -> None:
    """The world, by commands."""
    folder = service.directory
    for name, made in FOUND.items():
        upstream.routes[f"{name}@example.org"] = key(made.octets)
        assert (await service.lookup(f"{name}@example.org"))[0] == 200, name
    assert (await service.lookup(ABSENT))[0] == 404
    upstream.routes["ivan@example.org"] = key(REVOKED.octets)
    for file, octets in {
        "local.asc": LOCAL.armored.encode(),
        "revoked.asc": REVOKED.armored.encode(),
        "smime.pem": person("dave@example.org").pem,
        "1.eml": mail("erin@partner.example", APPROVED),
        "2.eml": mail("frank@partner.example", NEW),
        "3.eml": mail("frank@partner.example", CHANGED),
        "4.eml": signed(text(), person("grace@partner.example"), sender="grace@partner.example", message_id="4@p"),
    }.items():
        (folder / file).write_bytes(octets)
    service.cli("cache", "import", *(str(folder / file) for file in ("local.asc", "smime.pem")))
    service.cli("cache", "refresh", FOUND["ivan"].fingerprint)
    service.cli("cache", "import", str(folder / "revoked.asc"))
    for number in (1, 2, 3, 4):
        service.cli("harvest", str(folder / f"{number}.eml"), code=None)
    approve = ("cache", "approve", APPROVED.fingerprint)
    if not service.tried(*approve, "--address", "erin@partner.example"):
        service.cli(*approve)
    service.cli("cache", "keep", FOUND["greta"].fingerprint)
    service.cli("cache", "block", FOUND["heidi"].fingerprint)
    service.cli("cache", "delete", FOUND["judy"].fingerprint)
    service.tried("token", "add", TOKEN, "--role", "viewer")


async def expected(service: Older) -> dict[str, Any]:
    """What it answers with its upstream gone, and what it lists."""
    fingerprints = [made.fingerprint for made in (*FOUND.values(), LOCAL, APPROVED, NEW, CHANGED)]
    terms = [f"0x{f}" for f in fingerprints] + [f"0x{LOCAL.key_id}", ABSENT, "never@example.org"]
    terms += [f"{name}@example.org" for name in (*FOUND, "carol", "dave")]
    terms += [f"{name}@partner.example" for name in ("erin", "frank", "grace")]

    async def get(target: str, listener: int) -> tuple[int, dict[str, str], bytes]:
        port = service.port("hkp", listener)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        octets = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        top, _, body = octets.partition(b"\r\n\r\n")
        return int(top.split()[1]), {}, body

    assert len([line for line in service.ready if line.startswith("ready hkp")]) == len(VIEWS), service.ready
    found = await answers(get, terms)
    listed = json.loads(service.cli("cache", "list", "--json"))["entries"]
    tokens = service.tried("token", "list")  # else that release has none
    return {
        "at": int(time.time()),
        "answers": found,
        "entries": sorted([str(entry[fact]) for fact in FACTS] for entry in listed),
        "tokens": [TOKEN] if tokens else [],
    }


async def made_by(checkout: Path, directory: Path, database: str) -> dict[str, Any]:
    """Fill the database by that release."""
    async with Scripted({"*": NOT_FOUND}) as upstream:
        settings = {"cache.database": f'"{database}"'}
        if database.startswith("postgresql"):
            settings["server.state_dir"] = f'"{directory}"'
        service = Older(checkout, directory, settings, CONFIG.format(port=upstream.port))
        await asyncio.to_thread(service.start)
        try:
            await fill(service, upstream)
            await upstream.stop()
            return await expected(service)
        finally:
            service.stop()


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """A checkout of it, for a while."""
    with tempfile.TemporaryDirectory(prefix="keyserver-") as folder:
        place = Path(folder) / "of"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "--quiet", "--detach", place, commit], check=True)
        try:
            yield place
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", place], check=True)


def keep(kind: str, version: int, said: dict[str, Any], octets: bytes, release: str) -> None:
    """Write the compressed database and what it answers."""
    KEPT.mkdir(parents=True, exist_ok=True)
    if kind == "sqlite":
        (KEPT / f"sqlite-{version}.db.xz").write_bytes(lzma.compress(octets, preset=9))
    else:
        (KEPT / f"postgres-{version}.sql.gz").write_bytes(gzip.compress(octets, mtime=0))
    (KEPT / f"{kind}-{version}.json").write_text(
        json.dumps({"made_by": release} | said, indent=1, sort_keys=True) + "\n"
    )
    print(f"{kind} {version}: kept")


def main() -> None:
    """Make the databases of one commit."""
    words = argparse.ArgumentParser(prog="scripts/keep-database", description=__doc__)
    words.add_argument("commit", nargs="?", default="HEAD", help="the last one of its schema version (HEAD)")
    commit = words.parse_args().commit
    release = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--abbrev=7", commit], capture_output=True, text=True, check=True
    ).stdout.strip()
    with checked_out(commit) as checkout, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "keyserver.db"
        said = asyncio.run(made_by(checkout, Path(folder), f"sqlite:///{file}"))
        with closing(sqlite3.connect(file)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("VACUUM")
        keep("sqlite", version, said, file.read_bytes(), release)
        if not (checkout / "keyserver" / "store" / "postgres").exists():
            return
        with postgres.Cluster() as cluster, tempfile.TemporaryDirectory() as directory:
            name = cluster.create()
            said = asyncio.run(made_by(checkout, Path(directory), cluster.url(name)))
            version = int(cluster.sql("SELECT version FROM keyserver_schema", database=name))
            keep("postgres", version, said, cluster.dump(name), release)


if __name__ == "__main__":
    main()
