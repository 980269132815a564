"""Sections whose parts do not exist yet. Their names are fixed: a file that spells out the defaults loads today.

As a part is built, its section moves beside the others in `models`.
"""

from __future__ import annotations

from typing import Annotated, Any

from keyserver.config.kinds import (
    File,
    Flag,
    Listen,
    Many,
    Text,
)
from keyserver.config.listener import Listener
from keyserver.config.section import Section, key

_Switch = Annotated[bool, Flag()]
_Listener = Annotated[Listener | None, Listen()]
_Words = Annotated[tuple[str, ...], Many("words", str)]
_Line = Annotated[str, Text("a line of text")]
_File = Annotated[Any, File("a file")]


class EventsSection(Section):
    """The feed of changes."""

    webhook: _Line = key("", "HTTPS URL to which each event is POSTed", built=False)
    webhook_secret_file: _File = key("", "key of the HMAC-SHA256 that signs them", built=False)
