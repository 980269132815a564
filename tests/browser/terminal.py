"""Draws docs/screenshots/terminal.svg anew: what a terminal shows of a real service, a real gpg and two commands.

PYTHONPATH=tests .venv/bin/python -m browser.terminal

Only ports and folders are shown as they would be without ours."""

from __future__ import annotations

import io
import re
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from support.openpgp import make
from support.running import Gpg, Service

PICTURE = Path(__file__).parents[2] / "docs" / "screenshots" / "terminal.svg"
USUAL = {"hkp": 11371, "ldap": 1389, "admin": 8371}
ALICE = "alice@partner.example"
WIDTH = 134  # columns


def lines(folder: Path) -> list[tuple[str, str]]:
    """What was typed and what was said to it, one after the other."""
    key = folder / "alice.gpg"
    key.write_bytes(make([f"Alice Arden <{ALICE}>"], seed="alice").octets)
    for name in ("partner", "ours"):
        (folder / name).mkdir(mode=0o700)
    with Service(folder / "partner") as partner:
        partner.cli("cache", "import", str(key))
        url = f"hkp://127.0.0.1:{partner.port()}"
        config = f'[[upstream]]\nname = "partner"\nurl = "{url}"\ndomains = ["partner.example"]\n'
        with Service(folder / "ours", config=config) as service, Gpg(folder / "gpg") as gpg:
            ours = f"hkp://127.0.0.1:{service.port()}"
            words = ["--keyserver", ours, "--auto-key-locate", "clear,keyserver", "--locate-keys", ALICE]
            done = gpg.run(*words)
            of_gpg = [line for line in (done.stderr + done.stdout).splitlines() if not line.startswith("[GNUPG:]")]
            shown = [("keyserver serve", "\n".join(service.ready)), (" ".join(["gpg", *words]), "\n".join(of_gpg))]
            for command in (["lookup", ALICE, "--trace"], ["can-encrypt", ALICE]):
                shown.append((" ".join(["keyserver", *command]), service.cli(*command)))
            places = {f":{service.port(face)}": f":{usual}" for face, usual in USUAL.items()}
    places |= {str(folder / "gpg"): "~/.gnupg", str(folder / "ours"): "var"}
    return [(replaced(typed, places), replaced(said, places)) for typed, said in shown]


def replaced(text: str, places: dict[str, str]) -> str:
    for ours, usual in places.items():
        text = text.replace(ours, usual)
    return text


def picture(shown: list[tuple[str, str]]) -> str:
    """A terminal as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    for typed, said in shown:
        console.print(Text(f"$ {typed}", style="bold"))
        console.print(Text(said.rstrip()))
        console.print()
    drawn = console.export_svg(title="keyserver", unique_id="terminal")
    # rich names a font at a stranger's host; nothing is loaded from elsewhere.
    return re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL).replace("Fira Code", "DejaVu Sans Mono")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        PICTURE.write_text(picture(lines(Path(name))), encoding="utf-8")
