"""A listener's TLS certificate, which is renewed while the listener stays open."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography.x509 import load_pem_x509_certificate

LOOK = 60.0  # seconds between looks at the files

_LOG = logging.getLogger("keyserver.tls")

Stamp = tuple[tuple[int, int, int], ...]


def stamp_of(files: Iterable[Path]) -> Stamp:
    """What tells whether any of these files is another one than before; links are followed."""
    found = []
    for file in files:
        try:
            status = file.stat()
            found.append((status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((0, 0, 0))
    return tuple(found)


class TlsCertificate:
    """A certificate chain and its key, in two PEM files.

    `context` stays the same for good: each handshake takes the certificate of that moment, connections that stand are
    not touched, and sessions can be resumed across a renewal. A handshake looks at the files once a minute at most.
    Files that are broken, or do not belong together, change nothing and are named in the log, once."""

    def __init__(self, chain: Path, key: Path | None, monotonic: Callable[[], float]) -> None:
        """Raises OSError, which ssl.SSLError is, where the files cannot be used."""
        self.file, self._key = chain, key
        self.expires: float | None = None
        """When the certificate that was read last does, Unix seconds; None where the file does not say it to us."""
        self._monotonic = monotonic
        self._looked = monotonic()
        self._seen = self._stamp()
        self.context = self._current = self._read()
        self.context.sni_callback = self._choose

    def move(self, chain: Path, key: Path | None) -> bool:
        """From here on these files; see `reload`."""
        self.file, self._key = chain, key
        return self.reload()

    def reload(self) -> bool:
        """Read the files now; False where they cannot be used and what was read before stays."""
        self._looked = self._monotonic()
        self._seen = self._stamp()
        try:
            self._current = self._read()
        except OSError as problem:
            reason = getattr(problem, "reason", None) or problem.strerror or str(problem)
            facts = {"file": str(self.file), "reason": reason}
            _LOG.error("a TLS certificate cannot be read; the one read before stays", extra={"facts": facts})
            return False
        _LOG.info("TLS certificate read", extra={"facts": {"file": str(self.file)}})
        return True

    def look(self) -> None:
        """Read the files again if they are others than last time."""
        self._looked = self._monotonic()
        if self._stamp() != self._seen:
            self.reload()

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """A handshake has begun (OpenSSL calls this for clients that name no server, too)."""
        if self._monotonic() - self._looked >= LOOK:
            self.look()
        connection.context = self._current

    def _stamp(self) -> Stamp:
        return stamp_of(filter(None, (self.file, self._key)))

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # an encrypted key is an error, not a question on the terminal
        context.load_cert_chain(self.file, self._key, password=lambda: b"")
        self.expires = expiry_of(self.file)
        return context


def expiry_of(chain: Path) -> float | None:
    """When the first certificate of a file expires, Unix seconds; None where it cannot be read."""
    try:
        return load_pem_x509_certificate(chain.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError):  # what OpenSSL reads and we do not is still served
        return None
