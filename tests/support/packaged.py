"""What scripts/package makes: of this tree, and of one that is a version before it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from keyserver import __version__
from support.machine import Machine
from support.openpgp import make
from support.ports import free_port
from support.running import ROOT

ALICE = make(["Alice <alice@example.org>"], seed="alice")
CANDIDATE = f"{__version__}rc1"
"""A version before this one."""


class Tree:
    """A source tree, in whose dist/ each kind of package is made when it is first wanted."""

    def __init__(self, root: Path = ROOT) -> None:
        self.root = root
        self._made: set[str] = set()

    def made(self, kind: str, pattern: str) -> Path:
        """The one file in dist/ that `scripts/package KIND` makes and this pattern names."""
        if kind not in self._made:
            command = [str(self.root / "scripts" / "package"), kind]
            done = subprocess.run(command, stdout=sys.stderr, stdin=subprocess.DEVNULL, timeout=1700)
            assert done.returncode == 0
            self._made.add(kind)
        [file] = (self.root / "dist").glob(pattern)
        return file

    def wheel(self) -> Path:
        return self.made("wheel", "keyserver_cache-*.whl")

    def sdist(self) -> Path:
        return self.made("wheel", "keyserver_cache-*.tar.gz")

    def debian(self) -> Path:
        return self.made("deb", "keyserver_*.deb")

    def sbom(self) -> Path:
        return self.made("sbom", "keyserver-cache-*.cdx.json")


def before(folder: Path) -> Tree:
    """A copy of this tree that is the version CANDIDATE, and has another configuration file."""
    left = shutil.ignore_patterns(".git", ".venv", "build", "dist", "var", "share", "mutants", "site", "__pycache__")
    root = folder / "before"
    shutil.copytree(ROOT, root, ignore=left, symlinks=True)
    if (ROOT / "build" / "wheels").exists():  # what this tree has fetched need not be fetched again
        shutil.copytree(ROOT / "build" / "wheels", root / "build" / "wheels")
    version = root / "keyserver" / "__init__.py"
    version.write_text(version.read_text().replace(f'"{__version__}"', f'"{CANDIDATE}"'))
    with (root / "conf" / "keyserver.toml").open("a") as configuration:
        configuration.write(f"# of {CANDIDATE}\n")
    return Tree(root)


def listed(sbom: Path) -> dict[str, str]:
    """The versions of the Python distributions that an SBOM names, by name in lower case with hyphens."""
    found = json.loads(sbom.read_text())["components"]
    return {normal(one["name"]): one["version"] for one in found if one["purl"].startswith("pkg:pypi/")}


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def first_key(there: Machine, upstream: str, user: str = "keyserver") -> str:
    """gpg gets a key from a service that asks this upstream, and the service lists it. What it said when it started."""
    port = free_port()
    listening = [f"{face}.listen=127.0.0.1:{number}" for face, number in (("hkp", port), ("ldap", 0), ("admin", 0))]
    words = ["keyserver", "serve", *(word for one in listening for word in ("--set", one)), "--upstream", upstream]
    with there.serving(*words, user=user) as service:
        assert service.stderr is not None
        log = ""
        for line in service.stderr:
            print(line, end="")
            log += line
            if line.startswith("ready admin"):
                break
        there.shell("rm -rf ~/.gnupg; mkdir -m 700 ~/.gnupg; echo disable-ipv6 > ~/.gnupg/dirmngr.conf")
        said = there.shell(f"gpg --batch --keyserver hkp://127.0.0.1:{port} --recv-keys {ALICE.fingerprint} 2>&1")
        assert "Alice <alice@example.org>" in said
        there.shell("gpgconf --kill all")
        assert ALICE.fingerprint.lower() in there.run_as(user, "keyserver", "cache", "list", "--json").lower()
    return log
