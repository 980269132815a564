"""The e-mail address in a user ID, by the one strict rule of the product (query.parse_address)."""

from __future__ import annotations

import unicodedata

from keyserver.query import bracketed, parse_address


def text_of(user_id: bytes) -> str:
    """A user ID as text: UTF-8 as it should be (RFC 9580 section 5.11), else Latin-1. Hostile: escape it."""
    try:
        return user_id.decode()
    except UnicodeDecodeError:
        return user_id.decode("latin-1")


def address_of(user_id: bytes) -> str | None:
    """The normalised address that a user ID claims, or None.

    What stands in exactly one pair of angle brackets, whatever is around it; or, without any bracket, the whole text.
    The rule is strict about the address itself (`parse_address`): a name may hold joiners, emoji and marks of writing
    direction, since it does not decide whose certificate this is; control characters and line separators it may not.
    """
    text = text_of(user_id)
    if any(unicodedata.category(c) in _BREAKS for c in text):
        return None
    address = bracketed(text) if "<" in text or ">" in text else text.strip(" ")
    if address is None or not (address.isascii() or _is_utf8(user_id)):
        return None
    return parse_address(address)


_BREAKS = frozenset({"Cc", "Cs", "Zl", "Zp"})


def _is_utf8(user_id: bytes) -> bool:
    try:
        user_id.decode()
    except UnicodeDecodeError:
        return False
    return True
