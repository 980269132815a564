"""A stream of X.509 certificates, PEM (RFC 7468) or one DER value, cut into pieces in bounded memory.

Only the framing is read: what a certificate proves, and whether it is any good, is for the S/MIME layer to say.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator

from keyserver.model import Cut, Piece, Skipped

HEAD = 16384
"""Octets at a stream's beginning that tell what it is: `openssl` writes all of a certificate as text before a block."""

_BEGIN, _END, _DASHES = b"-----BEGIN ", b"-----END ", b"-----"
_LABELS = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"PKCS7", b"CMS"})


def is_x509(head: bytes) -> bool:
    """Does a stream that begins so hold X.509 certificates rather than an OpenPGP keyring?"""
    return head.startswith(b"\x30") or (_BEGIN in head and _BEGIN + b"PGP" not in head)


class Blocks:
    """Feed octets as they come, take DER certificates or PKCS#7 out; `end` after the last. Never raises.

    cap: octets of one block; a larger one is skipped."""

    def __init__(self, cap: int) -> None:
        self._cap = cap
        self._held = bytearray()
        self._der: bool | None = None  # not known before the first octet

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The blocks that are complete now. Exhaust the iterator before feeding more."""
        self._held += data
        if self._der is None and self._held:
            self._der = self._held.startswith(b"\x30")
        if self._der:
            del self._held[self._cap + 1 :]  # one octet more tells `end` that it is too large
            return
        while (block := self._next()) is not None:
            yield block

    def end(self) -> Iterator[Piece]:
        """The stream is over: what is left, if it is whole."""
        if self._der and len(self._held) <= self._cap:
            yield Cut(bytes(self._held))
        elif self._der or _BEGIN in self._held:
            yield Skipped("larger than any certificate" if self._der else "the last block is cut off")
        self._held.clear()

    def _next(self) -> Piece | None:
        """The first whole block in what is held."""
        begin = self._held.find(_BEGIN)
        if begin < 0:
            del self._held[: -len(_BEGIN)]
            return None
        del self._held[:begin]
        stop = self._over()
        if stop is None or stop > self._cap:  # also where all of it came at once
            if len(self._held) <= self._cap:
                return None
            del self._held[: self._cap + 2 - len(_BEGIN)]
            return Skipped("larger than any certificate")
        if self._held.endswith(_BEGIN, 0, stop):
            del self._held[: stop - len(_BEGIN)]
            return Skipped("a PEM block without its END line")
        block = bytes(self._held[:stop])
        del self._held[:stop]
        label, _, rest = block[len(_BEGIN) :].partition(_DASHES)
        if label not in _LABELS:
            private = label.endswith(b"PRIVATE KEY")
            return Skipped("a private key: not stored" if private else "a PEM block that is no certificate")
        try:
            return Cut(binascii.a2b_base64(rest.partition(_END)[0]))
        except binascii.Error:
            return Skipped("a damaged PEM block")

    def _over(self) -> int | None:
        """Where that shows that the block at the beginning is over: behind its END line, or another BEGIN before it."""
        end, begin = self._held.find(_END), self._held.find(_BEGIN, len(_BEGIN))
        if begin >= 0 and not 0 <= end < begin:
            return begin + len(_BEGIN)
        dashes = self._held.find(_DASHES, end + len(_END)) if end >= 0 else -1
        return dashes + len(_DASHES) if dashes >= 0 else None
