"""Which licences what is shipped may be under, and which one a Python package says that it is under."""

from __future__ import annotations

from importlib.metadata import Distribution

ALLOWED = frozenset(
    ["0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "LGPL-3.0-only", "MIT", "MIT-0", "PSF-2.0"]
)
"""SPDX names. The LGPL's is ldap3: its files are shipped as they are and can be replaced by others."""

SPELLED = {
    "Apache 2.0": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "LGPL v3": "LGPL-3.0-only",
    "MIT License": "MIT",
}
"""What packages of before SPDX names say."""


def allowed(licence: str) -> bool:
    """May this be shipped? licence: an SPDX expression without brackets."""
    return any(all(part in ALLOWED for part in choice.split(" AND ")) for choice in licence.split(" OR "))


def licence_of(package: Distribution) -> str:
    """As its metadata say: the expression, else the old field, else the classifier; empty where nothing does."""
    said = package.metadata
    classifiers = [text for text in said.get_all("Classifier", []) if text.startswith("License :: ")]
    old = said["License"] or "".join(text.rpartition(" :: ")[2] for text in classifiers)
    return said["License-Expression"] or SPELLED.get(old, old)
