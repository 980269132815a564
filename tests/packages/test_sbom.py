"""What is shipped is listed, and what may not be shipped is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from keyserver import __version__
from support.packaged import Tree, listed

pytestmark = pytest.mark.soak


def judged(tree: Tree, folder: Path, site: Path, bom: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """What scripts/package asks for what cyclonedx-py found in an environment, or for this instead."""
    file, python = folder / "made.json", tree.root / "build" / "environment" / "bin" / "python"
    found_by = [str(python.with_name("cyclonedx-py")), "environment", "--output-file", str(file)]
    of = ["--pyproject", "pyproject.toml", f"{site.parents[2]}/bin/python"]
    if bom is None:
        subprocess.run([*found_by, *of], cwd=tree.root, check=True, capture_output=True)
    else:
        file.write_text(json.dumps(bom))
    judge = [str(python), "scripts/sbom.py", str(file), __version__, str(site)]
    return subprocess.run(judge, cwd=tree.root, capture_output=True, text=True)


@pytest.fixture
def site(tree: Tree, tmp_path: Path) -> Path:
    """A copy of the environment that the SBOM is of: its packages."""
    tree.sbom()
    shutil.copytree(tree.root / "build" / "runtime", tmp_path / "runtime", symlinks=True)
    [packages] = (tmp_path / "runtime" / "lib").glob("python3*/site-packages")
    return packages


def package(site: Path, licence: str) -> None:
    """Installs a package that says this of its licence."""
    folder = site / "stranger-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: stranger\nVersion: 1.0\nLicense-Expression: {licence}\n"
    )
    (folder / "LICENSE").write_text("do what you like\n")
    (folder / "RECORD").write_text("stranger-1.0.dist-info/METADATA,,\nstranger-1.0.dist-info/LICENSE,,\n")


def test_everything_has_a_version_a_licence_and_its_text(tree: Tree) -> None:
    bom = json.loads(tree.sbom().read_text())
    assert bom["bomFormat"] == "CycloneDX"
    assert {"aiohttp", "cryptography", "ldap3"} <= set(listed(tree.sbom()))
    for component in bom["components"]:
        assert component["version"]
        assert component["licenses"][0]["expression"]
        if component["purl"].startswith("pkg:pypi/"):
            assert all(one["license"]["text"]["content"] for one in component["evidence"]["licenses"])
            assert component["evidence"]["licenses"]


def test_a_package_under_an_allowed_licence_joins_it(tree: Tree, site: Path, tmp_path: Path) -> None:
    package(site, "MIT")
    done = judged(tree, tmp_path, site)
    assert done.returncode == 0, done.stderr
    assert listed(tmp_path / "made.json") == listed(tree.sbom()) | {"stranger": "1.0"}


@pytest.mark.parametrize("licence", ["AGPL-3.0-only", "MIT AND GPL-2.0-or-later"])
def test_a_package_under_another_is_refused(tree: Tree, site: Path, tmp_path: Path, licence: str) -> None:
    package(site, licence)
    done = judged(tree, tmp_path, site)
    assert done.returncode == 1
    assert done.stderr == f"sbom: stranger: its licence, {licence}, is none that may be shipped\n"


def test_what_is_not_cyclonedx_is_refused(tree: Tree, site: Path, tmp_path: Path) -> None:
    bom = json.loads(tree.sbom().read_text())
    bom["components"] = [one for one in bom["components"] if one["purl"].startswith("pkg:pypi/")]
    bom["components"][0]["type"] = "poem"
    done = judged(tree, tmp_path, site, bom)
    assert done.returncode == 1
    assert "poem" in done.stderr
