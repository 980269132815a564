"""Web Key Directories as GnuPG's own tool makes them, and GnuPG's own client of them.

::

    install(tmp_path / "wkd", octets, "Paul.Panther@firm.com")   # <folder>/firm.com/hu/…
    async with asking(tmp_path, before) as ask:                   # before: see `names.among`
        octets = await ask("paul.panther@firm.com")               # what the directory sent; b"" where it has nothing
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import unquote_to_bytes

from support.running import Gpg

WKS = "/usr/lib/gnupg/gpg-wks-client"


def install(directory: Path, octets: bytes, address: str) -> None:
    """Put a certificate into a directory; the tool leaves in it only the user ID of this address."""
    home = directory.parent / "gnupg"
    if not home.exists():
        with Gpg(home) as gpg:
            gpg.run("--import-ownertrust")  # it wants a trust database for what others have signed, and makes none
    file = home / "key.pgp"
    file.write_bytes(octets)
    (directory / address.rpartition("@")[2] / "hu").mkdir(parents=True, exist_ok=True)
    command = [WKS, "--directory", str(directory), "--install-key", str(file), address]
    done = subprocess.run(command, env={"GNUPGHOME": str(home)}, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def place(directory: Path, address: str) -> Path:
    """Where the tool puts what belongs to an address."""
    done = subprocess.run([WKS, "--print-wkd-hash", address], capture_output=True, text=True, timeout=60, check=True)
    folder = directory / address.rpartition("@")[2] / "hu"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / done.stdout.split()[0]


@contextlib.asynccontextmanager
async def asking(folder: Path, before: Sequence[str]) -> AsyncIterator[Callable[[str], Awaitable[bytes]]]:
    """dirmngr as a child, by the protocol of its own clients (Assuan, doc/dirmngr.texi)."""
    home = folder / "dirmngr"
    home.mkdir(mode=0o700)
    (home / "dirmngr.conf").write_text("disable-ipv6\nstandard-resolver\n")
    with (folder / "dirmngr.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *before, "dirmngr", "--homedir", str(home), "--server",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    write, lines = process.stdin.write, process.stdout

    async def answer() -> bytes:
        octets = b""
        while True:
            line = (await asyncio.wait_for(lines.readline(), 30)).removesuffix(b"\n")
            assert line, (folder / "dirmngr.log").read_text(errors="replace")
            if line.startswith(b"D "):
                octets += unquote_to_bytes(line[2:])
            elif line.startswith(b"ERR"):
                return b""
            elif line.startswith(b"OK"):
                return octets

    async def ask(address: str) -> bytes:
        write(b"WKD_GET -- " + address.encode() + b"\n")
        return await answer()

    try:
        await answer()
        yield ask
    finally:
        process.kill()
        await process.wait()
