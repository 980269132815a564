"""Where a revocation list is: a URL of the configuration, never one of a certificate. No I/O; `fetching` asks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote

from keyserver.upstreams.host import Url, read_url
from keyserver.upstreams.ldap.url import ATTRIBUTE, base_of

PORTS = {"http": 80, "https": 443, "ldap": 389, "ldaps": 636}
LIST = "certificateRevocationList;binary"  # RFC 4523 section 2.2
_FORM = "http://host[:port]/path, https://…, ldap://host[:port]/dn[?attribute[?base[?filter]]] or ldaps://…"


@dataclass(frozen=True, slots=True)
class HttpPlace:
    """A file on a web server."""

    url: str
    host: str


@dataclass(frozen=True, slots=True)
class LdapPlace:
    """An attribute of one entry of a directory."""

    host: str
    port: int
    tls: bool
    dn: str
    attribute: str = LIST
    filter: str = "(objectClass=*)"


def parse_url(url: str) -> HttpPlace | LdapPlace:
    """Read a URL of HTTP or LDAP (RFC 4516). Raises ValueError with a sentence on what is accepted."""
    found = read_url(url, PORTS, _FORM)
    if found.template:
        raise ValueError("a list is at one host; accepted is a URL without {domain}")
    if found.parts.fragment or not re.fullmatch(r"[!-~]+", url):
        raise ValueError(f"accepted is {_FORM} in ASCII; other characters are written as %XX")
    return _ldap(found) if found.scheme.startswith("ldap") else HttpPlace(url, found.host)


def _ldap(found: Url) -> LdapPlace:
    from keyserver.upstreams.ldap.link import valid_filter  # ldap3 takes its time to load

    dn = base_of(found.parts.path)
    attribute, scope, text, *more = [*map(unquote, found.parts.query.split("?")), "", "", ""]
    text = text if not text or text.startswith("(") else f"({text})"
    if not dn or any(more):
        raise ValueError(f"accepted is {_FORM}, with the DN of the entry that holds the list")
    if attribute and not ATTRIBUTE.match(attribute):
        raise ValueError(f"{attribute!r} is not an attribute name, for instance {LIST}")
    if scope.lower() not in ("", "base"):
        raise ValueError(f"the scope {scope!r} does not fit: one entry is read; accepted is base")
    if text and not valid_filter(text):
        raise ValueError(f"{text!r} is no LDAP filter (RFC 4515), for instance (objectClass=*)")
    defaults = LdapPlace("", 0, False, "")
    return LdapPlace(
        found.host,
        found.port or PORTS[found.scheme],
        found.scheme == "ldaps",
        dn,
        attribute or defaults.attribute,
        text or defaults.filter,
    )
