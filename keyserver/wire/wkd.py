"""Web Key Directory without sockets: the hash of a local part, and targets of requests in their two forms.

draft-koch-openpgp-webkey-service-21 §3.1.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from keyserver.query import parse_domain

ROOT = "/.well-known/openpgpkey"
HOST = "openpgpkey"
"""The label before the domain: the advanced method's host is `openpgpkey.example.org`."""

_LETTERS = "ybndrfg8ejkmcpqxot1uwisza345h769"  # z-base-32 (RFC 6189 §5.1.6)
_UPPER = {ord(c): c.lower() for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}
_HASH = re.compile(rf"[{_LETTERS}]{{32}}\Z")
_TARGET = re.compile(re.escape(ROOT) + r"(?:/([^/]+))?/(?:hu/([^/]+)|(policy|submission-address))\Z")
_DIRECT_LINE = re.compile(rb"(?:GET|HEAD) " + re.escape(ROOT).encode() + rb"/hu/[^/? ]*[? ]")
_HOST_FIELD = re.compile(r"([A-Za-z0-9_.-]*[A-Za-z0-9_-])\.?(?::[0-9]{0,5})?\Z")


def hash_of(local: str) -> str:
    """z-base-32 of the SHA-1 of a local part, ASCII letters in lower case, all others unchanged: 32 characters."""
    octets = local.translate(_UPPER).encode("utf-8", "replace")
    number = int.from_bytes(hashlib.sha1(octets, usedforsecurity=False).digest(), "big")
    return "".join(_LETTERS[number >> shift & 31] for shift in range(155, -1, -5))


def is_hash(text: str) -> bool:
    """May this be such a hash? They are in lower case."""
    return _HASH.match(text) is not None


def advanced(domain: str, local: str) -> str:
    """The target to ask `openpgpkey.<domain>` for. `domain`: in lower case; `local`: as the user wrote it."""
    return f"{ROOT}/{domain}/hu/{hash_of(local)}?l={quote(local, safe='')}"


def direct(local: str) -> str:
    """The target to ask the domain's own host for."""
    return f"{ROOT}/hu/{hash_of(local)}?l={quote(local, safe='')}"


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is for. `domain`: as it stands in the path, None in the direct form; `file`: a hash, "policy" or
    "submission-address"; `local`: the whole local part, None where it was not given."""

    domain: str | None
    file: str
    local: str | None


def read_target(target: str) -> Target | None:
    """The target of a request line, in the one spelling that clients use; None for any other.

    Escapes are read in the domain and in `l` only. What is not UTF-8 in them becomes U+FFFD, which no address holds."""
    path, _, query = target.partition("?")
    found = _TARGET.match(path)
    if found is None or (found[2] and not is_hash(found[2])):
        return None
    fields = (field.partition("=") for field in query.split("&"))
    locals_ = [unquote(value, errors="replace") for name, equals, value in fields if (name, equals) == ("l", "=")]
    domain = unquote(found[1], errors="replace") if found[1] is not None else None
    return Target(domain, found[2] or found[3], locals_[0] if locals_ else None)


def domain_of(host: str) -> str | None:
    """The domain that a Host header names: A-labels in lower case, without port and final dot; None where none is."""
    named = _HOST_FIELD.match(host)
    return parse_domain(named[1]) if named else None


def hot_line(line: bytes, domain: bytes) -> bytes:
    """The request line under which the reply to this one may be remembered; empty: under none.

    The direct form says only with its Host what it asks for, so it is remembered as the advanced form, and nothing is
    ever found under its own line. `domain`: as `domain_of` has it, empty where there is none."""
    if not _DIRECT_LINE.match(line):
        return line
    return line.replace(b"/openpgpkey/", b"/openpgpkey/%b/" % domain, 1) if domain else b""
