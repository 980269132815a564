"""URLs to which events are POSTed. Pure."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

WEBHOOK = 'a URL such as https://soc.example.org/keyserver, http only to this machine; "" for none'

_URL = re.compile(r"[!-~]{1,2000}")  # RFC 3986 section 2: everything else is written as %XX


def read_webhook(text: str) -> str:
    """The URL as it is; raises ValueError, whose text says what is wrong with it."""
    if not text:
        return text
    if not _URL.fullmatch(text):
        raise ValueError("it has characters that a URL writes as %XX")
    parts = urlsplit(text)
    host, _ = parts.hostname or "", parts.port  # ValueError for one that is no number
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError
    if "@" in parts.netloc:
        raise ValueError("no user and password belong here: events are signed")
    if parts.fragment:
        raise ValueError("what is behind # is never sent")
    if parts.scheme == "http" and not _loopback(host):
        raise ValueError("http is for this machine alone")
    return text


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
