"""Containers by podman, with images and volumes of their own, on a machine that need not run systemd."""

from __future__ import annotations

import os
import resource
import ssl
import subprocess
import sys
from pathlib import Path

from support.machine import machine

BASE = "docker.io/library/debian:stable-slim"
"""What Containerfile builds on; here a root file system that mmdebstrap made, under the same name."""


class Podman:
    """podman, buildah and podman-compose see nothing but what lies below `folder`; it is to be closed."""

    def __init__(self, folder: Path) -> None:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        storage, engine = folder / "storage.conf", folder / "containers.conf"
        storage.write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/run"\n',
        )
        # No limit above what a process may have here; control groups without systemd, of either version.
        engine.write_text(
            f'[containers]\ndefault_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]\nlog_driver = "k8s-file"\n'
            '[engine]\ncgroup_manager = "cgroupfs"\nruntime = "runc"\nevents_logger = "file"\n'
            f'tmp_dir = "{folder}/tmp"\n'
        )
        self.environment = os.environ | {"CONTAINERS_STORAGE_CONF": str(storage), "CONTAINERS_CONF": str(engine)}

    def run(self, *words: str, code: int = 0, cwd: Path | None = None) -> str:
        """What a command says on stdout, which ends with this code; a transcript is printed."""
        print("#", *words)
        done = subprocess.run(
            words,
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=400,
        )
        print("\n".join(done.stdout.splitlines()[-12:]))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def base(self) -> None:
        """Make BASE; it trusts the same authorities as this machine, which a package index behind a proxy may need."""
        with machine("ca-certificates") as there:
            trusted = ssl.get_default_verify_paths().cafile
            assert trusted is not None
            (there.root / "etc/ssl/index.crt").write_bytes(Path(trusted).read_bytes())
            (there.root / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/index.crt\n")
            packed = subprocess.Popen(["tar", "-C", there.root, "-c", "."], stdout=subprocess.PIPE)
            command = ["podman", "import", "-", BASE]
            subprocess.run(command, stdin=packed.stdout, stdout=sys.stderr, env=self.environment, check=True)
            assert packed.wait() == 0

    def image(self, tree: Path, *words: str) -> None:
        """`scripts/package image` of a tree: localhost/keyserver."""
        command = [str(tree / "scripts" / "package"), "image", *words]
        subprocess.run(
            command, env=self.environment, check=True, timeout=1700, stdin=subprocess.DEVNULL, stdout=sys.stderr
        )

    def close(self) -> None:
        """Remove every container, image and volume."""
        subprocess.run(["podman", "rm", "--all", "--force"], env=self.environment, capture_output=True)
        subprocess.run(["podman", "system", "reset", "--force"], env=self.environment, capture_output=True)
