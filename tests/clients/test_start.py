"""The page Start, typed as it stands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.running import ROOT, Service

PAGE = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")


def test_five_minutes_work_as_pasted(tmp_path: Path) -> None:
    """Every block after the first, one after the other in one shell; only ports, PATH and folders are ours."""
    first, path, *blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.S | re.M)
    assert first == "./scripts/serve\n"
    assert path == 'export PATH="$PWD/.venv/bin:$PATH"\n'
    bin, work = tmp_path / "work" / ".venv" / "bin", tmp_path / "work"
    bin.mkdir(parents=True)
    (bin / "keyserver").write_text(f'#!/bin/sh\nexec {sys.executable} -m keyserver "$@"\n')
    (bin / "keyserver").chmod(0o755)
    (tmp_path / "gpg").mkdir(mode=0o700)
    (tmp_path / "service").mkdir(mode=0o700)
    with Service(tmp_path / "service") as service:
        script = "set -eux\n" + path + "\n".join(blocks) + '\ngpgconf --homedir "$GNUPGHOME" --kill all\n'
        for shown, ours in {
            "127.0.0.1:11371": f"127.0.0.1:{service.port()}",
            "127.0.0.1:1389": f"127.0.0.1:{service.port('ldap')}",
            "var/admin.token": str(tmp_path / "service" / "admin.token"),
        }.items():
            assert shown in script
            script = script.replace(shown, ours)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYSERVER_")}
        environment |= {"GNUPGHOME": str(tmp_path / "gpg"), "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
        environment["KEYSERVER_CACHE__DATABASE"] = service.settings["cache.database"]
        done = subprocess.run(
            ["bash", "-c", script], cwd=work, env=environment, capture_output=True, text=True, timeout=120
        )
        subprocess.run(["gpgconf", "--homedir", str(tmp_path / "gpg"), "--kill", "all"], capture_output=True)
        assert done.returncode == 0, (done.stdout, done.stderr)
        assert "1 asked: 1 yes, 0 no, 0 unknown" in done.stdout
        assert "alice@example.org" in service.cli("cache", "list")
        assert not (work / "alice.asc").exists()
