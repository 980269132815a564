"""Who a proxy says its client is: `Forwarded` (RFC 7239), `X-Forwarded-For` and headers with a single address."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

MAX_HOPS = 32
"""Hops that are looked at, from the right; more proxies than that stand nowhere."""

MAX_HOP = 256
"""Characters of one hop."""

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_VALUE = rf'(?:{_WORD}|"[^"\\]*")'  # an address needs no escapes
_ELEMENT = re.compile(rf"{_WORD}={_VALUE}(?:[ \t]*;[ \t]*{_WORD}={_VALUE})*")  # RFC 7239 section 4
_PAIR = re.compile(rf"({_WORD})=({_VALUE})")
_BRACKETS = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")


def hops(header: str, values: Sequence[str]) -> Iterator[str | None]:
    """The addresses that a header names, the nearest (right-most) first; None for a hop that is no address.

    header: its name, lower-case; values: of each line with that name, as they came. What stands further left may be a
    stranger's, so it is cut at commas from the right, whatever quotes there are, and a hop is read when it is asked
    for."""
    for hop in reversed(",".join(values).rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
        text = hop.strip(" \t")
        if len(text) > MAX_HOP:
            yield None
        else:
            yield _address(_for(text) if header == "forwarded" else text)


def _for(element: str) -> str:
    """The `for` of a `Forwarded` element, without quotes; nothing where it has none or two."""
    if not _ELEMENT.fullmatch(element):
        return ""
    found = [value for name, value in _PAIR.findall(element) if name.lower() == "for"]
    return found[0].strip('"') if len(found) == 1 else ""


def _address(text: str) -> str | None:
    """An address with or without port, IPv6 in brackets or bare (RFC 7239 section 6, and what proxies write)."""
    found = _BRACKETS.fullmatch(text) or _WITH_PORT.fullmatch(text)
    try:
        return str(ip_address(found[1] if found else text.partition("%")[0]))
    except ValueError:
        return None
