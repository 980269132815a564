"""Which names a store takes: the same for each, whatever its database could hold besides."""

from __future__ import annotations

from keyserver.model import Name

MOST = 2000
"""Octets of a name: PostgreSQL refuses a key of an index above 2,704. Only free text is ever longer."""


def fits(name: Name) -> bool:
    """Can it be a key, as it is? Anything else is never put, and so never found."""
    try:
        return len(name.encode()) <= MOST and "\0" not in name
    except UnicodeEncodeError:
        return False
