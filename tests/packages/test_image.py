"""The container image, run by podman as docs/installing.md says: read-only, without rights, its volume alone written.

The output (`pytest -s`) is a transcript of it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from urllib.request import urlopen

import pytest

from keyserver import __version__
from support.containers import Podman
from support.packaged import ALICE, CANDIDATE, Tree, listed, normal
from support.ports import free_port
from support.running import ROOT, Service

pytestmark = pytest.mark.soak
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
DISTRIBUTIONS = (
    "from importlib.metadata import distributions; print(*(f'{one.name}={one.version}' for one in distributions()))"
)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    made = Podman(tmp_path_factory.mktemp("containers"))
    try:
        made.base()
        yield made
    finally:
        made.close()


def until_well(port: int) -> None:
    """Returns when the service behind a published port is well."""
    end = monotonic() + 60
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as reply:
                assert reply.status == 200
                return
        except OSError:
            assert monotonic() < end
            sleep(0.2)


def started(podman: Podman, image: str, upstream: str) -> int:
    """The published port of a container called keyserver, whose volume is called cache."""
    port = free_port()
    published = ("--publish", f"127.0.0.1:{port}:11371", "--volume", "cache:/var/lib/keyserver")
    serve = ("serve", "--config", "/etc/keyserver/keyserver.toml", "--upstream", upstream)
    podman.run("podman", "run", "--detach", "--name", "keyserver", *HARDENED, *published, image, *serve)
    until_well(port)
    return port


def first_key(home: Path, port: int) -> None:
    """gpg on this machine gets Alice's key from the published port."""
    home.mkdir(mode=0o700)
    (home / "dirmngr.conf").write_text("disable-ipv6\n")
    command = ["gpg", "--homedir", str(home), "--batch", "--keyserver", f"hkp://127.0.0.1:{port}", "--recv-keys"]
    print("#", *command, ALICE.fingerprint)
    done = subprocess.run([*command, ALICE.fingerprint], capture_output=True, text=True, timeout=60)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"])
    print(done.stderr)
    assert "Alice <alice@example.org>" in done.stderr


def test_install_start_upgrade_remove(
    podman: Podman, tree: Tree, candidate: Tree, upstream: Service, tmp_path: Path
) -> None:
    podman.image(candidate.root)
    podman.image(tree.root)
    port = started(podman, f"localhost/keyserver:{CANDIDATE}", f"hkp://host.containers.internal:{upstream.port()}")
    first_key(tmp_path / "gpg", port)
    inside = ("podman", "exec", "keyserver")
    assert podman.run(*inside, "keyserver", "--version") == f"keyserver {CANDIDATE}\n"
    assert ALICE.fingerprint.upper() in podman.run(*inside, "keyserver", "cache", "list", "--json")
    assert podman.run(*inside, "id") == "uid=10001(keyserver) gid=10001(keyserver) groups=10001(keyserver)\n"
    assert podman.run(*inside, "stat", "--format=%a %U %G", "/var/lib/keyserver") == "700 keyserver keyserver\n"
    podman.run(*inside, "touch", "/etc/keyserver/written", "/usr/lib/keyserver/written", code=1)
    podman.run(*inside, "touch", "/var/lib/keyserver/written", "/tmp/written")
    podman.run("podman", "healthcheck", "run", "keyserver")
    podman.run("podman", "stop", "keyserver")
    assert podman.run("podman", "inspect", "--format", "{{.State.ExitCode}}", "keyserver") == "0\n"
    podman.run("podman", "rm", "keyserver")

    port = started(podman, "localhost/keyserver", "hkp://127.0.0.1:1")
    first_key(tmp_path / "gpg2", port)  # from the volume: nobody is there
    assert podman.run(*inside, "keyserver", "--version") == f"keyserver {__version__}\n"
    there = dict(one.split("=") for one in podman.run(*inside, "python", "-c", DISTRIBUTIONS).split())
    assert {normal(name): version for name, version in there.items()} == listed(tree.sbom()) | {
        "keyserver-cache": __version__
    }
    podman.run("podman", "rm", "--force", "keyserver")
    podman.run("podman", "volume", "rm", "cache")


def test_the_health_check_notices_that_nothing_serves(podman: Podman, tree: Tree) -> None:
    podman.image(tree.root)
    podman.run("podman", "run", "--detach", "--name", "idle", "--entrypoint", "sleep", "localhost/keyserver", "600")
    try:
        podman.run("podman", "healthcheck", "run", "idle", code=1)
    finally:
        podman.run("podman", "rm", "--force", "idle")


@pytest.mark.parametrize("folder", ["container", "cluster"])
def test_compose_takes_the_file(folder: str) -> None:
    command = ["docker-compose", "--file", f"conf/{folder}/compose.yml", "config"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "conf/container/Containerfile" in done.stdout


def test_compose_starts_a_node(podman: Podman, tree: Tree) -> None:
    """The file as it is, with the ports that it publishes."""
    compose = ("podman-compose", "--project-name", "keyserver", "--file", "conf/container/compose.yml")
    podman.run(*compose, "up", "--detach", "--build", cwd=tree.root)
    try:
        until_well(11371)
        assert "keyserver" in podman.run(*compose, "exec", "-T", "keyserver", "keyserver", "--version", cwd=tree.root)
    finally:
        podman.run(*compose, "down", "--volumes", cwd=tree.root)
