"""A copy without the user IDs that nobody may speak for, as WKD clients cut what a directory sends them.

Only octets that `clean` or `merge` made may come in. Subkeys, the primary's own signatures and revocations stay.
"""

from __future__ import annotations

from collections.abc import Container

from keyserver.openpgp import packets
from keyserver.openpgp.parts import read, write
from keyserver.openpgp.userid import text_of


def cut(octets: bytes, texts: Container[str]) -> bytes:
    """The certificate without the user IDs that say one of these texts."""
    parts = read(octets)
    parts.components = {
        place: component
        for place, component in parts.components.items()
        if component.tag != packets.USER_ID or text_of(component.body) not in texts
    }
    return write(parts)
