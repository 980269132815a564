"""Web Key Directory without sockets: the hash of a local part, and the two forms of a request's target.

draft-koch-openpgp-webkey-service-21 §3.1.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote

ROOT = "/.well-known/openpgpkey"
HOST = "openpgpkey"
"""The label before the domain: the advanced method's host is `openpgpkey.example.org`."""

_LETTERS = "ybndrfg8ejkmcpqxot1uwisza345h769"  # z-base-32 (RFC 6189 §5.1.6)
_UPPER = {ord(c): c.lower() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_HASH = re.compile(rf"[{_LETTERS}]{{32}}\Z")


def hash_of(local: str) -> str:
    """z-base-32 of the SHA-1 of a local part, ASCII letters in lower case, all others unchanged: 32 characters."""
    number = int.from_bytes(hashlib.sha1(local.translate(_UPPER).encode(), usedforsecurity=False).digest(), "big")
    return "".join(_LETTERS[number >> shift & 31] for shift in range(155, -1, -5))


def is_hash(text: str) -> bool:
    """May this be such a hash? They are in lower case."""
    return _HASH.match(text) is not None


def advanced(domain: str, local: str) -> str:
    """The target to ask `openpgpkey.<domain>` for. `domain`: in lower case; `local`: as the user wrote it."""
    return f"{ROOT}/{domain}/hu/{hash_of(local)}?l={quote(local, safe='')}"


def direct(local: str) -> str:
    """The target to ask the domain's own host for."""
    return f"{ROOT}/hu/{hash_of(local)}?l={quote(local, safe='')}"
