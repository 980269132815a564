"""What became of an act, said on the page that comes after it: a code and numbers in its URL, and words from here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from keyserver.admin.pages.words import count
from keyserver.store.base import Waiting

PARAMETERS = ("done", "n", "m", "undo")
"""Of a URL: which act, how many, how many not, and by what it can be undone."""

_WORDS: Mapping[str, tuple[str, str]] = {
    "deleted": ("Deleted 1 entry", "Deleted {n} entries"),
    "undone": ("Brought back 1 entry", "Brought back {n} entries"),
    "refreshed": ("Asked the upstreams: 1 has it", "Asked the upstreams: {n} have it"),
    "approved": ("Approved 1 entry", "Approved {n} entries"),
    "kept": ("Kept 1 certificate for good, as local", "Kept {n} certificates for good, as local"),
    "blocked": ("Blocked 1 certificate", "Blocked {n} certificates"),
    "unblocked": ("Unblocked 1 certificate", "Unblocked {n} certificates"),
    "purged": ("Purged 1 entry", "Purged {n} entries"),
    "none": ("Nothing was selected", "Nothing was selected"),
}
_MORE: Mapping[str, str] = {
    "refreshed": "{m} not: upstreams have no news of them, could not be asked, or are left for another time",
    "undone": "{m} not: expired, or something befell them meanwhile",
    "deleted": "more match: do it again",
    "purged": "more match: do it again",
}
_NUMBER = re.compile(r"[0-9]{1,9}")
_UNDO = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Notice:
    """One line above a page. undo: the ID by which the act can be undone."""

    kind: str  # "", warn, bad
    text: str
    undo: str = ""


def after(path: str, done: str, n: int, m: int = 0, undo: str | None = None) -> str:
    """The path of the page that comes next, with what `notices` reads."""
    given = {"done": done, "n": str(n), "m": str(m) if m else "", "undo": undo or ""}
    query = urlencode({name: value for name, value in given.items() if value})
    return f"{path}{'&' if '?' in path else '?'}{query}"


def notices(given: Mapping[str, str], waiting: Sequence[Waiting], now: int) -> Sequence[Notice]:
    """What the parameters of a URL say. Whoever made them up gets words of ours, and undoes nothing by them."""
    words = _WORDS.get(given.get("done", ""))
    if words is None:
        return ()
    n, m = _number(given.get("n", "")), _number(given.get("m", ""))
    text = words[n != 1].format(n=count(n))
    if m:
        text += f"; {_MORE.get(given['done'], '{m} could not be').format(m=count(m))}"
    undo = given.get("undo", "")
    one = next((w for w in waiting if w.id == undo and w.until > now), None) if _UNDO.fullmatch(undo) else None
    if one is not None:
        left = one.until - now
        return (Notice("", f"{text}. It can be undone for {left // 60}:{left % 60:02}.", undo),)
    gone = " It can be undone no more." if undo and given["done"] == "deleted" else ""
    return (Notice("warn" if m or done_nothing(given["done"], n) else "", f"{text}.{gone}"),)


def done_nothing(done: str, n: int) -> bool:
    """Did an act have nothing to act on?"""
    return done == "none" or n == 0


def _number(text: str) -> int:
    return int(text) if _NUMBER.fullmatch(text) else 0
