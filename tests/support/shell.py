"""Commands of `keyserver` over a configuration of their own, with or without a service beside them."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from keyserver.cli import main
from support.ports import free_port

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Shell:
    """Commands over one configuration, run in this process: a start takes longer than most of them."""

    config: Path

    def run(self, *arguments: str) -> Done:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main([*arguments, "--config", str(self.config)])
        return Done(code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str, code: int = 0) -> dict[str, list[dict[str, object]]]:
        done = self.run(*arguments, "--json")
        assert done.code == code, done.err
        return dict(json.loads(done.out))

    def process(self, *arguments: str, stdin: bytes = b"") -> Done:
        """In a process of its own."""
        command = [sys.executable, "-m", "keyserver", *arguments, "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, input=stdin, timeout=60, env=clean_environment())
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KEYSERVER_")}


def written(directory: Path, more: str = "") -> Path:
    file = directory / "keyserver.toml"
    file.write_text(
        f'[hkp]\nlisten = ["127.0.0.1:0"]\n[ldap]\nlisten = []\n[admin]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[cache]\ndatabase = "sqlite:///{directory}/keyserver.db"\n{more}'
    )
    return file


def started(config: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A service, and the address of its HKP listener."""
    command = [sys.executable, "-m", "keyserver", "serve", "--config", str(config), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=clean_environment())
    assert process.stderr is not None
    address, lines = "", []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("ready hkp http://"):
            address = line.split("//")[1].strip()
        if line.startswith("ready admin"):
            break
    assert address, lines
    return process, address


def ended(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    _, _rest = process.communicate(timeout=15)
    return process.returncode


def fingerprints(file: Path) -> list[str]:
    listed = subprocess.run(
        ["gpg", "--show-keys", "--with-colons", str(file)], capture_output=True, text=True, check=True
    )
    found, primary = [], False
    for line in map(str.strip, listed.stdout.splitlines()):
        kind, *fields = line.split(":")
        primary = kind == "pub" or (primary and kind != "sub")
        if kind == "fpr" and primary:
            found.append(fields[8])
            primary = False
    return found
