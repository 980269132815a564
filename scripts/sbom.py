"""Adds to an SBOM what no Python package says: the product's own version, and what lies in it of others.

`sbom.py FILE VERSION`; FILE is CycloneDX in JSON and is written anew, and judged by CycloneDX's own schema.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

VENDORED = Path(__file__).parents[1] / "keyserver" / "admin" / "pages" / "static" / "VENDORED.md"


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
                "licenses": [{"license": {"id": licence}}],
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        )
    return found


def complete(file: Path, version: str) -> int:
    """Write the file anew; how many components it has. Raises ValueError where it is not CycloneDX."""
    bom = json.loads(file.read_text(encoding="utf-8"))
    bom["metadata"]["component"]["version"] = version
    bom["components"] += vendored()
    text = json.dumps(bom, indent=1, sort_keys=True)
    if trouble := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        raise ValueError(str(trouble))
    file.write_text(text + "\n", encoding="utf-8")
    return len(bom["components"])


if __name__ == "__main__":
    print(f"{sys.argv[1]}: {complete(Path(sys.argv[1]), sys.argv[2])} components")
