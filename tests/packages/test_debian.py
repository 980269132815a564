"""The Debian package on a clean machine: installed, started by hand, upgraded, removed, purged.

The output (`pytest -s`) is a transcript of it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from keyserver import __version__
from support.machine import Machine, machine
from support.openpgp import make
from support.ports import free_port
from support.running import ROOT, Service

ALICE = make(["Alice <alice@example.org>"], seed="alice")
STATE = "/var/lib/keyserver"
COMPLETED = (
    ". /usr/share/bash-completion/completions/keyserver; COMP_WORDS=(keyserver lo); COMP_CWORD=1; "
    "_keyserver_completion keyserver; echo ${COMPREPLY[@]}"
)
FACES = ("--set", "ldap.listen=127.0.0.1:0", "--set", "admin.listen=127.0.0.1:0")


def built() -> Path:
    """The package of this tree."""
    done = subprocess.run(
        [ROOT / "scripts" / "package", "deb"], stdout=sys.stderr, stdin=subprocess.DEVNULL, timeout=1700
    )
    assert done.returncode == 0
    [package] = (ROOT / "dist").glob("keyserver_*.deb")
    return package


def first_key(there: Machine, upstream: str) -> None:
    """gpg gets a key from the service, which asks the upstream; then the service alone says that it has it."""
    port = free_port()
    words = ("keyserver", "serve", "--set", f"hkp.listen=127.0.0.1:{port}", *FACES, "--upstream", upstream)
    with there.serving(*words, user="keyserver") as service:
        assert service.stderr is not None
        for line in service.stderr:
            print(line, end="")
            if line.startswith("ready admin"):
                break
        there.shell("rm -rf ~/.gnupg; mkdir -m 700 ~/.gnupg; echo disable-ipv6 > ~/.gnupg/dirmngr.conf")
        said = there.shell(f"gpg --batch --keyserver hkp://127.0.0.1:{port} --recv-keys {ALICE.fingerprint} 2>&1")
        assert "Alice <alice@example.org>" in said
        as_user = ("setpriv", "--reuid", "keyserver", "--regid", "keyserver", "--clear-groups")
        assert ALICE.fingerprint.lower() in there.run(*as_user, "keyserver", "cache", "list", "--json").lower()


def what_was_installed(there: Machine) -> None:
    assert there.run("keyserver", "--version") == f"keyserver {__version__}\n"
    assert there.run("stat", "--format=%a %U %G", STATE) == "700 keyserver keyserver\n"
    assert there.run("systemctl", "is-enabled", "keyserver", code=1) == "disabled\n"
    there.run("systemd-analyze", "verify", "--man=no", "keyserver.service")
    assert "no mistakes" in there.run("keyserver", "check")
    assert there.run("bash", "-c", COMPLETED) == "lookup\n"
    for page in ("keyserver", "keyserver-lookup", "keyserver.toml"):
        assert "/usr/share/man/" in there.run("man", "-w", page)


@pytest.mark.soak
def test_install_start_upgrade_remove_purge(tmp_path: Path) -> None:
    ring = tmp_path / "ring.pgp"
    ring.write_bytes(ALICE.octets)
    with machine("ca-certificates", "gpg", "gpg-agent", "dirmngr", "man-db", "systemd") as there:
        package = there.bring(built())
        install = ("apt-get", "install", "--yes", "--no-install-recommends", package)
        there.run("apt-get", "update", "--quiet")
        there.run(*install)
        what_was_installed(there)
        with Service(tmp_path) as upstream:
            upstream.cli("cache", "import", str(ring))
            first_key(there, f"hkp://127.0.0.1:{upstream.port()}")

        there.shell("echo '# ours' >> /etc/keyserver/keyserver.toml")
        there.run(*install, "--reinstall")
        assert there.run("tail", "-1", "/etc/keyserver/keyserver.toml") == "# ours\n"
        first_key(there, "hkp://127.0.0.1:1")  # from the cache: nobody is there

        there.run("apt-get", "remove", "--yes", "keyserver")
        assert not (there.root / "usr/bin/keyserver").is_symlink()
        assert not (there.root / "usr/lib/keyserver").exists(), "nothing that was compiled stays"
        kept = [there.root / "etc/keyserver/keyserver.toml", there.root / STATE.strip("/") / "keyserver.db"]
        assert all(file.exists() for file in kept)

        there.run("apt-get", "purge", "--yes", "keyserver")
        assert [file.exists() for file in kept] == [False, True], "nobody was there to say yes"
        there.run(*install)
        yes = there.root / "root" / "yes"
        yes.write_text("""#!/bin/sh\nexec sed -i 's/="no"/="yes"/' "$1"\n""")
        yes.chmod(0o755)
        asked = {"DEBIAN_FRONTEND": "editor", "EDITOR": "/root/yes"}  # the one that asks without a terminal
        there.run("apt-get", "purge", "--yes", "keyserver", environment=asked)
        assert [file.exists() for file in kept] == [False, False]
