"""Who a mail says it is from: one From field in which one address can be meant, or nobody (RFC 5322 section 3.6.2).

Names are read as mailers write them, addresses strictly: a reader and a filter that understand one header differently
are how another's name is borrowed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from keyserver.model import Malformed
from keyserver.query import parse_address

MAX_FROM = 2000  # octets
_MAX_COMMENTS = 20  # nested
_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-\u0080-\U0010FFFF]+")
_SPACE = " \t"
_DOTS = ".\u3002\uff0e\uff61"  # all that some reader of domain names takes for one
_AROUND_DOT = re.compile(rf" ?([{_DOTS}]) ?")
_LIKE_ADDRESS = re.compile(r'([^ "<>,;:@\[\]]*)( ?@ ?)(\[|[^ "<>,;:@\[\]]*)')


def one_mailbox(values: Sequence[bytes]) -> str:
    """The normalised address in the From field. Raises Malformed with the reason why there is none.

    Accepted are `address`, `<address>`, `words <address>`, with quoted words and comments anywhere between; encoded
    words are words. The words may have commas, a colon and `@` in them, though not quoted, as long as nothing among
    them can be read as another address. Not accepted: several fields or mailboxes, groups, routes, an address without
    a dot in its domain."""
    if len(values) != 1:
        raise Malformed("no From header" if not values else f"{len(values)} From headers")
    if len(values[0]) > MAX_FROM:
        raise Malformed("a From header of more than 2000 octets")
    try:
        text = values[0].decode("utf-8")
    except UnicodeDecodeError:
        text = values[0].decode("latin-1")
    if any(c != "\t" and (ord(c) < 32 or 127 <= ord(c) < 160) for c in text):
        raise Malformed("a control character in the From header")
    name, spelled = _parted(_tokens(text))
    address = parse_address(spelled)
    if address is None or "." not in address.rpartition("@")[2]:
        raise Malformed("a From header whose address is not accepted")
    if any(other != address for other in _other_addresses(name)):
        raise Malformed("a From header with an address before its address")
    return address


def _parted(words: list[str]) -> tuple[list[str], str]:
    """The name and the address: the only thing in angle brackets, or all there is."""
    while words and words[-1] in (",", " "):
        words.pop()
    if "<" not in words:
        if any(word in (",", ";", ":") for word in words):
            raise Malformed("a From header with more than one mailbox, or a group")
        return [], _joined(words)
    at = words.index("<")
    if words[-1] != ">" or words.count("<") != 1 or words.count(">") != 1:
        raise Malformed("a From header that does not end with its one <address>")
    if ":" in words[:at] and ";" in words[:at]:
        raise Malformed("a From header with a group")
    return words[:at], _joined(words[at + 1 : -1])


def _joined(words: list[str]) -> str:
    """An address without the spaces that may stand around its parts; one between two atoms belongs to no address."""
    kept = [
        word
        for n, word in enumerate(words)
        if word != " " or (0 < n < len(words) - 1 and _ATOM.fullmatch(words[n - 1]) and _ATOM.fullmatch(words[n + 1]))
    ]
    return "".join(kept)


def _other_addresses(name: list[str]) -> list[str | None]:
    """What some reader may take for an address in the words of a name; None for what is not readable as one.

    `Ann @ Work` is none: its domain would have no dot, and its parts stand apart. Quoted words are words."""
    text = _AROUND_DOT.sub(r"\1", "".join('"' if word.startswith('"') else word for word in name))
    found: list[str | None] = []
    for like in _LIKE_ADDRESS.finditer(text):
        local, at, domain = like.groups()
        dotted = any(dot in domain.strip(_DOTS) for dot in _DOTS)
        if domain and (domain == "[" or dotted or (local and " " not in at)):
            found.append(parse_address(f"{local}@{domain}"))
    return found


def _tokens(text: str) -> list[str]:
    """Atoms (with their dots), quoted strings (kept with their quotes), special characters, and one space for any white
    space or comments between them."""
    tokens: list[str] = []
    at, spaced = 0, False
    while at < len(text):
        character = text[at]
        if character in _SPACE:
            at, spaced = at + 1, True
            continue
        if character == "(":
            at, spaced = _after_comment(text, at), True
            continue
        if spaced and tokens:
            tokens.append(" ")
        spaced = False
        if character == '"':
            end = _after_quoted(text, at)
        elif atom := _ATOM.match(text, at):
            end = atom.end()
        elif character in "<>@,;:[]":
            end = at + 1
        else:
            raise Malformed("a From header that cannot be read")
        tokens.append(text[at:end])
        at = end
    return tokens


def _after_comment(text: str, at: int) -> int:
    depth = 0
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif character == "(":
            depth += 1
            if depth > _MAX_COMMENTS:
                break
        elif character == ")":
            depth -= 1
            if not depth:
                return at + 1
        at += 1
    raise Malformed("a From header with an open comment")


def _after_quoted(text: str, at: int) -> int:
    at += 1
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            return at + 1
        at += 1
    raise Malformed("a From header with an open quotation")
