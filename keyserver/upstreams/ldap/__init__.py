"""LDAP directories: what the register knows of them. `upstream` asks, over the connections of `link`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from keyserver.clocks import Clocks
from keyserver.config.passwords import read_password
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.model import Kind, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText
from keyserver.upstreams.base import Upstream
from keyserver.upstreams.ldap.url import PORTS, check_attributes, check_filter, parse_url
from keyserver.upstreams.protocol import Mistake, Protocol, said_by


def _make(section: UpstreamSection, spec: UpstreamSpec, clocks: Clocks, threads: ThreadPoolExecutor) -> Upstream:
    from keyserver.upstreams.ldap.upstream import Ldap  # ldap3 takes its time to load

    file = section.bind_password_file
    password = read_password(f"upstream[{section.name}].bind_password_file", file).decode() if file else ""
    return Ldap(
        spec,
        section.url,
        monotonic=clocks.monotonic,
        threads=threads,
        starttls=section.starttls,
        tls_ca_file=section.tls_ca_file or "",
        bind_dn=section.bind_dn,
        bind_password=password,
        filter=section.filter,
        attributes=section.attributes,
        allow_private=section.allow_private,
    )


def _mistakes(section: UpstreamSection) -> Iterator[Mistake]:
    yield from said_by("url", lambda: parse_url(section.url))
    tls = section.scheme == "ldaps"
    if section.starttls and tls:
        yield "starttls", "accepted only for ldap: ldaps is TLS from the first octet"
    if section.bind_dn and section.template:
        yield "bind_dn", "accepted only where the host is fixed: a template's hosts are strangers"
    elif section.bind_dn and not (tls or section.starttls):
        yield "bind_dn", "accepted only with TLS: ldaps://, or starttls = true"
    elif section.bind_dn and not section.bind_password_file:
        # RFC 4513 section 5.1.2: a name without password is an "unauthenticated bind", which servers take for anonymous
        yield "bind_dn", "accepted only together with bind_password_file"
    if section.bind_password_file and not section.bind_dn:
        yield "bind_password_file", "accepted only together with bind_dn"
    if section.filter:
        yield from said_by("filter", lambda: check_filter(section.filter))
    yield from said_by("attributes", lambda: check_attributes(section.attributes))


PROTOCOL = Protocol(
    ports=PORTS,
    encrypted=frozenset({"ldaps"}),
    kinds=frozenset(Kind),
    hears=frozenset({ByAddress, ByFingerprint, ByKeyId, ByText}),
    keys=frozenset({"starttls", "bind_dn", "bind_password_file", "filter", "attributes"}),
    path="[/base DN]",
    mistakes=_mistakes,
    make=_make,
)
