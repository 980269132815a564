"""The machine: its name for the report, its processors, and the programs that must be there."""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "wrk": "wrk",
    "nginx": "nginx-light",
    "varnishd": "varnish",
    "sks": "sks",
    "slapd": "slapd",
    "gpg": "gnupg",
    "dirmngr": "dirmngr",
}
"""Programs and the Debian packages that bring them."""

SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Missing(Exception):
    """A program that is not here; the text says which package has it."""


@dataclass(frozen=True, slots=True)
class Cpus:
    """Where server and load run; empty: wherever the system likes."""

    server: frozenset[int]
    load: frozenset[int]

    def __str__(self) -> str:
        if not self.server:
            return "server and load on any processor"
        return f"server on processor {min(self.server)}, load and origin on {min(self.load)}"


def cpus() -> Cpus:
    """The first two processors that we may use, one for each side."""
    ours = sorted(os.sched_getaffinity(0))
    if len(ours) < 2:
        return Cpus(frozenset(), frozenset())
    return Cpus(frozenset(ours[:1]), frozenset(ours[1:2]))


def describe() -> str:
    """Processor, system and interpreter in one line."""
    model = re.search(r"model name\s*: (.+)", _read("/proc/cpuinfo"))
    system = re.search(r'PRETTY_NAME="(.+)"', _read("/etc/os-release"))
    virtual = " (virtual)" if re.search(r"^flags.*\bhypervisor\b", _read("/proc/cpuinfo"), re.MULTILINE) else ""
    count = len(os.sched_getaffinity(0))
    return (
        f"{count} × {model[1].strip() if model else platform.machine()}{virtual}, "
        f"{system[1] if system else platform.system()}, Python {platform.python_version()}"
    )


def program(name: str) -> str:
    """Where a program is. Raises Missing."""
    path = shutil.which(name, path=SEARCHED)
    if path is None:
        raise Missing(f"{name} is not installed (Debian package {PACKAGES.get(name, name)})")
    return path


def missing() -> list[str]:
    """What is not installed, as sentences."""
    absent = [name for name in PACKAGES if shutil.which(name, path=SEARCHED) is None]
    return [f"{name} is not installed (Debian package {PACKAGES[name]}): its rows are left out" for name in absent]


def raise_limits() -> int:
    """As many open files as we may have, for us and what we start; how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
