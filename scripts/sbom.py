"""Completes an SBOM with what its maker does not say, judges its licences, and writes it anew.

`sbom.py FILE VERSION SITE`: FILE is CycloneDX in JSON, of the packages installed in SITE. Each component gets one SPDX
expression of its licence, with the texts as evidence; what lies in the product of others is added. It ends with 1
where a licence is not one that may be shipped, or CycloneDX's own schema finds a mistake.
"""

from __future__ import annotations

import json
import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from licences import allowed, licence_of

VENDORED = Path(__file__).parents[1] / "keyserver" / "admin" / "pages" / "static" / "VENDORED.md"
TEXT = re.compile(r"\.dist-info/(licenses/.*|(LICEN[CS]E|COPYING|NOTICE)[^/]*)$", re.IGNORECASE)


def vendored() -> list[dict[str, Any]]:
    """A component for each file in the table of VENDORED.md: file, from, version, licence, SHA-256."""
    found = []
    for line in VENDORED.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not cells[0].endswith(".js"):
            continue
        name, origin, version, licence, digest = cells
        package = origin.split(",")[0].removeprefix("npm ")
        found.append(
            {
                "type": "library",
                "bom-ref": name,
                "name": package,
                "version": version,
                "description": f"keyserver/admin/pages/static/{name}",
                "purl": f"pkg:npm/{package}@{version}",
                "licenses": [{"expression": licence}],
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        )
    return found


def texts(package: Distribution) -> list[dict[str, Any]]:
    """The files of licences and notices that were installed with a package."""
    return [
        {"license": {"name": file.name, "text": {"contentType": "text/plain", "content": file.read_text("utf-8")}}}
        for file in sorted(package.files or [])
        if TEXT.search(str(file))
    ]


def complete(bom: dict[str, Any], version: str, site: Path) -> None:
    """Raises ValueError where a component's licence is not known, has no text, or is not one that may be shipped."""
    bom["metadata"]["component"]["version"] = version
    packages = {package.metadata["Name"]: package for package in distributions(path=[str(site)])}
    for component in bom["components"]:
        package = packages[component["name"]]
        component["licenses"] = [{"expression": licence_of(package)}]
        component["evidence"] = {"licenses": texts(package)}
        if not component["evidence"]["licenses"]:
            raise ValueError(f"{component['name']}: no text of its licence")
    bom["components"] += vendored()
    for component in bom["components"]:
        licence = component["licenses"][0]["expression"]
        if not allowed(licence):
            raise ValueError(f"{component['name']}: its licence, {licence or 'unknown'}, is none that may be shipped")


def main(file: Path, version: str, site: Path) -> None:
    bom = json.loads(file.read_text(encoding="utf-8"))
    complete(bom, version, site)
    text = json.dumps(bom, indent=1, sort_keys=True)
    if trouble := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(str(trouble))
    file.write_text(text + "\n", encoding="utf-8")
    print(f"{file}: {len(bom['components'])} components")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    except ValueError as error:
        sys.exit(f"sbom: {error}")
