"""Why nobody was invited."""

from __future__ import annotations


class NotInvited(Exception):
    """Nothing was sent, or nothing has arrived at the relay; the text is for the administrator."""
