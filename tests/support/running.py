"""The real service in a process of its own, and a real gpg, for end-to-end tests.

::

    with Service(tmp_path, upstreams=[upstream.url]) as service:
        status, headers, body = await service.get("/pks/lookup?op=get&search=…")
        service.kill()          # SIGKILL
        service.start()         # the same database and, where still free, other ports
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from support import warm
from support.processes import family, memory_of

ROOT = Path(__file__).parents[2]
KEYSERVER = [sys.executable, "-m", "keyserver"]

_WHERE = {"cache.database", "cache.database_password_file", "server.state_dir"}
"""Settings by which a command finds the service's cache."""


class Service:
    """`keyserver serve` on ports that the system chooses; its log is in `.log`."""

    fronts = 0
    """Of services whose settings do not say `server.workers`."""

    patience = 20.0
    """Seconds that a start may take on a machine that is busy with other things."""

    def __init__(
        self,
        directory: Path,
        *,
        upstreams: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        config: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.config = directory / "keyserver.toml"
        self.config.write_text(config)
        self.upstreams = list(upstreams)
        self.environment = dict(environment or {})  # besides the test's own
        self.settings = {
            "hkp.listen": '["127.0.0.1:0"]',
            "ldap.listen": '["127.0.0.1:0"]',
            "admin.listen": '"127.0.0.1:0"',
            "server.workers": str(self.fronts),
            "cache.database": f'"sqlite:///{directory / "keyserver.db"}"',
            **(settings or {}),
        }
        self.process: subprocess.Popen[str] | warm.Process | None = None
        self.ready: list[str] = []
        self.log: list[str] = []

    def command(self, *words: str) -> list[str]:
        """The command line of `keyserver …` over this service's configuration (without its ports)."""
        return [*KEYSERVER, *words]

    def start(self) -> Service:
        """Start, and return when it says ready; fails with its log otherwise."""
        self.ready = []
        command = self.command("serve", "--config", str(self.config))
        for key, value in self.settings.items():
            command += ["--set", f"{key}={value}"]
        for url in self.upstreams:
            command += ["--upstream", url]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYSERVER_")} | self.environment
        self.process = _launched(command, environment)
        all_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(self.process, all_ready), daemon=True)
        self._reader.start()
        if not all_ready.wait(self.patience) or not any(line.startswith("ready admin") for line in self.ready):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
            self.kill()
            raise AssertionError("the service did not start:\n" + "\n".join(self.log[-40:]))
        return self

    def _read(self, process: subprocess.Popen[str] | warm.Process, all_ready: threading.Event) -> None:
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                self.log.append(line.rstrip())
                if line.startswith("ready "):
                    self.ready.append(line.strip())
                    if line.startswith("ready admin"):  # the last one
                        all_ready.set()
        all_ready.set()

    def port(self, face: str = "hkp", number: int = 0) -> int:
        """The port of a face's listener. Raises ConnectionRefusedError where there is none yet."""
        lines = [line for line in self.ready if line.startswith(f"ready {face} ")]
        if not lines:
            raise ConnectionRefusedError(f"nothing is said of {face}")
        found = re.search(r":(\d+)$", lines[number])
        assert found is not None, lines
        return int(found[1])

    @property
    def token(self) -> str:
        """Of the admin API."""
        return (self.directory / "admin.token").read_text().strip()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(15)
        self._reader.join(5)
        return code

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self._reader.join(5)

    def memory(self) -> int:
        """Resident octets of the service and its children."""
        assert self.process is not None
        return sum(memory_of(pid) for pid in family(self.process.pid))

    def __enter__(self) -> Service:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    async def get(
        self,
        target: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        face: str = "hkp",
        body: bytes = b"",
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own: status, headers (lower case), body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port(face))
        head = {"Host": "localhost", "Connection": "close", **(headers or {})}
        if body:
            head["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1", *(f"{n}: {v}" for n, v in head.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        try:
            octets = await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()
            await writer.wait_closed()
        if not octets:
            raise ConnectionResetError("no reply")
        top, _, said = octets.partition(b"\r\n\r\n")
        first, *rest = top.decode("latin-1").split("\r\n")
        pairs = (line.partition(": ") for line in rest)
        return int(first.split()[1]), {n.lower(): v for n, _, v in pairs}, said

    async def lookup(self, term: str, **options: Any) -> tuple[int, dict[str, str], bytes]:
        """`op=get` for a term."""
        return await self.get(f"/pks/lookup?op=get&options=mr&search={quote(term)}", **options)

    async def api(self, path: str, method: str = "GET") -> Any:
        """One admin call; its JSON."""
        headers = {"Authorization": f"Bearer {self.token}"}
        status, _, body = await self.get(path, method=method, headers=headers, face="admin")
        assert status < 400, (status, body)
        return json.loads(body) if body else None

    def nodes(self) -> list[dict[str, Any]]:
        """What `keyserver nodes` shows."""
        return list(json.loads(self.cli("nodes", "--json"))["nodes"])

    async def pids(self) -> Mapping[str, list[int]]:
        """The processes of each kind: supervisor, core, front."""
        found: dict[str, list[int]] = {}
        for node in (await self.api("/api/v1/nodes"))["nodes"]:
            found.setdefault(node["kind"], []).append(node["pid"])
        return found

    def cli(self, *words: str, code: int | None = 0) -> str:
        """`keyserver WORDS` against this running service (or, when it is stopped, its store); its output."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYSERVER_")}
        environment |= {"COLUMNS": "200", "NO_COLOR": "1"}
        for key in _WHERE & self.settings.keys():
            environment["KEYSERVER_" + key.upper().replace(".", "__")] = self.settings[key]
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            command = self.command(*words, "--config", str(self.config))
            process = _launched(command, environment, stdout, stderr)
            try:
                found = process.wait(60)
            finally:
                process.kill()
            said = "".join(_whole(file) for file in (stdout, stderr))
        assert code is None or found == code, (found, said)
        return said


def _whole(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _launched(
    command: Sequence[str],
    environment: Mapping[str, str],
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
) -> subprocess.Popen[str] | warm.Process:
    """A process in the repository's folder, with a pipe for what it says where no file is given."""
    if list(command[:3]) != KEYSERVER or "LD_PRELOAD" in environment:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stdout or subprocess.DEVNULL,
            stderr=stderr or subprocess.PIPE,
            text=True,
        )
    with open(os.devnull, "wb") as nothing:
        out = (stdout or nothing).fileno()
        if stderr is not None:
            return warm.Process(warm.start(command[3:], environment, ROOT, out, stderr.fileno()))
        read, write = os.pipe()
        with os.fdopen(write, "wb") as end:
            pid = warm.start(command[3:], environment, ROOT, out, end.fileno())
    return warm.Process(pid, os.fdopen(read, encoding="utf-8"))


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The next reply on a connection that is kept, which says its length: status, headers (lower case), body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), fields, await reader.readexactly(int(fields["content-length"]))


class Gpg:
    """A real gpg with a home of its own; its dirmngr ends with it."""

    def __init__(self, home: Path, before: Sequence[str] = ()) -> None:
        """before: what the commands begin with, such as `names.among`."""
        self.home = home
        self.before = list(before)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "dirmngr.conf").write_text("disable-ipv6\n")

    def run(self, *words: str, check: bool = True, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """`gpg --batch WORDS`."""
        done = subprocess.run(
            [*self.before, "gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--status-fd", "1", *words],
            capture_output=True, text=True, errors="backslashreplace", timeout=seconds, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert not check or done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done

    def fingerprints(self) -> set[str]:
        """Of every primary key in the keyring."""
        lines = self.run("--list-keys", "--with-colons").stdout.splitlines()
        found = set()
        for previous, line in itertools.pairwise(lines):
            if previous.startswith("pub:") and line.startswith("fpr:"):
                found.add(line.split(":")[9])
        return found

    def close(self) -> None:
        """End the daemons of this home."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], capture_output=True, timeout=20)

    def __enter__(self) -> Gpg:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
