"""Commands that take much away ask before they do, where there is somebody to ask."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from support.shell import KEYRING, ROOT, Shell, clean_environment

SWEEPS = (
    ["cache", "purge", "--all"],
    ["cache", "purge", "--source", "local"],
    ["cache", "purge", "--upstream", "u"],
    ["cache", "purge", "--domain", "debian.org"],
    ["cache", "delete", *(f"{n:040X}" for n in range(11))],
)


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda words: " ".join(words[:3]))
@pytest.mark.parametrize("yes", [[], ["--yes"]], ids=["as it stands", "--yes"])
def test_a_sweep_of_a_script_asks_nobody(shell: Shell, sweep: list[str], yes: list[str]) -> None:
    assert shell.run("cache", "import", str(KEYRING)).code == 0
    run = shell.process if sweep[-1] == "--all" else shell.run  # neither has a terminal
    done = run(*sweep, *yes)
    assert "Go on?" not in done.err and "nothing was done" not in done.err
    if sweep[-1] in ("--all", "local"):
        assert shell.json("cache", "list")["entries"] == []


@pytest.mark.parametrize(
    ("typed", "code", "left"), [("y\n", 0, False), ("n\n", 1, True), ("\n", 1, True), ("", 1, True)]
)
def test_a_sweep_asks_on_a_terminal(shell: Shell, typed: str, code: int, left: bool) -> None:
    assert shell.run("cache", "import", str(KEYRING)).code == 0
    command = [sys.executable, "-m", "keyserver", "cache", "purge", "--all", "--config", str(shell.config)]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdin=theirs, stderr=theirs, stdout=theirs)
    os.close(theirs)
    asked = b""
    while b"Go on?" not in asked:
        asked += os.read(ours, 1000)
    os.write(ours, typed.encode() or b"\x04")  # ^D: the end of what is typed
    assert process.wait(30) == code
    os.close(ours)
    assert b"remove every entry" in asked
    assert bool(shell.json("cache", "list")["entries"]) is left


def test_what_has_expired_is_purged_without_a_question(shell: Shell) -> None:
    assert shell.process("cache", "purge", "--expired").code == 0
