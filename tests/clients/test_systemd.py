"""The unit that we ship, judged by systemd, and its command run as the unit runs it."""

from __future__ import annotations

import contextlib
import ctypes
import os
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
PR_CAPBSET_DROP, CAP_SETPCAP, CAP_NET_BIND_SERVICE = 24, 8, 10  # <linux/capability.h>


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
    [version] = re.findall(r"\Asystemd (\d+)", analyze("--version"))
    for page in ("operating", "installing"):
        text = " ".join((ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").split())
        [(figure, by)] = re.findall(r"exposure of ([0-9.]+) of 10 \(systemd (\d+)\)", text)
        assert figure == found[1] or by != version, page


def low_port() -> int:
    """One that only root, or who has the capability, may open; without the right to try, any."""
    if os.geteuid() != 0:
        return 0
    for port in range(600, 1000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all taken")


def as_the_unit() -> None:
    """What MemoryDenyWriteExecute and CapabilityBoundingSet ask of the kernel, of a root that has the latter alone."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
    for capability in sorted(set(range(64)) - {CAP_NET_BIND_SERVICE}, key=lambda one: one == CAP_SETPCAP):
        prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_what_it_starts_gets_ready_with_what_the_unit_leaves_it(tmp_path: Path) -> None:
    """ExecStart with another configuration: a low port, one capability, and no memory to write code into."""
    config = tmp_path / "keyserver.toml"
    config.write_text(
        f'[hkp]\nlisten = ["127.0.0.1:{low_port()}"]\n[ldap]\nlisten = []\n[admin]\nlisten = "127.0.0.1:0"\n'
        '[server]\nworkers = 1\n[cache]\ndatabase = "sqlite:///keyserver.db"\n'
    )
    [command] = re.findall(r"^ExecStart=(.+)$", UNIT, re.M)
    first, *rest = command.split()
    assert (first, rest[-1]) == ("keyserver", "/etc/keyserver/keyserver.toml")
    words = [sys.executable, "-m", first, *rest[:-1], str(config)]
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(20)
    environment = {"PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
    with (
        manager,
        subprocess.Popen(
            words,
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.DEVNULL,
            preexec_fn=as_the_unit,
        ) as service,
    ):
        try:
            while not manager.recv(4096).startswith(b"READY=1"):
                pass
            if os.geteuid() == 0:
                status = Path(f"/proc/{service.pid}/status").read_text()
                assert int(re.findall(r"^CapEff:\s(\w+)$", status, re.M)[0], 16) == 1 << CAP_NET_BIND_SERVICE
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
    assert int(settings["LimitNOFILE"]) > 65_536, "the connections of one HTTP listener"
    assert settings["WantedBy"] == "multi-user.target"
    assert settings["AmbientCapabilities"] == settings["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
