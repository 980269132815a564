"""Host names, and a trusted authority, for programs that a test starts: files of /etc that nobody else sees.

The program runs in a mount namespace of its own, for which the tests need root, as for ports below 1024."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_ENTER = 'while [ "$1" != -- ]; do mount --bind "$1" "$2" && shift 2 || exit 99; done; shift; exec "$@"'
_NXDOMAIN = b"\x85\x83"  # an authoritative answer: no such name
NAMESERVER = "127.0.0.45"


@contextmanager
def among(folder: Path, names: Mapping[str, str], ca_file: Path) -> Iterator[list[str]]:
    """What to put before a command, for which names (name -> address) resolve so and no other exists, and which trusts
    one authority."""
    folder.mkdir(parents=True, exist_ok=True)
    hosts = "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **names}.items())
    files = {
        "/etc/hosts": hosts,
        "/etc/nsswitch.conf": "hosts: files\n",
        "/etc/resolv.conf": f"nameserver {NAMESERVER}\noptions timeout:1 attempts:1\n",  # of SRV records
        "/etc/ssl/certs/ca-certificates.crt": ca_file.read_text(),
    }
    mounts: list[str] = []
    for where, text in files.items():
        file = folder / Path(where).name
        file.write_text(text)
        mounts += [str(file), where]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((NAMESERVER, 53))
        thread = threading.Thread(target=_answer, args=(sock,), daemon=True)
        thread.start()
        try:
            yield ["unshare", "--mount", "sh", "-c", _ENTER, "sh", *mounts, "--"]
        finally:
            sock.sendto(b"", sock.getsockname())
            thread.join(5)


def _answer(sock: socket.socket) -> None:
    """Say to every question that there is no such name, until an empty datagram comes."""
    with contextlib.suppress(OSError):
        while True:
            question, client = sock.recvfrom(4096)
            if not question:
                return
            sock.sendto(question[:2] + _NXDOMAIN + b"\0\x01" + bytes(6) + _asked(question), client)


def _asked(question: bytes) -> bytes:
    """The first question of a message: a name, type and class (RFC 1035 section 4.1.2)."""
    end = question.find(b"\0", 12) + 5
    return question[12:end]
