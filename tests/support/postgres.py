"""A real PostgreSQL for tests: a private cluster in a temporary directory, on a Unix socket and a loopback port.

    from support.postgres import Cluster, shared

    with Cluster() as cluster:
        name = cluster.create()             # a fresh database, owned by the role `keyserver`
        cluster.url(name)                   # postgresql://keyserver@/name?host=…
        cluster.sql("SELECT 1", database=name)
        cluster.stop(); cluster.start()     # the same port again

    shared()                                # this process's own one, started at the first call

`keyserver` is an ordinary role without a password; `guarded` has PASSWORD and gets in by loopback only with it. Texts
compare by ICU's English where a statement says nothing else, as on many a real server: what must not depend on it says
COLLATE "C". Nothing is written through to the disk, unless `durable` asks for that.
"""

from __future__ import annotations

import atexit
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

from support.ports import free_port

PASSWORD = "geheim"  # of the role `guarded`

STARTS = 5  # attempts: a port that was free may be taken when the server comes to it
WAIT = 30.0  # seconds for the server to answer

_ACCESS = (
    "local all,replication all trust",
    "host all keyserver,postgres 127.0.0.1/32 trust",
    "host all all 127.0.0.1/32 scram-sha-256",
)
_FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
_SETTINGS = {"max_connections": "200", "shared_buffers": "64MB", "max_wal_size": "2GB", "logging_collector": "off"}


class Cluster:
    """One PostgreSQL server; see the module. A context manager, or `start`, `stop` and `remove` by hand."""

    def __init__(self, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        """settings: further lines of postgresql.conf. Nothing is started yet."""
        self.folder = Path(tempfile.mkdtemp(prefix="keyserver-pg-"))  # a socket's path must be short
        self.port = 0
        self._settings = {**_SETTINGS, **({} if durable else _FAST), **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count()
        self._dropped: list[str] = []

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    @property
    def pid(self) -> int:
        """The server's first process."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str, *, user: str = "keyserver", loopback: bool = False) -> str:
        """By the Unix socket, or by TCP on 127.0.0.1."""
        if loopback:
            return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"

    def start(self) -> None:
        """Start it, on the port it had before if it ran before. Returns when it answers."""
        fresh = not (self.folder / "data").exists()
        if fresh:
            self._initialize()
        for _ in range(STARTS):
            self.port = self.port or free_port()
            if self._run():
                break
            if fresh:
                self.port = 0
        else:
            raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text(errors='replace')[-2000:]}")
        if fresh:
            guarded = f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}' IN ROLE keyserver"
            self.sql("CREATE ROLE keyserver LOGIN", guarded)

    def replica(self) -> Cluster:
        """Another server that follows this one, not started yet."""
        other = Cluster(settings=self._settings)
        other.folder.chmod(0o711)
        owner = _owner()
        if owner is not None:
            os.chown(other.folder, owner.pw_uid, owner.pw_gid)
        command = [_program("pg_basebackup"), "-h", str(self.folder), "-p", str(self.port), "-U", "postgres"]
        command += ["-D", str(other.folder / "data"), "-R", "-X", "stream", "-c", "fast", "--no-sync"]
        done = subprocess.run(_as(owner, command), capture_output=True, text=True, cwd="/", check=False)
        if done.returncode:
            raise RuntimeError(f"pg_basebackup: {done.stderr.strip()[-2000:]}")
        return other

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it; what it holds stays. SIGINT ends its sessions, SIGTERM waits for them, SIGQUIT stops at once."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
            self._process = None

    def remove(self) -> None:
        """Stop it, and forget all that it holds."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def create(self, template: str = "template1") -> str:
        """The name of a fresh database, like `template`; it also drops those given back by then."""
        name = f"k{next(self._numbers)}"
        dropped, self._dropped = self._dropped, []
        drops = [f"DROP DATABASE IF EXISTS {given} WITH (FORCE)" for given in dropped]
        self.sql(*drops, f"CREATE DATABASE {name} TEMPLATE {template} OWNER keyserver {_copied()}")
        return name

    def give_back(self, database: str) -> None:
        """It is not needed any more."""
        self._dropped.append(database)

    def freeze(self, database: str) -> None:
        """Let nobody in any more, so that it can be a template at any time."""
        self.sql(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false IS_TEMPLATE true")

    def sql(self, *statements: str, database: str = "postgres") -> str:
        """Run statements as the superuser, each in a transaction of its own; what they print, fields between tabs."""
        command = [_program("psql"), "-XAtq", "-F", "\t", "-v", "ON_ERROR_STOP=1"]
        command += ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-d", database]
        command += [part for statement in statements for part in ("-c", statement)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr.strip()}")
        return done.stdout.rstrip("\n")

    def dump(self, database: str) -> bytes:
        """What pg_dump says, as `load` takes it: as plain SQL that any psql reads."""
        command = [_program("pg_dump"), "-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "--no-owner"]
        done = subprocess.run([*command, database], capture_output=True, check=True)
        lines = done.stdout.splitlines(keepends=True)
        return b"".join(line for line in lines if not line.startswith((b"\\restrict", b"\\unrestrict")))

    def load(self, database: str, sql: bytes) -> None:
        """Run what `dump` has given, as the role `keyserver`."""
        command = [_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder), "-p", str(self.port)]
        done = subprocess.run(
            [*command, "-U", "keyserver", "-d", database], input=sql, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"psql: {done.stderr.decode().strip()}")

    def as_owner(self, command: Sequence[str]) -> list[str]:
        """A command that refuses to run as root, too, run by the server's user."""
        return _as(_owner(), command)

    def _initialize(self) -> None:
        owner = _owner()
        if owner is not None:
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self.folder.chmod(0o711)  # others reach the socket, and see nothing
        command = [_program("initdb"), "-D", str(self.folder / "data"), "-U", "postgres", "-E", "UTF8", "--no-sync"]
        command += ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US", "--auth=trust", "-k"]
        done = subprocess.run(_as(owner, command), capture_output=True, text=True, cwd="/", check=False)
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr.strip()[-2000:]}")
        (self.folder / "data" / "pg_hba.conf").write_text("\n".join(_ACCESS) + "\n")
        lines = [f"{name} = '{value}'" for name, value in self._settings.items()]
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.write("\n".join(lines) + "\n")

    def _run(self) -> bool:
        command = [_program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port)]
        command += ["-k", str(self.folder), "-c", "listen_addresses=127.0.0.1"]
        with (self.folder / "log").open("ab") as log:
            # It goes when we go, however that is.
            self._process = subprocess.Popen(
                _as(_owner(), command, "--pdeathsig", "QUIT"), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/"
            )
        until = time.monotonic() + WAIT
        while time.monotonic() < until and self._process.poll() is None:
            if self._answers():
                return self._process.poll() is None
            time.sleep(0.05)
        self.stop(signal.SIGQUIT)
        return False

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(f"{self.folder}/.s.PGSQL.{self.port}"):
                return False
        try:
            return self.sql("SELECT 1") == "1"
        except RuntimeError:  # it is starting up
            return False


@cache
def shared() -> Cluster:
    """The cluster of this process's tests, for who does nothing to it but use a database of its own."""
    cluster = Cluster()
    atexit.register(cluster.remove)
    cluster.start()
    return cluster


@contextmanager
def fresh() -> Iterator[str]:
    """The name of an empty database of that cluster, for as long as it lasts."""
    cluster = shared()
    name = cluster.create()
    try:
        yield name
    finally:
        cluster.give_back(name)


def _owner() -> pwd.struct_passwd | None:
    """Whose the server is: PostgreSQL refuses to run as root. None: ours."""
    if os.getuid():
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _as(owner: pwd.struct_passwd | None, command: Sequence[str], *more: str) -> list[str]:
    """The command, run by another user where one is given."""
    user = [] if owner is None else [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
    return ["setpriv", *user, *more, "--", *command] if user or more else list(command)


@cache
def _program(name: str) -> str:
    """The newest PostgreSQL's, where Debian puts it, or what the path has."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    found = [folder / name for folder in sorted(folders, key=_version, reverse=True) if (folder / name).exists()]
    path = str(found[0]) if found else shutil.which(name)
    if path is None:
        raise RuntimeError(f"{name} is not installed (Debian package postgresql)")
    return path


def _copied() -> str:
    """How a database becomes like another: by its files, which costs half of what going through the log does. Until 15
    there was no other way, and no word for it."""
    return "STRATEGY file_copy" if _version(Path(_program("postgres")).parent) >= 15 else ""


def _version(folder: Path) -> int:
    return int(re.sub(r"\D.*", "", folder.parent.name) or 0)
