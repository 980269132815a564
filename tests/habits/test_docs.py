"""Every key, option, route and metric is written about; every example loads. Links: tests/habits/test_site.py."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from keyserver.config import load
from keyserver.config.document import render
from keyserver.config.loading import TABLES, models
from support.tls import Authority
from support.x509 import authority

ROOT = Path(__file__).parents[2]
BESIDE = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
DOCUMENTS = sorted([*BESIDE, *(ROOT / "docs").rglob("*.md")])
TEXT = "\n".join(file.read_text(encoding="utf-8") for file in DOCUMENTS)
SOURCES = sorted((ROOT / "keyserver").rglob("*.py"))


def test_configuration_md_is_up_to_date() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == render(), "run: .venv/bin/python -m keyserver.config.document > docs/configuration.md"


@pytest.mark.parametrize("section", list(models()))
def test_every_key_is_documented(section: str) -> None:
    """In its section's table; the key of a part that does not exist yet in the list of those, and nowhere else."""
    spelled = f"`[[{section}]]`" if section in TABLES else f"`[{section}]`"
    _, _, rest = TEXT.partition(f"## {spelled}\n")
    part = rest.split("\n## ", 1)[0]
    assert not [key for key in models()[section].model_fields if f"| `{key}` |" not in part]


def examples() -> list[tuple[str, str]]:
    """(where, text) of every toml block."""
    found = []
    for file in DOCUMENTS:
        for number, block in enumerate(
            re.findall(r"^```toml\n(.*?)^```", file.read_text(encoding="utf-8"), re.S | re.M)
        ):
            found.append((f"{file.relative_to(ROOT)} #{number + 1}", block))
    return found


@pytest.mark.parametrize(("where", "block"), examples(), ids=[where for where, _ in examples()])
def test_every_toml_example_loads(where: str, block: str, tmp_path: Path) -> None:
    """With the files that it names put in place."""
    pair = {"tls_certificate": "", "tls_key_file": ""}
    if "tls_certificate" in block:
        issued = Authority(tmp_path / "tls").issue()
        pair = {"tls_certificate": str(issued.certificate), "tls_key_file": str(issued.key)}
    for key, name in set(re.findall(r'(\w+_file|tls_certificate) = "([^"]+)"', block)):
        stand_in = tmp_path / name.strip("/").replace("/", "-")
        stand_in.write_bytes(authority().pem if name.endswith(".pem") else b"stand-in for a secret\n")
        block = block.replace(f'"{name}"', f'"{pair.get(key) or stand_in}"')
    tomllib.loads(block)
    example = tmp_path / "example.toml"
    example.write_text(block, encoding="utf-8")
    assert load(example)


def strings(pattern: str) -> set[str]:
    return {match for file in SOURCES for match in re.findall(pattern, file.read_text(encoding="utf-8"))}


def test_every_route_is_documented() -> None:
    """Literal paths given to aiohttp's routes; what stands in braces may be named otherwise."""
    routes = strings(
        r'(?:add_(?:get|post|delete|route|head|options|put)|web\.(?:get|post|delete|head|options|put))\(\s*f?"(/[^"]*)"'
    )
    documented = re.sub(r"\{[^}]*\}", "{}", TEXT)
    assert not [route for route in routes if re.sub(r"\{[^}]*\}", "{}", route) not in documented]


def test_every_metric_is_documented() -> None:
    metrics = strings(r'"(keyserver_[a-z_]+)"')
    assert metrics
    assert not [metric for metric in metrics if metric not in TEXT]


def test_every_option_and_command_is_documented() -> None:
    from typer.main import get_command

    from keyserver.cli import application

    missing = []
    waiting = [("keyserver", get_command(application))]
    while waiting:
        path, command = waiting.pop()
        for parameter in command.params:
            missing += [
                f"{path} {flag}"
                for flag in parameter.opts
                if flag.startswith("--") and flag not in TEXT and flag != "--help"
            ]
        for name, child in getattr(command, "commands", {}).items():
            waiting.append((f"{path} {name}", child))
            if f"{path} {name}" not in TEXT and f"`{name}" not in TEXT:
                missing.append(f"{path} {name}")
    assert not missing


@pytest.mark.parametrize("file", DOCUMENTS, ids=[str(file.relative_to(ROOT)) for file in DOCUMENTS])
def test_no_line_numbers(file: Path) -> None:
    assert not re.findall(r"\w+\.py:\d+", file.read_text(encoding="utf-8")), "line numbers of code rot"


@pytest.mark.parametrize("file", DOCUMENTS, ids=[str(file.relative_to(ROOT)) for file in DOCUMENTS])
def test_code_named_in_documents_exists(file: Path) -> None:
    """`faces/http/hkp.py` and the like, in code marks, relative to the package or the repository."""
    names = re.findall(r"`((?:[a-z_0-9]+/)+[a-z_0-9]+\.(?:py|toml|md|sh|lock))`", file.read_text(encoding="utf-8"))
    assert not [name for name in names if not any((base / name).exists() for base in (ROOT, ROOT / "keyserver"))]


def test_decisions_are_numbered_and_short() -> None:
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(file.name[:4]) for file in decisions] == list(range(1, len(decisions) + 1))
    for file in decisions:
        lines = file.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 30, file.name
        assert {"## Question", "## Choice", "## What would change our mind"} <= set(lines), file.name
