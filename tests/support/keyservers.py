"""Real keyservers from Debian, started in a temporary folder with some certificates in them.

::

    async with sks(tmp_path, octets) as url: ...      # "hkp://127.0.0.1:<port>"
    async with onak(tmp_path, octets) as url: ...     # a CGI program, behind a few lines of HTTP
    async with hockeypuck(programs, tmp_path, octets) as url: ...  # not in Debian: `programs` is where somebody has it

A missing program is an error, not a skip: scripts/test installs the packages `sks` and `onak`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

from support import postgres
from support.ports import free_port

SKS = "/usr/sbin/sks"
ONAK = "/usr/bin/onak"
ONAK_CGI = Path("/usr/lib/cgi-bin/pks/lookup")
ONAK_BACKENDS = "/usr/lib/*/onak/backends"
START = 20.0  # seconds
_HOCKEYPUCK = """
[hockeypuck]
hostname = "localhost"
[hockeypuck.hkp]
bind = "127.0.0.1:{port}"
[hockeypuck.metrics]
metricsAddr = "127.0.0.1:{metrics}"
[hockeypuck.conflux.recon]
reconAddr = "127.0.0.1:{recon}"
httpAddr = "127.0.0.1:{port}"
[hockeypuck.conflux.recon.leveldb]
path = "{base}/prefix-tree"
[hockeypuck.openpgp.db]
driver = "postgres-jsonb"
dsn = "database={database} host=127.0.0.1 user=keyserver port={postgres} sslmode=disable"
"""


@contextlib.asynccontextmanager
async def sks(folder: Path, *certificates: bytes, max_matches: int = 500) -> AsyncIterator[str]:
    """SKS with these certificates; gives its URL. With more than `max_matches` hits it answers 500."""
    base = folder / "sks"
    for name in ("etc/sks", "var/lib/sks/www", "var/log/sks", "var/run/sks", "var/spool/sks"):
        (base / name).mkdir(parents=True)
    dump = base / "dump.pgp"
    dump.write_bytes(b"".join(certificates))
    built = await asyncio.to_thread(_run, SKS, "build", "-basedir", str(base), "-stdoutlog", str(dump), cwd=base)
    assert "done" in built, built
    port = free_port()
    options = ["-hkp_address", "127.0.0.1", "-hkp_port", str(port), "-hostname", "localhost", "-disable_mailsync"]
    options += ["-max_matches", str(max_matches)]
    async with _serving(base, port, SKS, "db", "-basedir", str(base), *options, "-stdoutlog") as url:
        yield url


@contextlib.asynccontextmanager
async def onak(folder: Path, *certificates: bytes) -> AsyncIterator[str]:
    """onak with these certificates; gives its URL."""
    base = folder / "onak"
    (base / "db").mkdir(parents=True)
    backends = next(Path("/").glob(ONAK_BACKENDS.lstrip("/")))
    (base / "onak.ini").write_text(
        f"[main]\nbackend=db\nbackends_dir={backends}\nlogfile={base}/log\nuse_keyd=false\nmax_reply_keys=128\n"
        f"[backend:db]\ntype=db4\nlocation={base}/db\n"
    )
    environment = {"XDG_CONFIG_HOME": str(base), "PATH": os.environ["PATH"]}
    for certificate in certificates:
        await asyncio.to_thread(_run, ONAK, "-b", "add", cwd=base, env=environment, octets=certificate)
    program = shutil.copy(ONAK_CGI, base / "lookup")  # a copy is not set-user-ID and reads our configuration

    alone = asyncio.Lock()  # its database does not bear many programs at once for long

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            query = urlsplit(head.split(b" ", 2)[1].decode()).query
            async with alone:
                answer = await asyncio.to_thread(
                    _cgi, str(program), {**environment, "REQUEST_METHOD": "GET", "QUERY_STRING": query}
                )
            writer.write(b"HTTP/1.0 200 OK\r\n" + answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"hkp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@contextlib.asynccontextmanager
async def hockeypuck(programs: Path, folder: Path, *certificates: bytes) -> AsyncIterator[str]:
    """Hockeypuck with these certificates, without peers, in a PostgreSQL of the tests; gives its URL.

    programs: the folder with its commands `hockeypuck` and `hockeypuck-load`."""
    base = folder / "hockeypuck"
    base.mkdir()
    (base / "dump.pgp").write_bytes(b"".join(certificates))
    port = free_port()
    with postgres.fresh() as database:
        settings = _HOCKEYPUCK.format(
            base=base, port=port, metrics=free_port(), recon=free_port(), database=database,
            postgres=postgres.shared().port,
        )  # fmt: skip
        (base / "conf").write_text(settings)
        loaded = await asyncio.to_thread(
            _run, str(programs / "hockeypuck-load"), "-config", str(base / "conf"), str(base / "dump.pgp"), cwd=base
        )
        assert "inserted" in loaded, loaded
        async with _serving(base, port, str(programs / "hockeypuck"), "-config", str(base / "conf")) as url:
            yield url


@contextlib.asynccontextmanager
async def _serving(base: Path, port: int, *command: str) -> AsyncIterator[str]:
    """A keyserver that listens on this port, with its log below `base`; gives its URL."""
    with (base / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, cwd=base, stdout=log, stderr=log)
    try:
        await _listening(port, process, base / "log")
        yield f"hkp://127.0.0.1:{port}"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _run(*command: str, cwd: Path, env: dict[str, str] | None = None, octets: bytes = b"") -> str:
    done = subprocess.run(command, cwd=cwd, env=env, input=octets, capture_output=True, timeout=60, check=False)
    output = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode == 0, f"{command[0]}: {output}"
    return output


def _cgi(program: str, environment: dict[str, str]) -> bytes:
    done = subprocess.run([program], env=environment, capture_output=True, timeout=20, check=False)
    log = Path(program).with_name("log")
    assert done.returncode == 0, (environment, done, log.read_text(errors="replace")[-2000:])
    return done.stdout


async def _listening(port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(START):
        while True:
            assert process.returncode is None, log.read_text(errors="replace")
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)
