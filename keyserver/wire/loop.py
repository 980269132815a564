"""How loops between frontends are broken on LDAP: a control that carries the asking instance's name.

HKP has `Via` for this. LDAP has nothing, so a search that we send bears a non-critical control of our own (RFC 4511
section 4.1.11: whoever does not know it ignores it). An instance that finds its own name there answers from its cache
only and marks its SearchResultDone with the same control and the value `LOOP_MARK`.
"""

from __future__ import annotations

LOOP_CONTROL = "2.25.3344128931588016952443709744977563455"  # below 2.25: a UUID of our own (ITU-T X.667), unregistered
LOOP_MARK = b"loop"
MAX_VIA = 255  # octets of an instance's name in the control's value; longer ones are ignored


def via_value(name: str) -> bytes:
    """The control's value in a request: the instance's name in UTF-8, cut to MAX_VIA octets."""
    return name.encode("utf-8", "replace")[:MAX_VIA]
