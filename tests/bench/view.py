"""What a process takes for the names of hosts: its own /etc/hosts and /etc/resolv.conf, in a mount namespace."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.machine import Missing

_SHOWN = """
mount --bind "$1/hosts" /etc/hosts
mount --bind "$1/resolv.conf" /etc/resolv.conf
shift
exec "$@"
"""


class View:
    """Hosts by name, and the address of the name server for all others (none: nobody answers)."""

    def __init__(self, folder: Path, hosts: Mapping[str, str] | None = None, resolver: str = "127.0.0.254") -> None:
        """Its two files go to `folder`. Raises Missing where we may not make namespaces."""
        if os.geteuid():
            raise Missing("names of our own need a mount namespace, which takes root")
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in (hosts or {}).items())]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        (folder / "resolv.conf").write_text(f"nameserver {resolver}\noptions timeout:1 attempts:2\n")
        self.command: Sequence[str] = ("unshare", "-m", "sh", "-ec", _SHOWN, "sh", str(folder))
        """Before the words of a command that is to see this."""
