"""What an installation makes for itself at first start, in its state directory: a secret, and the admin token.

Mode 0600, made atomically, so that two processes that start at once agree.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import ipaddress
import os
import secrets
from dataclasses import dataclass
from pathlib import Path


class InstallError(Exception):
    """A file that cannot be made or read; one clear line."""


@dataclass(frozen=True, slots=True)
class Installation:
    """The secrets of one installation; nodes that share a database may share these files."""

    log_secret: bytes
    instance: str  # our name in `Via`, by which a question that comes back is recognised
    token: str  # of the admin API

    @property
    def token_mark(self) -> str:
        """Stands for the token where it is not kept itself; who knows not our secret cannot try tokens on it."""
        return hmac.new(self.log_secret, b"token\0" + self.token.encode(), hashlib.sha256).hexdigest()[:32]


def installation(directory: Path, token_file: Path | None) -> Installation:
    """Read what is there, make what is not. Raises InstallError."""
    secret = _line(directory / "keyserver.secret", secrets.token_hex(32))
    name = hashlib.sha256(b"instance" + secret.encode()).hexdigest()[:16]
    token = _line(token_file or directory / "admin.token", secrets.token_urlsafe(32))
    if len(token) < 16:
        raise InstallError(f"{token_file}: the admin token is shorter than 16 characters")
    return Installation(hashlib.sha256(b"log" + secret.encode()).digest(), f"keyserver-{name}", token)


def proof(token: str, nonce: str, address: str) -> str:
    """Shows that we know the token to somebody who knows it too, and to nobody else what it is.

    nonce: chosen by who asks; address: of the service's end of the connection, so that nobody can pass the question on
    to the service at another address, and the answer back. Guessing a token of one's own choice from the answer is slow
    work (PBKDF2); so is the first call, some 0.1 s."""
    words = b"keyserver admin\0%s\0%s" % (nonce.encode(), address.encode())
    return hmac.new(_stretched(token), words, hashlib.sha256).hexdigest()


@functools.lru_cache(maxsize=1)
def _stretched(token: str) -> bytes:
    return hashlib.pbkdf2_hmac("sha256", token.encode(), b"keyserver admin", 200_000)


def address_of(sockname: object) -> str:
    """One end of a connection, spelled alike at both ends: `127.0.0.1:8371`, or a Unix socket's path."""
    if not isinstance(sockname, tuple):
        return sockname if isinstance(sockname, str) else ""
    host = ipaddress.ip_address(str(sockname[0]).partition("%")[0])
    mapped = host.ipv4_mapped if isinstance(host, ipaddress.IPv6Address) else None
    return f"{mapped or host}:{sockname[1]}"


def _line(path: Path, fresh: str) -> str:
    """The one line of a file, which is made if it does not exist."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "w", encoding="ascii") as file:
                    file.write(fresh + "\n")
                with contextlib.suppress(FileExistsError):  # another process was first: theirs is the one
                    os.link(draft, path)
            finally:
                draft.unlink()
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        raise InstallError(f"{path}: cannot be made or read: {problem}") from problem
    if not text or "\n" in text:
        raise InstallError(f"{path}: should hold one line")
    return text
