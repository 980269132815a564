"""The e-mail address in a user ID, by the one strict rule of the product (query.parse_address)."""

from __future__ import annotations

import unicodedata

from keyserver.query import parse_address

_FORBIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def text_of(user_id: bytes) -> str:
    """A user ID as text: UTF-8 as it should be (RFC 9580 section 5.11), else Latin-1. Hostile: escape it."""
    try:
        return user_id.decode()
    except UnicodeDecodeError:
        return user_id.decode("latin-1")


def address_of(user_id: bytes) -> str | None:
    """The normalised address that a user ID claims, or None.

    Either exactly one `<…>`, ending the string, or no bracket and a bare address. No control, format or
    line-separating character anywhere: what a reader cannot see must not decide whose certificate this is.
    """
    text = text_of(user_id)
    if not (text.isascii() and text.isprintable()):
        if any(unicodedata.category(c) in _FORBIDDEN for c in text):
            return None
        if not text.isascii() and not _is_utf8(user_id) and not _ascii_address(text):
            return None
    text = text.strip(" ")
    if "<" not in text and ">" not in text:
        return parse_address(text)
    if text.count("<") != 1 or text.count(">") != 1 or not text.endswith(">"):
        return None
    return parse_address(text[text.index("<") + 1 : -1])


def _is_utf8(user_id: bytes) -> bool:
    try:
        user_id.decode()
    except UnicodeDecodeError:
        return False
    return True


def _ascii_address(text: str) -> bool:
    return text[text.find("<") + 1 :].isascii()
