"""Sections whose parts do not exist yet. Their names are fixed: a file that spells out the defaults loads today.

As a part is built, its section moves beside the others in `models`.
"""

from __future__ import annotations

from typing import Annotated, Any

from keyserver.config.kinds import (
    Choice,
    Duration,
    File,
    Flag,
    Listen,
    Many,
    Size,
    Text,
    Whole,
)
from keyserver.config.listener import Listener
from keyserver.config.section import Section, key

_Switch = Annotated[bool, Flag()]
_Listener = Annotated[Listener | None, Listen()]
_Words = Annotated[tuple[str, ...], Many("words", str)]
_Line = Annotated[str, Text("a line of text")]
_File = Annotated[Any, File("a file")]


class HistorySection(Section):
    """What changed and when."""

    keep: Annotated[int, Duration("0", "3650d")] = key("400 days", "how long; 0: off", built=False)
    max_size: Annotated[int, Size("1 KiB", "1024 TiB")] = key("1 GiB", "how much", built=False)


class EventsSection(Section):
    """The feed of changes."""

    webhook: _Line = key("", "HTTPS URL to which each event is POSTed", built=False)
    webhook_secret_file: _File = key("", "key of the HMAC-SHA256 that signs them", built=False)


class InviteSection(Section):
    """Owners of cached certificates may opt in."""

    listen: _Listener = key("", "where they answer", built=False)
    public_url: _Line = key("", "under which it is reached", built=False)
    smtp: _Line = key("", "relay for invitations", built=False)
    smtp_user: _Line = key("", "who we are there", built=False)
    smtp_password_file: _File = key("", "the password to it", built=False)
    smtp_tls: Annotated[str, Choice(("required",))] = key("required", "TLS to the relay", built=False)
    sender: _Line = key("", "address that invitations come from", built=False)
    expires: Annotated[int, Duration("1h", "365d")] = key("14 days", "of an invitation", built=False)
    per_hour: Annotated[int, Whole(0, 1_000_000)] = key(60, "invitations at most", built=False)
    automatic: _Switch = key(False, "invite by itself", built=False)
    trailer_listen: _Listener = key("", "a milter for outbound plain-text mail", built=False)
    tls_certificate: _File = key("", 'certificate for "tls:" listeners', built=False)
    tls_key_file: _File = key("", "private key to it", built=False)
