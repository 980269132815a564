"""The Debian package on a clean machine: installed, started by hand, upgraded, removed, purged.

The output (`pytest -s`) is a transcript of it.
"""

from __future__ import annotations

import shutil
import subprocess
from importlib.metadata import distributions

import pytest

from keyserver import __version__
from support.machine import Machine, machine
from support.packaged import CANDIDATE, Tree, first_key, listed, normal
from support.running import Service

STATE = "/var/lib/keyserver"
COMPLETED = (
    ". /usr/share/bash-completion/completions/keyserver; COMP_WORDS=(keyserver lo); COMP_CWORD=1; "
    "_keyserver_completion keyserver; echo ${COMPREPLY[@]}"
)
INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends")
NOBODY = "hkp://127.0.0.1:1"
"""An upstream that does not answer: what is found then was in the cache."""


def what_was_installed(there: Machine) -> None:
    assert there.run("keyserver", "--version") == f"keyserver {CANDIDATE}\n"
    assert there.run("stat", "--format=%a %U %G", STATE) == "700 keyserver keyserver\n"
    assert there.run("systemctl", "is-enabled", "keyserver", code=1) == "disabled\n"
    there.run("systemd-analyze", "verify", "--man=no", "keyserver.service")
    assert "no mistakes" in there.run("keyserver", "check")
    assert there.run("bash", "-c", COMPLETED) == "lookup\n"
    for page in ("keyserver", "keyserver-lookup", "keyserver.toml"):
        assert "/usr/share/man/" in there.run("man", "-w", page)


def what_it_lists(there: Machine) -> None:
    """The SBOM in the package names what lies in the package, no more and no less."""
    [sbom] = there.root.glob("usr/share/doc/keyserver/*.cdx.json")
    [site] = there.root.glob("usr/lib/keyserver/lib/python3*/site-packages")
    lie = {normal(one.metadata["Name"]): one.version for one in distributions(path=[str(site)])}
    assert listed(sbom) | {"keyserver-cache": __version__} == lie


@pytest.mark.soak
def test_install_start_upgrade_remove_purge(tree: Tree, candidate: Tree, upstream: Service) -> None:
    with machine("ca-certificates", "gpg", "gpg-agent", "dirmngr", "man-db", "systemd") as there:
        earlier, package = there.bring(candidate.debian()), there.bring(tree.debian())
        there.run("apt-get", "update", "--quiet")
        there.run(*INSTALL, earlier)
        what_was_installed(there)
        first_key(there, f"hkp://127.0.0.1:{upstream.port()}")

        there.shell("echo '# ours' >> /etc/keyserver/keyserver.toml")
        there.run(*INSTALL, "--option=Dpkg::Options::=--force-confold", package)
        assert there.run("keyserver", "--version") == f"keyserver {__version__}\n"
        assert there.run("tail", "-1", "/etc/keyserver/keyserver.toml") == "# ours\n"
        assert CANDIDATE not in (there.root / "etc/keyserver/keyserver.toml.dpkg-dist").read_text()
        assert there.run("systemctl", "is-enabled", "keyserver", code=1) == "disabled\n"
        what_it_lists(there)
        first_key(there, NOBODY)

        there.run("apt-get", "remove", "--yes", "keyserver")
        assert not (there.root / "usr/bin/keyserver").is_symlink()
        assert not (there.root / "usr/lib/keyserver").exists(), "nothing that was compiled stays"
        kept = [there.root / "etc/keyserver/keyserver.toml", there.root / STATE.strip("/") / "keyserver.db"]
        assert all(file.exists() for file in kept)
        there.run(*INSTALL, package)
        first_key(there, NOBODY)
        what_purging_asks(there, package)


def what_purging_asks(there: Machine, package: str) -> None:
    """The cache goes where somebody says yes: to the question, or before it is asked (debconf's preseeding)."""
    configuration, cache = there.root / "etc/keyserver/keyserver.toml", there.root / STATE.strip("/")
    saved = there.root / "root" / "saved"
    purge = ("apt-get", "purge", "--yes", "keyserver")
    there.run(*purge)
    assert not configuration.exists()
    assert (cache / "keyserver.db").exists(), "nobody was there to say yes"
    shutil.copytree(cache, saved)

    there.run(*INSTALL, package)
    there.shell("echo keyserver keyserver/purge-cache boolean true | debconf-set-selections")
    there.run(*purge)
    assert not cache.exists(), "yes had been said before"

    there.run(*INSTALL, package)
    shutil.copytree(saved, cache, dirs_exist_ok=True)
    answer = there.root / "root" / "answer"
    answer.write_text("""#!/bin/sh\nexec sed -i 's/="no"/="yes"/' "$1"\n""")
    answer.chmod(0o755)
    there.run(*purge, environment={"DEBIAN_FRONTEND": "editor", "EDITOR": "/root/answer"})  # needs no terminal
    assert not cache.exists(), "yes was said"


@pytest.mark.soak
def test_lintian_finds_no_mistake(tree: Tree) -> None:
    command = ["lintian", "--allow-root", "--fail-on", "error", "--no-cfg", str(tree.debian())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL)
    print(done.stdout)
    assert done.returncode == 0, done.stdout
