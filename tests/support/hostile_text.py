"""Texts that would do harm on a page that shows them as they come."""

from __future__ import annotations

NASTY = (
    "<script>alert(1)</script> <evil@example.org>",
    '"><img src=x onerror=alert(1)> <evil@example.org>',
    "\u202egro.elpmaxe@live\u202c <evil@example.org>",
    "Eve\u2066\u200b\ufeff {{7*7}} {% raw %} ${x} <evil@example.org>",
    "z" + "\u0301" * 400 + " <evil@example.org>",
    "N" * 10_000 + " <evil@example.org>",
)

FORBIDDEN = ("<script>alert", "<img src=x", "\u202e", "\u2066", "\u200b", "\ufeff", "\u0301" * 4, "N" * 400, ">49<")
"""None of this stands on a page that shows the texts above."""


def harmless(page: str) -> bool:
    """Does a page show none of it?"""
    return not any(text in page for text in FORBIDDEN)
