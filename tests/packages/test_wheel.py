"""Wheel and sdist on a clean machine: installed without any index, started, upgraded, removed.

The output (`pytest -s`) is a transcript of it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from keyserver import __version__
from support.machine import Machine, machine
from support.packaged import CANDIDATE, Tree, first_key, listed, normal
from support.running import Service

pytestmark = pytest.mark.soak
HOME = "/opt/keyserver"
BASH = (
    "source share/bash-completion/completions/keyserver; COMP_WORDS=(keyserver lo); COMP_CWORD=1; "
    "$(complete -p keyserver | sed -E 's/.*-F (\\S+).*/\\1/') keyserver; echo ${COMPREPLY[@]}"
)
FISH = "source share/fish/vendor_completions.d/keyserver.fish; complete -C 'keyserver lo'"
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1='> '; fpath=($PWD/share/zsh/site-functions \$fpath)"
zpty -w shell "autoload -U compinit; compinit -u -D; echo rea''dy"
zpty -r shell said '*ready*'
zpty -w -n shell $'keyserver loo\t'
zpty -r shell said '*keyserver lookup*' && echo completed
"""


@pytest.fixture(scope="module")
def there(tree: Tree) -> Iterator[Machine]:
    """A machine that has what requirements.lock names in /root/wheels, and the environment's commands in its PATH."""
    tree.sbom()  # fetches it
    shells = ("zsh", "fish")
    with machine("ca-certificates", "python3-venv", "gpg", "gpg-agent", "dirmngr", "man-db", *shells) as made:
        shutil.copytree(tree.root / "build" / "wheels", made.root / "root" / "wheels")
        made.environment["PATH"] = f"{HOME}/bin:{made.environment['PATH']}"
        yield made


def what_was_installed(there: Machine) -> None:
    assert there.run("keyserver", "--version") == f"keyserver {CANDIDATE}\n"
    for page in ("keyserver", "keyserver-lookup", "keyserver.toml"):
        assert f"{HOME}/share/man/" in there.run("man", "-w", page)
    assert "keyserver lookup" in there.run("man", "keyserver-lookup")
    assert there.run("bash", "-c", f"cd {HOME}; {BASH}") == "lookup\n"
    assert there.run("fish", "-c", f"cd {HOME}; {FISH}").startswith("lookup")
    assert "completed" in there.run("timeout", "60", "zsh", "-f", "-c", f"cd {HOME}; {ZSH}")


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_install_start_upgrade_remove(
    there: Machine, tree: Tree, candidate: Tree, upstream: Service, kind: str
) -> None:
    earlier, package = (there.bring(one.wheel() if kind == "wheel" else one.sdist()) for one in (candidate, tree))
    install = (f"{HOME}/bin/pip", "install", "--no-index", "--find-links", "/root/wheels", "--upgrade")
    user = f"keyserver-{kind}"
    there.run("useradd", "--system", "--create-home", "--home-dir", f"/var/lib/{user}", user)
    there.run("python3", "-m", "venv", "--clear", HOME)
    there.run(*install, earlier)
    what_was_installed(there)
    log = first_key(there, f"hkp://127.0.0.1:{upstream.port()}", user)
    assert "neither conf/keyserver.toml nor /etc/keyserver/keyserver.toml exists: built-in defaults" in log

    there.run(*install, package)
    assert there.run("keyserver", "--version") == f"keyserver {__version__}\n"
    there.run(f"{HOME}/bin/pip", "check")
    installed = json.loads(there.run(f"{HOME}/bin/pip", "list", "--format", "json", shown=0))
    lie = {normal(one["name"]): one["version"] for one in installed if one["name"] not in ("pip", "setuptools")}
    assert lie == listed(tree.sbom()) | {"keyserver-cache": __version__}
    first_key(there, "hkp://127.0.0.1:1", user)  # from the cache: nobody is there

    there.run(f"{HOME}/bin/pip", "uninstall", "--yes", "keyserver-cache")
    left = [file for file in (there.root / HOME.strip("/")).rglob("*keyserver*") if not file.is_dir()]
    assert not left
    assert (there.root / "var/lib" / user / "var" / "keyserver.db").exists()


def test_what_lies_in_the_sdist_is_enough(tree: Tree, tmp_path: Path) -> None:
    """It has what makes the packages, and the tests."""
    shutil.unpack_archive(tree.sdist(), tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    for name in ("scripts/package", "debian/rules", "conf/container/Containerfile", "requirements.lock", "tests"):
        assert (source / name).exists()
