"""Authentication-Results (RFC 8601): did our own border find that the From domain's owner vouches for this mail?"""

from __future__ import annotations

import re
from collections.abc import Sequence

from keyserver.model import Malformed
from keyserver.query import parse_domain

MAX_VALUE = 16384  # octets of one header field
_TOKEN = re.compile(r"\"(?:[^\"\\]|\\.)*\"|[;=/]|[^\s;=/\"()]+")
_COMMENTS = 20  # nested


def dmarc_passed(values: Sequence[bytes], authserv_id: str, domain: str) -> bool:
    """Does the topmost field of `authserv_id` say dmarc=pass (RFC 7489) for `domain`, an A-label form?

    Fields of other names are passed over, and so are further ones of our name: only the topmost can be ours for sure
    (section 5). Two DMARC results in it, or no header.from, say nothing."""
    for value in values:
        try:
            words = _tokens(value)
        except Malformed:
            continue
        if not words or words[0].strip('"').casefold() != authserv_id.casefold():
            continue
        results = [result for result in _split(words)[1:] if _method(result) == "dmarc"]
        return len(results) == 1 and _passed(results[0], domain)
    return False


def _passed(result: list[str], domain: str) -> bool:
    start = result.index("=")
    if len(result) <= start + 1 or result[start + 1].casefold() != "pass":
        return False
    rest = result[start + 2 :]
    froms = [
        rest[n + 2].strip('"')
        for n in range(len(rest) - 2)
        if rest[n].casefold() == "header.from" and rest[n + 1] == "="
    ]
    return len(froms) == 1 and parse_domain(froms[0].rpartition("@")[2]) == domain


def _method(result: list[str]) -> str:
    """`dmarc` of `dmarc=pass …` and `dmarc/1=pass …`."""
    return result[0].casefold() if len(result) > 2 and result[1] in ("=", "/") and "=" in result else ""


def _split(words: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == ";":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _tokens(value: bytes) -> list[str]:
    """Words, quoted strings, `;`, `=` and `/`; comments are dropped. Raises Malformed."""
    if len(value) > MAX_VALUE:
        raise Malformed("too long")
    text = _without_comments(value.decode("latin-1"))
    words: list[str] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        found = _TOKEN.match(text, at)
        if found is None:
            raise Malformed("not readable")
        words.append(found[0])
        at = found.end()
    return words


def _without_comments(text: str) -> str:
    """Comments become a space; an unbalanced one is no comment but an attempt: Malformed."""
    kept: list[str] = []
    depth, quoted, at = 0, False, 0
    while at < len(text):
        character = text[at]
        if character == "\\" and (depth or quoted):
            if not depth:
                kept.append(text[at : at + 2])
            at += 2
            continue
        if character == '"' and not depth:
            quoted = not quoted
        if character == "(" and not quoted:
            depth += 1
            kept.append(" ")
        elif character == ")" and depth:
            depth -= 1
        elif not depth:
            kept.append(character)
        if depth > _COMMENTS:
            raise Malformed("comments nested too deep")
        at += 1
    if depth or quoted:
        raise Malformed("an open comment or quotation")
    return "".join(kept)
