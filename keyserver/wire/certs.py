"""The queries of a certificate store over HTTP (RFC 4387 section 2.1): attributes, and hashes in base64."""

from __future__ import annotations

import base64
import re

HASHES = {name.lower(): name for name in ("certHash", "iHash", "sHash", "iAndSHash", "sKIDHash")}
"""The attributes that are SHA-1 hashes, by their names in lower case."""
_BASE64 = re.compile(r"[A-Za-z0-9+/]{27}\Z")  # a SHA-1 value; any other character is refused (section 2.1)


def read_hash(text: str) -> str:
    """The hex digits (upper case) of a hash in base64 without padding. Raises ValueError with what is accepted."""
    if not _BASE64.match(text):
        raise ValueError("a SHA-1 value in base64: 27 letters, digits, + and /, without padding")
    return base64.b64decode(text + "=").hex().upper()


def hash_text(digits: str) -> str:
    """A hash, given in hex digits, in base64 without padding."""
    return base64.b64encode(bytes.fromhex(digits)).decode().rstrip("=")
