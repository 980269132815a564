"""Pages typed as they stand: Start, gpg, Backup."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.openpgp import make
from support.running import ROOT, Gpg, Service

DOCS = ROOT / "docs"
ALICE = "alice@example.org"


def blocks_of(name: str, language: str, heading: str = "") -> list[str]:
    """Code of one language on a page, or below one heading of it."""
    text = (DOCS / name).read_text(encoding="utf-8")
    part = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0] if heading else text
    return re.findall(rf"^```{language}\n(.*?)^```", part, re.S | re.M)


@pytest.mark.soak
def test_five_minutes_work_as_pasted(tmp_path: Path) -> None:
    """Every block after the first, one after the other in one shell; only ports, PATH and folders are ours."""
    first, path, *blocks = blocks_of("start.md", "sh")
    assert first == "./scripts/serve\n"
    assert path == 'export PATH="$PWD/.venv/bin:$PATH"\n'
    bin, work = tmp_path / "work" / ".venv" / "bin", tmp_path / "work"
    bin.mkdir(parents=True)
    (bin / "keyserver").write_text(f'#!/bin/sh\nexec {sys.executable} -m keyserver "$@"\n')
    (bin / "keyserver").chmod(0o755)
    (tmp_path / "gpg").mkdir(mode=0o700)
    (tmp_path / "service").mkdir(mode=0o700)
    # A home of gpg's in a long folder's name has no room for its agent's socket.
    with tempfile.TemporaryDirectory(dir="/tmp") as short, Service(tmp_path / "service") as service:
        script = "set -eux\n" + path + "\n".join(blocks) + '\ngpgconf --homedir "$GNUPGHOME" --kill all\n'
        for shown, ours in {
            "127.0.0.1:11371": f"127.0.0.1:{service.port()}",
            "127.0.0.1:1389": f"127.0.0.1:{service.port('ldap')}",
            "var/admin.token": str(tmp_path / "service" / "admin.token"),
        }.items():
            assert shown in script
            script = script.replace(shown, ours)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSERVER_")}
        environment |= {"GNUPGHOME": str(tmp_path / "gpg"), "PYTHONPATH": str(ROOT), "TMPDIR": short}
        environment["KEYSERVER_CACHE__DATABASE"] = service.settings["cache.database"]
        done = subprocess.run(
            ["bash", "-c", script], cwd=work, env=environment, capture_output=True, text=True, timeout=120
        )
        subprocess.run(["gpgconf", "--homedir", str(tmp_path / "gpg"), "--kill", "all"], capture_output=True)
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert "1 asked: 1 yes, 0 no, 0 unknown" in done.stdout
        assert "alice@example.org" in service.cli("cache", "list")
        assert not (work / "alice.asc").exists()


def test_gpg_configured_as_documented(tmp_path: Path) -> None:
    """`gpg -r` finds who is not in its keyring."""
    dirmngr, gpg_conf = blocks_of("clients.md", "text", "## gpg")
    (tmp_path / "alice.gpg").write_bytes(make([f"Alice <{ALICE}>"]).octets)
    with Service(tmp_path) as service, Gpg(tmp_path / "gpg") as gpg:
        service.cli("cache", "import", str(tmp_path / "alice.gpg"))
        assert "ldap://keys.example.com:1389" in dirmngr
        ours = dirmngr.replace("keys.example.com:1389", f"127.0.0.1:{service.port('ldap')}")
        with (gpg.home / "dirmngr.conf").open("a") as file:
            file.write(ours)
        (gpg.home / "gpg.conf").write_text(gpg_conf)
        (tmp_path / "mail").write_text("Hello")
        gpg.run("--trust-model", "always", "-r", ALICE, "--encrypt", str(tmp_path / "mail"))
        assert (tmp_path / "mail.gpg").exists()


def test_a_backup_comes_back_as_documented(tmp_path: Path) -> None:
    """Made while the service runs; only folders, owner and systemctl are ours."""
    backup, restore, _ = blocks_of("backup.md", "sh")
    (tmp_path / "alice.gpg").write_bytes(make([f"Alice <{ALICE}>"]).octets)
    places = {"/var/lib/keyserver": str(tmp_path), "/var/backups": str(tmp_path / "backups")}
    (tmp_path / "backups").mkdir()

    def typed(script: str) -> None:
        for shown, ours in places.items():
            script = script.replace(shown, ours)
        script = re.sub(r"^systemctl .*$", "", script, flags=re.M).replace("-o keyserver -g keyserver ", "")
        subprocess.run(["sh", "-eu", "-c", script], check=True, timeout=60)

    with Service(tmp_path) as service:
        service.cli("cache", "import", str(tmp_path / "alice.gpg"))
        typed(backup)
        service.cli("cache", "delete", ALICE, "--no-undo")
        assert ALICE not in service.cli("cache", "list")
        service.stop()
        typed(restore)
        service.start()
        assert ALICE in service.cli("cache", "list")
