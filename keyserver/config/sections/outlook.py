"""The report of what ends soon, sent by itself. Pure."""

from __future__ import annotations

from typing import Annotated

from keyserver.config.fields import Switch
from keyserver.config.kinds import Duration, Many, Whole
from keyserver.config.section import Section, key
from keyserver.query import parse_address

MOST_DAYS = 400
"""As far as a report may look, ahead and back."""


def read_mailbox(text: str) -> str:
    """A mail address that every relay takes. Raises ValueError."""
    address = parse_address(text)
    if address is None or not address.isascii():
        raise ValueError
    return address


class OutlookSection(Section):
    """What ends soon, sent every week or so to whoever runs this; `keyserver outlook` shows the same at any time."""

    digest_to: Annotated[tuple[str, ...], Many("mail addresses in ASCII", read_mailbox)] = key(
        [], "whom it is mailed to, by the relay of `invite.smtp` and from `invite.sender`"
    )
    digest_every: Annotated[int, Duration("1d", "35d")] = key("7d", "how often it is sent")
    digest_webhook: Switch = key(False, "POST it to `events.webhook`, too")
    days: Annotated[int, Whole(1, MOST_DAYS)] = key(
        30, "so many days it looks ahead, and so many back: who was asked for in them counts as in use"
    )
