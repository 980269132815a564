"""The unit that we ship, judged by systemd, and its command run as the unit runs it."""

from __future__ import annotations

import ctypes
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from support.running import ROOT

UNIT = (ROOT / "conf" / "keyserver.service").read_text(encoding="utf-8")
MOST_EXPOSED = 2.0
"""Of 10, as `systemd-analyze security` counts."""

PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1  # <linux/prctl.h>, since Linux 6.3


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit with a command that is there."""
    unit = tmp_path / "keyserver.service"
    unit.write_text(UNIT.replace("=keyserver serve ", f"={sys.executable} -m keyserver serve "))
    return unit


def analyze(*words: str) -> str:
    done = subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_finds_no_mistake(installed: Path) -> None:
    assert analyze("verify", "--man=no", str(installed)) == ""


def test_exposure(installed: Path) -> None:
    said = analyze("security", "--offline=true", "--no-pager", str(installed))
    found = re.search(r"Overall exposure level for keyserver.service: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= MOST_EXPOSED


def test_what_it_starts_gets_ready_without_memory_to_write_code_into(tmp_path: Path) -> None:
    """ExecStart with another configuration, under what MemoryDenyWriteExecute asks of the kernel."""
    config = tmp_path / "keyserver.toml"
    config.write_text(
        '[hkp]\nlisten = ["127.0.0.1:0"]\n[ldap]\nlisten = []\n[admin]\nlisten = "127.0.0.1:0"\n[server]\nworkers = 1\n'
        '[cache]\ndatabase = "sqlite:///keyserver.db"\n'
    )
    [command] = re.findall(r"^ExecStart=(.+)$", UNIT, re.M)
    first, *rest = command.split()
    assert (first, rest[-1]) == ("keyserver", "/etc/keyserver/keyserver.toml")
    words = [sys.executable, "-m", first, *rest[:-1], str(config)]
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(20)
    environment = {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
    prctl = ctypes.CDLL(None).prctl
    with (
        manager,
        subprocess.Popen(
            words,
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0),
        ) as service,
    ):
        try:
            while not manager.recv(4096).startswith(b"READY=1"):
                pass
            service.send_signal(signal.SIGTERM)
            assert service.wait(20) == 0
        finally:
            service.kill()


def test_signals_and_names_agree_with_the_service() -> None:
    settings = dict(line.split("=", 1) for line in UNIT.splitlines() if re.match(r"[A-Z]\w+=", line))
    assert settings["Type"] == "notify"
    assert settings["NotifyAccess"] == "main", "with several processes the supervisor speaks for all"
    assert "kill -HUP $MAINPID" in settings["ExecReload"]
    assert settings["WatchdogSec"] == "30s"
    assert settings["AmbientCapabilities"] == settings["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
