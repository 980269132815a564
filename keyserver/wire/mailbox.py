"""Who a mail says it is from: exactly one From field with exactly one mailbox, or nobody (RFC 5322 section 3.6.2).

Strict on purpose: a reader and a filter that understand one header differently are how another's name is borrowed.
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


def one_mailbox(values: Sequence[bytes]) -> str:
    """The normalised address in the From field. Raises Malformed with the reason why there is none.

    Accepted are `address`, `<address>`, `words <address>`, with quoted words and comments anywhere between; encoded
    words are words. A name that should be quoted and is not (a comma, a colon, the address again) is read where no
    other address can be meant. Not accepted: several fields or mailboxes, groups, routes."""
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
    words = _tokens(text)
    address = parse_address(_spelled(words))
    if address is None:
        raise Malformed("a From header whose address is not accepted")
    return address


def _spelled(words: list[str]) -> str:
    """The address among the tokens: the only thing in angle brackets, or all there is."""
    if ";" in words or ("<" not in words and any(word in (",", ":") for word in words)):
        raise Malformed("a From header with more than one mailbox, or a group")
    if "<" not in words:
        return "".join(words)
    at = words.index("<")
    if words[-1] != ">" or words.count("<") != 1 or words.count(">") != 1:
        raise Malformed("a From header that does not end with its one <address>")
    address = "".join(words[at + 1 : -1])
    if not _harmless(words[:at], address):
        raise Malformed("a From header with an address before its address")
    return address


def _harmless(name: list[str], address: str) -> bool:
    """Is there no other address in a name that should have been quoted? Whatever stands around an `@` in it must be the
    address itself, or a domain that no mail comes from: another reader may take it for the sender."""
    pieces: list[list[str]] = [[]]
    for word in name:
        if word in (",", ":"):
            pieces.append([])
        else:
            pieces[-1].append(word)
    for piece in pieces:
        if "@" not in piece:
            continue
        said = parse_address("".join(piece).replace(" ", ""))
        if said is not None and said == parse_address(address):
            continue
        if piece.count("@") != 1 or "." in "".join(piece[piece.index("@") + 1 :]):
            return False
    return True


def _tokens(text: str) -> list[str]:
    """Atoms (with their dots), quoted strings (kept with their quotes) and special characters; comments are gone.

    White space is dropped, so `a b@c` would become `ab@c`: two atoms side by side get a space between them."""
    tokens: list[str] = []
    at, spaced = 0, False
    while at < len(text):
        character = text[at]
        if character in _SPACE:
            at, spaced = at + 1, True
        elif character == "(":
            at, spaced = _after_comment(text, at), True
        elif character == '"':
            end = _after_quoted(text, at)
            tokens.append(text[at:end])
            at, spaced = end, False
        elif atom := _ATOM.match(text, at):
            if spaced and tokens and _ATOM.fullmatch(tokens[-1]):
                tokens.append(" ")
            tokens.append(atom[0])
            at, spaced = atom.end(), False
        elif character in "<>@,;:[]":
            tokens.append(character)
            at, spaced = at + 1, False
        else:
            raise Malformed("a From header that cannot be read")
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
