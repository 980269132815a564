"""The e-mail address in a user ID, by the one strict rule of the product (query.parse_address)."""

from __future__ import annotations

import re

from keyserver.query import parse_address

_ESCAPED = re.compile(r"\\.", re.DOTALL)


def text_of(user_id: bytes) -> str:
    """A user ID as text: UTF-8 as it should be (RFC 9580 section 5.11), else Latin-1. Hostile: escape it."""
    try:
        return user_id.decode()
    except UnicodeDecodeError:
        return user_id.decode("latin-1")


def address_of(user_id: bytes) -> str | None:
    """The normalised address that a user ID claims, or None.

    Either the only `<…>` in it, whatever the name before or the text behind, or a bare address. Programs that encrypt
    read what stands between the brackets; what may be read in two ways, a second bracket or one in quotes, is none.
    """
    text = text_of(user_id)
    claimed = _claimed(text)
    if claimed is None or not (claimed.isascii() or _is_utf8(user_id)):
        return None
    return parse_address(claimed)


def _claimed(text: str) -> str | None:
    """What stands in the only angle brackets, or all there is."""
    if "<" not in text and ">" not in text:
        return text.strip(" ")
    before, _, rest = text.partition("<")
    inside, closing, behind = rest.partition(">")
    if not closing or "<" in rest or ">" in behind:
        return None
    open_quote = _ESCAPED.sub("", before).count('"') % 2
    return None if open_quote and '"' in behind else inside


def _is_utf8(user_id: bytes) -> bool:
    try:
        user_id.decode()
    except UnicodeDecodeError:
        return False
    return True
