"""The administrator's neighbour: another user of the machine who takes ports, plants files, or starts things twice."""

from __future__ import annotations

import contextlib
import errno
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyserver.state import LOCK, SOCKET, Held, State, StateError
from support.running import ROOT, Service

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
TOKEN = "a token of my own choice"


class Neighbour:
    """Listens where the service might, answers as today's service would, and writes down what it hears."""

    def __init__(self, relay_to: int = 0) -> None:
        self.heard: list[str] = []
        neighbour = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                neighbour.heard.append(f"{self.requestline}\n{self.headers}")
                status, body = 401, b"{}"
                if relay_to:
                    with (
                        contextlib.suppress(OSError),
                        urllib.request.urlopen(f"http://127.0.0.1:{relay_to}{self.path}", timeout=5) as reply,
                    ):
                        status, body = reply.status, reply.read()
                self.send_response(status)
                self.send_header("WWW-Authenticate", 'Bearer realm="keyserver"')
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def knows_a_token(self) -> bool:
        return any("authorization" in text.lower() for text in self.heard)


def cli(directory: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command with settings of its own, whether a service runs or not."""
    config = directory / "command.toml"
    config.write_text("")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KEYSERVER_")}
    environment |= {f"KEYSERVER_{key.upper()}": value for key, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "keyserver", *words, "--config", str(config)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(tmp_path) as started:
        yield started


def database(directory: Path) -> str:
    return f"sqlite:///{directory / 'keyserver.db'}"


# ---- the port


def test_whoever_takes_the_port_of_a_stopped_service_hears_nothing(tmp_path: Path) -> None:
    with Service(tmp_path) as service:
        service.cli("cache", "import", str(KEYRING))
        assert service.stop() == 0
    with Neighbour() as neighbour:
        settings = {"cache__database": database(tmp_path), "admin__listen": f"127.0.0.1:{neighbour.port}"}
        done = cli(tmp_path, "cache", "list", "--json", **settings)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(json.loads(done.stdout)["entries"]) > 5, "it worked on the store"
        assert neighbour.heard == []


@pytest.mark.parametrize("relayed", [False, True], ids=["pretends", "relays to the service"])
def test_without_a_proof_the_token_is_shown_to_nobody(tmp_path: Path, relayed: bool) -> None:
    """A command of another user or machine, which has no state directory, but the token."""
    token, away = tmp_path / "token", tmp_path / "away"
    token.write_text(TOKEN)
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with Service(home, settings={"admin.token_file": f'"{token}"'}) as service:
        real = service.port("admin")
        with Neighbour(real if relayed else 0) as neighbour:
            settings = {"cache__database": database(away), "admin__token_file": str(token)}
            done = cli(tmp_path, "cache", "list", **settings, admin__listen=f"127.0.0.1:{neighbour.port}")
            assert (done.returncode, done.stdout) == (0, "0 entries\n"), "on a store of its own"
            assert len(neighbour.heard) == 1
            assert "/api/v1/proof?nonce=" in neighbour.heard[0]
            assert not neighbour.knows_a_token


def test_who_has_the_token_alone_reaches_the_service_that_proves_itself(tmp_path: Path) -> None:
    token, home = tmp_path / "token", tmp_path / "home"
    token.write_text(TOKEN)
    home.mkdir(mode=0o700)
    with Service(home, settings={"admin.token_file": f'"{token}"'}) as service:
        service.cli("cache", "import", str(KEYRING), "--set", f"admin.token_file={token}")
        settings = {"cache__database": database(tmp_path / "away"), "admin__token_file": str(token)}
        where = f"127.0.0.1:{service.port('admin')}"
        done = cli(tmp_path, "cache", "list", "--json", **settings, admin__listen=where)
        assert len(json.loads(done.stdout)["entries"]) > 5
        assert not (tmp_path / "away").exists(), "nothing was made here"
        token.write_text("another token, of another installation")
        done = cli(tmp_path, "cache", "list", **settings, admin__listen=where)
        assert done.stdout == "0 entries\n"


async def test_the_proof_tells_nothing_and_takes_what_it_is_given(service: Service) -> None:
    status, _, body = await service.get("/api/v1/proof?nonce=" + "0" * 32, face="admin")
    assert status == 200
    assert service.token.encode() not in body
    assert (await service.get("/api/v1/proof?nonce=" + "1" * 32, face="admin"))[2] != body
    for wrong in ("", "?nonce=", "?nonce=xyz", "?nonce=" + "0" * 129, "?other=1"):
        assert (await service.get(f"/api/v1/proof{wrong}", face="admin"))[0] == 400
    assert (await service.get("/api/v1/proof/", face="admin"))[0] == 401
    assert (await service.get("/api/v1/cache", face="admin"))[0] == 401


def test_commands_need_no_admin_listener(tmp_path: Path) -> None:
    """None is open, or on a port that the system chose: they come by the state directory."""
    process = subprocess.Popen(
        [sys.executable, "-m", "keyserver", "serve", "--config", str(written(tmp_path)), "--set", "admin.listen="],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("ready hkp")
        done = cli(tmp_path, "cache", "import", str(KEYRING), cache__database=database(tmp_path), admin__listen="")
        assert done.returncode == 0, done.stderr
        assert State(tmp_path, tmp_path / "keyserver.db").connect(1).close() is None
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert not (tmp_path / SOCKET).exists()


def written(directory: Path) -> Path:
    file = directory / "service.toml"
    file.write_text(
        f'[hkp]\nlisten = ["127.0.0.1:0"]\n[ldap]\nlisten = []\n[cache]\ndatabase = "{database(directory)}"\n'
    )
    return file


# ---- starting twice


def second(service: Service, *settings: str) -> subprocess.CompletedProcess[str]:
    """Another start with the same configuration."""
    command = service.command("serve", "--config", str(service.config))
    for key, value in service.settings.items():
        command += ["--set", f"{key}={value}"]
    for setting in settings:
        command += ["--set", setting]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_a_second_start_is_refused_and_takes_nothing_from_the_first(service: Service) -> None:
    assert service.process is not None
    service.cli("cache", "import", str(KEYRING))
    done = second(service)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert f"a service runs already, as process {service.process.pid}" in line
    one = json.loads(service.cli("cache", "list", "--json"))["entries"][0]["fingerprint"]
    assert "blocked" in service.cli("cache", "block", one)
    acts = [json.loads(text) for text in service.log if '"administration"' in text]
    assert [act["act"] for act in acts] == ["import", "block"], "the first one did it"


@pytest.mark.parametrize("how", ["another state directory", "a link to the database"])
def test_one_database_has_one_service(service: Service, tmp_path: Path, how: str) -> None:
    if how == "another state directory":
        done = second(service, f"server.state_dir={tmp_path / 'second'}")
    else:
        (tmp_path / "linked").mkdir(mode=0o700)
        link = tmp_path / "linked" / "k.db"
        link.symlink_to(tmp_path / "keyserver.db")
        done = second(service, f"cache.database=sqlite:///{link}")
    assert done.returncode == 3
    assert "a service runs already" in done.stderr
    assert "keyserver.db-lock" in done.stderr


def test_a_command_never_works_on_the_store_of_a_living_service(service: Service, tmp_path: Path) -> None:
    """Not even when the way to the service is gone, or the command looks for its state elsewhere."""
    service.cli("cache", "import", str(KEYRING))
    elsewhere = {"cache__database": database(tmp_path), "server__state_dir": str(tmp_path / "elsewhere")}
    begun = time.monotonic()
    done = cli(tmp_path, "cache", "purge", "--all", "--yes", **elsewhere)
    assert time.monotonic() - begun < 30
    assert done.returncode == 3
    assert "a service runs already" in done.stderr
    assert "does not answer" in done.stderr
    assert len(json.loads(service.cli("cache", "list", "--json"))["entries"]) > 5


def test_no_service_starts_beneath_a_command(tmp_path: Path) -> None:
    """It waits for a short one, and says what is in the way of a long one."""
    state = State(tmp_path, tmp_path / "keyserver.db")
    service = Service(tmp_path)
    with state.shared():
        with state.shared():
            pass  # commands do not keep each other out
        done = second(service)
        assert done.returncode == 3
        assert "a command is working on the store" in done.stderr
    with contextlib.ExitStack() as stack:
        stack.enter_context(state.shared())
        threading.Timer(1.0, stack.close).start()
        with service:
            assert service.ready
            with pytest.raises(Held), state.shared():
                pass


def test_a_killed_service_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    service = Service(tmp_path).start()
    service.kill()
    assert (tmp_path / SOCKET).is_socket()
    assert "0 entries" in service.cli("cache", "list"), "on the store, at once"
    with service:
        assert "0 entries" in service.cli("cache", "list")
        assert service.stop() == 0
    assert not (tmp_path / SOCKET).exists()


# ---- the state directory


@pytest.mark.parametrize("command", ["serve", "cache list"])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, command: str) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(0o777)
    done = cli(tmp_path, *command.split(), cache__database=database(place), hkp__listen="", admin__listen="")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert f"{place} (mode 777) can be written by others: chmod go-w" in line
    assert list(place.iterdir()) == [], "nothing was made in it"


def as_nobody(script: str, *arguments: str) -> str:
    """What a script prints that runs as another user, once it has imported everything."""
    drop = "import os, sys\nfrom pathlib import Path\nfrom keyserver.state import *\n"
    drop += "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    done = subprocess.run(
        [sys.executable, "-c", drop + script, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="takes a directory of somebody else's")
def test_a_directory_of_somebody_else_proves_nothing(tmp_path: Path) -> None:
    """They put their socket there and wait; what points to it makes no difference."""
    for parent in (tmp_path, *list(tmp_path.parents)[:-1]):
        parent.chmod(parent.stat().st_mode | 0o055)
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o755)
    os.chown(theirs, 4711, -1)
    (tmp_path / "link").symlink_to(theirs)
    with socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(theirs / SOCKET))
        trap.listen()
        (theirs / SOCKET).chmod(0o777)
        script = """
try:
    State(Path(sys.argv[1])).connect(1)
except StateError as problem:
    print(problem)
"""
        for place in (theirs, tmp_path / "link"):
            assert "belongs to user 4711, not to us" in as_nobody(script, str(place))


def test_what_stands_in_the_way_is_left_as_it_is(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "a").mkdir(mode=0o700)
    (tmp_path / "a" / LOCK).symlink_to(precious)
    with pytest.raises(StateError, match="symbolic links"), State(tmp_path / "a").owned():
        pass
    (tmp_path / "b").mkdir(mode=0o700)
    (tmp_path / "b" / SOCKET).write_text("precious")
    with State(tmp_path / "b").owned(), pytest.raises(StateError, match="no socket; it was left"):
        State(tmp_path / "b").listen()
    assert precious.read_text() == (tmp_path / "b" / SOCKET).read_text() == "precious"


def test_the_locks_of_a_database_in_anybodys_directory_are_only_read(tmp_path: Path) -> None:
    """A hard link under the lock's name must not cost us what it leads to."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    place = tmp_path / "anybodys"
    place.mkdir()
    (place / "keyserver.db-lock").hardlink_to(precious)
    with State(tmp_path / "state", place / "keyserver.db").owned():
        pass
    assert precious.read_text() == "precious"


def test_the_path_may_be_longer_than_a_sockets(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 120)
    place.mkdir(mode=0o700)
    with Service(tmp_path, settings={"server.state_dir": f'"{place}"'}) as service:
        assert service.cli("cache", "list", "--set", f"server.state_dir={place}").startswith("0 entries")
        assert (place / SOCKET).stat().st_mode & 0o777 == 0o600
        assert {file.name for file in place.iterdir()} == {LOCK, SOCKET, "admin.token", "keyserver.secret"}
        assert not (tmp_path / "admin.token").exists()


def test_a_file_system_that_does_not_lock_is_refused_clearly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such file system is at hand here: flock answers as NFS without a lock daemon does."""

    def refuses(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuses)
    with (
        pytest.raises(StateError, match=r"does not lock files; name a directory on a local one"),
        State(tmp_path).owned(),
    ):
        pass
