"""Text as directories compare it: the string preparation of RFC 4518, for values of attributes, filters and names.

Left out are its prohibitions (section 2.4): what a filter may not contain compares like everything else here, and finds
nothing. Runs of spaces become one instead of two (section 2.6.1), as in OpenLDAP.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

REMEMBERED = 256  # texts beyond ASCII last prepared, which takes long: a filter has the same one many times

_NOTHING = re.compile(
    "[\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u06dd\u070f\u1806\u180b-\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u2063\u206a-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffc\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f]"
)
"""What is mapped to nothing (RFC 4518 section 2.2)."""
_SPACES = re.compile(r"\s+")


def prepare(text: str, *, case: bool = False) -> str:
    """A text in the form in which equal ones are equal but for spaces at their ends, which only whole values ignore.

    Invisible characters go, runs of spaces are one, compatible forms are the same (NFKC), and so is case unless it
    counts (`case`).
    """
    if text.isascii() and text.isprintable():
        return _SPACES.sub(" ", text if case else text.lower())
    return _prepare(text, case)


@lru_cache(REMEMBERED)
def _prepare(text: str, case: bool) -> str:
    mapped = _NOTHING.sub("", text)
    if not case:  # RFC 3454 table B.2: folded, normalised, and folded again where that brought capitals
        mapped = unicodedata.normalize("NFKC", mapped).casefold()
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", mapped))
