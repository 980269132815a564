"""Which invitation a Message-ID is of. Pure."""

from __future__ import annotations

import re

from keyserver.invite.composing import MARK

_OURS = re.compile(rf"<([0-9a-f]{{32}}){re.escape(MARK)}[^<>@\s]+>")


def of_message_id(message_id: str) -> str:
    """The ID of the invitation whose mail bears this Message-ID (with brackets); empty for any other mail."""
    found = _OURS.fullmatch(message_id)
    return found[1] if found else ""
