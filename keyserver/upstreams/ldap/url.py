"""The configuration of an LDAP upstream, read and judged: URL, credentials, filter, attributes. No I/O.

ldap3, which takes its time to load, is asked only where there is a DN or a filter to judge."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from keyserver.query import ByAddress
from keyserver.upstreams.host import read_url
from keyserver.wire.dn import MAX_DN

PORTS = {"ldap": 389, "ldaps": 636}
_FORM = "ldap://host[:port][/base] or ldaps://host[:port][/base]"
ATTRIBUTE = re.compile(r"(?:[A-Za-z][A-Za-z0-9-]*|\d+(?:\.\d+)+)(?:;[A-Za-z0-9-]+)*\Z")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a directory is. `host` may contain `{domain}`; `base` is a DN, or "" when the URL has none."""

    scheme: str
    host: str
    port: int
    base: str = ""

    @property
    def template(self) -> bool:
        """Is its host made of the domain of the address asked for?"""
        return "{domain}" in self.host

    @property
    def tls(self) -> bool:
        """TLS from the first octet?"""
        return self.scheme == "ldaps"


def parse_url(url: str, *, starttls: bool = False, bind_dn: str = "") -> Endpoint:
    """Read `ldap://host[:port]/base` (389) or `ldaps://…` (636), with the two options that must go together with it.

    The base is a DN, percent-encoded where a URL wants it (RFC 4516); attributes, scope and filter, which may follow it
    there, have keys of their own. Raises ValueError with a sentence on what is accepted.
    """
    found = read_url(url, PORTS, _FORM)
    if found.parts.query or found.parts.fragment or "?" in url:
        raise ValueError("only a base DN may follow the host; `filter` and `attributes` are keys of their own")
    endpoint = Endpoint(found.scheme, found.host, found.port or PORTS[found.scheme], base_of(found.parts.path))
    if starttls and endpoint.tls:
        raise ValueError("starttls goes with ldap:// only: ldaps:// is TLS from the first octet")
    if bind_dn and endpoint.template:
        raise ValueError("no credentials with a {domain} host: every domain's owner would get them")
    if bind_dn and not (starttls or endpoint.tls):
        raise ValueError("bind_dn needs TLS: ldaps://, or starttls = true")
    return endpoint


def check_filter(text: str) -> None:
    """Whether a configured filter can be asked. Raises ValueError with a sentence on what is accepted."""
    if "{address}" not in text and not ("{local}" in text and "{domain}" in text):
        raise ValueError(f"the filter {text!r} must contain {{address}} (or {{local}} and {{domain}})")
    if re.search(r"[{}]", re.sub(r"\{(?:address|local|domain)\}", "", text)):
        raise ValueError(f"the filter {text!r} may contain {{address}}, {{local}} and {{domain}}, and no other braces")
    from keyserver.upstreams.ldap.kinds import fill
    from keyserver.upstreams.ldap.link import valid_filter

    enclosed = text.startswith("(") and text.endswith(")") and text.count("(") == text.count(")")
    if not enclosed or not valid_filter(fill(text, ByAddress("a", "example.org"))):
        raise ValueError(f"{text!r} is no LDAP filter (RFC 4515), for instance (mail={{address}})")


def check_attributes(names: Sequence[str]) -> None:
    """Whether these are attribute names. Raises ValueError with a sentence on what is accepted."""
    for name in names:
        if not ATTRIBUTE.match(name):
            raise ValueError(f"{name!r} is not an attribute name, for instance userCertificate;binary")


def check_credentials(bind_dn: str, bind_password: str) -> None:
    """Whether these can be bound with. Raises ValueError with a sentence on what is accepted."""
    if bind_dn and not bind_password:
        raise ValueError("bind_dn needs a password: without one, directories take anybody for it (RFC 4513, 5.1.2)")
    if bind_password and not bind_dn:
        raise ValueError("a password needs bind_dn, the name it belongs to")


def base_of(path: str) -> str:
    """The DN in a URL's path (RFC 4516); "" where there is none. Raises ValueError."""
    try:
        base = unquote(path[1:], errors="strict").strip()
    except UnicodeDecodeError:
        raise ValueError("the base DN in the URL is not UTF-8") from None
    if base and (len(base) > MAX_DN or any(c in "{}" or ord(c) < 32 for c in base) or not _is_dn(base)):
        raise ValueError(f"{base!r} is not a base DN (RFC 4514), for instance ou=people,dc=example,dc=org")
    return base


def _is_dn(text: str) -> bool:
    from keyserver.upstreams.ldap.link import valid_dn  # ldap3, where there is a DN to judge

    return valid_dn(text)
