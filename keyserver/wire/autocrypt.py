"""The Autocrypt header (Autocrypt Level 1, section "The Autocrypt Header"): an OpenPGP key beside the mail."""

from __future__ import annotations

import binascii
from collections.abc import Sequence

from keyserver.model import Malformed
from keyserver.query import parse_address

MAX_KEY = 64 << 10  # octets; senders are told to stay below 10 KiB
_KNOWN = frozenset({"addr", "prefer-encrypt", "keydata"})


def key_of(values: Sequence[bytes], address: str) -> bytes | None:
    """The key that the one valid Autocrypt header for `address` carries; None where there is none, or more than one."""
    keys = []
    for value in values:
        try:
            keys.append(read(value, address))
        except Malformed:
            continue
    return keys[0] if len(keys) == 1 else None


def read(value: bytes, address: str) -> bytes:
    """The key of one header. Raises Malformed where the header has to be ignored: another address, an attribute that
    is unknown and critical (no `_` before its name), a name given twice, keydata that is no base64."""
    attributes: dict[str, bytes] = {}
    for pair in value.split(b";"):
        name_octets, equals, content = pair.partition(b"=")
        name = name_octets.strip().decode("latin-1").lower()
        if not name and not equals:
            continue
        if not equals or name in attributes:
            raise Malformed("an attribute without a value, or twice")
        if name not in _KNOWN and not name.startswith("_"):
            raise Malformed("an unknown critical attribute")
        attributes[name] = content.strip()
    if parse_address(attributes.get("addr", b"").decode("utf-8", "replace")) != address:
        raise Malformed("the header is for another address")
    if attributes.get("prefer-encrypt", b"mutual") not in (b"mutual", b"nopreference"):
        attributes.pop("prefer-encrypt")  # any other value counts as no preference
    data = b"".join(attributes.get("keydata", b"").split())
    if not data or len(data) > MAX_KEY * 4 // 3 + 4:
        raise Malformed("no key, or one of more than 64 KiB")
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except binascii.Error:
        raise Malformed("keydata is not base64") from None
