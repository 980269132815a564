"""Mistakes in an upstream's settings, said before anything is started."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from pathlib import Path

from keyserver.config import Problem
from keyserver.config.problem import show
from keyserver.config.sections.caching import CrlSection
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.upstreams import crl
from keyserver.upstreams.host import read_url
from keyserver.upstreams.protocol import Mistake, Protocol
from keyserver.upstreams.register import BY_SCHEME, PROTOCOLS


def mistakes(upstream: UpstreamSection | CrlSection) -> Iterator[Problem]:
    """Every mistake in one upstream, or revocation list, at most one for each key. No network."""
    if isinstance(upstream, CrlSection):
        try:
            crl.parse_url(upstream.url)
        except ValueError as problem:
            yield Problem(f"smime.crl[{upstream.name}].url", show("", upstream.url), str(problem))
        return
    protocol = BY_SCHEME.get(upstream.scheme)
    found = _every(upstream, protocol) if protocol else iter([("url", _unknown(upstream.scheme))])
    said: set[str] = set()
    for key, accepted in found:
        if key not in said:
            said.add(key)
            value = getattr(upstream, key)
            shown = show("", str(value) if isinstance(value, Path) else value)
            yield Problem(f"upstream[{upstream.name}].{key}", shown, accepted)


def _every(upstream: UpstreamSection, protocol: Protocol) -> Iterator[Mistake]:
    if wrong := _url(upstream, protocol):
        yield "url", wrong
    plain = UpstreamSection(name="-", url="-")
    for key in sorted(frozenset[str]().union(*(other.keys for other in PROTOCOLS)) - protocol.keys):
        if getattr(upstream, key) != getattr(plain, key):
            whose = [scheme for other in PROTOCOLS if key in other.keys for scheme in other.ports]
            yield key, f"accepted only for {' and '.join(whose)}"
    if (ca_file := upstream.tls_ca_file) is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(ca_file)
        except ssl.SSLError as error:
            reason = (error.reason or "no PEM").lower().replace("_", " ")
            yield "tls_ca_file", f"OpenSSL says {reason}; accepted is a PEM file with certificate authorities"
        except OSError as error:
            yield "tls_ca_file", f"{error.strerror or error}; accepted is a PEM file with certificate authorities"
    yield from protocol.mistakes(upstream)


def _unknown(scheme: str) -> str:
    """What is accepted instead of a scheme that no protocol has."""
    working = f"accepted schemes: {', '.join(BY_SCHEME)}"
    instead = next((p.instead[scheme] for p in PROTOCOLS if scheme in p.instead), None)
    return f"{working}; for a keyserver that speaks {scheme} write {instead}://" if instead else working


def _url(upstream: UpstreamSection, protocol: Protocol) -> str:
    """What is wrong with an upstream's URL, up to its port; empty for nothing."""
    url, form = upstream.url, protocol.form
    if protocol.bare:
        return "" if url.partition(":")[2] == "" and url.isascii() else f"nothing follows the colon; accepted is {form}"
    try:
        found = read_url(url, protocol.ports, form)
    except ValueError as error:
        return str(error)
    if re.search(r"[{}]", url) and (not found.host.endswith("{domain}") or re.search(r"[{}]", found.parts.path)):
        return "accepted is {domain} once, at the end of the host, such as ldap://keys.{domain}"
    authority = url.partition("://")[2].partition("/")[0]
    if re.search(r"\s", authority) or not authority.isascii() or found.parts.query or found.parts.fragment:
        return f"accepted is {form} with a host name in ASCII or an address (IPv6 in brackets)"
    return ""
