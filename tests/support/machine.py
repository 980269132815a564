"""A clean machine: a root file system of Debian packages alone, in which commands run as on a machine of its own.

Nothing of the tests' Python is seen there. It has this machine's network, and no service manager.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

RELEASE = dict(
    line.split("=", 1) for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line
)
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


class Machine:
    """Its root is `root`; what was typed there, and what came of it, is printed for a transcript."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = dict(ENVIRONMENT)

    def command(self, *words: str) -> list[str]:
        """The command line on this machine of one there: with processes and mounts of its own."""
        terminals = 'mount -t devpts -o newinstance,ptmxmode=666 devpts "$0/dev/pts"; exec chroot "$0" "$@"'
        inside = ["sh", "-ec", terminals, str(self.root), *words]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={self.root}/proc", *inside]

    def run(self, *words: str, code: int = 0, shown: int = 12, environment: dict[str, str] | None = None) -> str:
        """Both outputs of a command that ends with this code; the transcript has the last `shown` lines of them."""
        print("#", " ".join(words))
        done = subprocess.run(
            self.command(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=400,
            env=self.environment | (environment or {}),
        )
        lines = done.stdout.splitlines()
        print("\n".join(lines[-shown:] if shown else []))
        assert done.returncode == code, done.stdout
        return done.stdout

    def shell(self, line: str, code: int = 0) -> str:
        """Of one line of sh."""
        return self.run("sh", "-c", line, code=code)

    def run_as(self, user: str, *words: str) -> str:
        """Of a command that this user runs in /var/lib of its name."""
        return self.run(*_as(user), *words)

    def bring(self, file: Path) -> str:
        """Copy a file of ours to /root; its name there."""
        shutil.copy(file, self.root / "root" / file.name)
        return f"/root/{file.name}"

    @contextmanager
    def serving(self, *words: str, user: str) -> Iterator[subprocess.Popen[str]]:
        """A service as this user, in /var/lib of its name, until the block ends (SIGTERM); its stderr is a pipe."""
        print("#", " ".join([*_as(user), *words]), "&")
        with subprocess.Popen(
            ["chroot", str(self.root), *_as(user), *words], stderr=subprocess.PIPE, text=True, env=self.environment
        ) as service:
            try:
                yield service
                service.terminate()
                assert service.wait(30) == 0
            finally:
                service.kill()


def _as(user: str) -> list[str]:
    return f"setpriv --reuid {user} --regid {user} --init-groups env --chdir=/var/lib/{user}".split()


@contextmanager
def machine(*packages: str) -> Iterator[Machine]:
    """One with these Debian packages, of the release that runs the tests, until the block ends."""
    assert os.geteuid() == 0, "a root file system is made by root"
    suite = RELEASE["VERSION_CODENAME"]
    with TemporaryDirectory(prefix="keyserver-machine-") as folder:
        root = Path(folder) / "root"
        made_by: Sequence[str] = (
            "mmdebstrap",
            "--quiet",
            "--mode=root",
            "--variant=apt",
            "--format=directory",
            f"--include={','.join(packages)}",
            suite,
            str(root),
        )
        print("$", " ".join(made_by[:-1]), "ROOT")
        subprocess.run(made_by, check=True, timeout=1200, stdin=subprocess.DEVNULL)
        root.chmod(0o755)
        Path(folder).chmod(0o755)
        shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
        (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
        yield Machine(root)
