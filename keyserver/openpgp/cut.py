"""A copy without the user IDs that nobody may speak for, as WKD clients cut what a directory sends them.

Only octets that `clean` or `merge` made may come in. Subkeys, the primary's own signatures and revocations stay.
"""

from __future__ import annotations

from collections.abc import Callable

from keyserver.model import Claim
from keyserver.openpgp import packets
from keyserver.openpgp.parts import read, write
from keyserver.openpgp.proof import claim_of


def cut(octets: bytes, stays: Callable[[Claim], bool]) -> bytes:
    """The certificate with only those user IDs of which `stays` is true."""
    parts = read(octets)
    parts.components = {
        place: component
        for place, component in parts.components.items()
        if component.tag != packets.USER_ID or stays(claim_of(component))
    }
    return write(parts)
