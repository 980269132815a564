"""An upstream's table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from keyserver.config.fields import Switch, Title
from keyserver.config.kinds import (
    Choice,
    Duration,
    File,
    Flag,
    Many,
    Often,
    Text,
    Whole,
    read_attribute,
    read_domain_pattern,
)
from keyserver.config.section import Section, key, required
from keyserver.model import Rate

DomainPatterns = Annotated[
    tuple[str, ...], Many("domains such as example.org, or *.example.org for what lies below it", read_domain_pattern)
]
Attributes = Annotated[tuple[str, ...], Many("LDAP attribute names", read_attribute)]


class UpstreamSection(Section):
    """One keyserver or directory that is asked. There may be any number of these tables."""

    name: Title = required("its name, in answers, logs and `cache list --upstream`; each only once")
    url: Annotated[str, Text("a URL such as hkps://host, ldap://host/base or wkd:", r"\S.*", 2000)] = required(
        "where it is: hkp (port 11371), hkps, ldap (389), ldaps (636), vks or certs (443); {domain} at the end "
        "of the host is the domain of the address asked for; `wkd:` and `dane:` ask that domain itself"
    )
    priority: Annotated[int | None, Whole(0, 1000, optional=True)] = key(
        "", "lower is asked first; equal ones at the same time. Empty: 10, for wkd 5"
    )
    domains: DomainPatterns = key([], "only addresses of these domains are told and believed; empty: any")
    timeout: Annotated[int, Duration("1s", "5m")] = key("2s", "how long one question may take")
    required: Annotated[bool | None, Flag(optional=True)] = key(
        "",
        "false: when it fails and the others have spoken, the query has not failed. Empty: true, for vks "
        "and dane false",
    )
    rate: Annotated[Rate | None, Often()] = key(
        "",
        'how often it is asked at most, such as "60/min". Empty: no limit; vks: addresses 1/min, the rest 5/s',
    )
    on_change: Annotated[str, Choice(("", "report", "hold"))] = key("", "overrides policy.on_change")
    hkp_version: Annotated[str, Choice(("1", "2", "auto"))] = key(
        "1", "hkp, hkps: the version that is spoken; auto: 2 where the server shows that it speaks it, else 1"
    )
    resolver: Annotated[
        str, Text('a loopback address such as "127.0.0.1", or "tls:ADDRESS#NAME" such as "tls:9.9.9.9#dns.quad9.net"')
    ] = key(
        "",
        "dane: the name server that is asked, and believed when it says that it has checked DNSSEC. Empty: "
        "the system's, where that is on this machine",
    )
    ttl: Annotated[int | None, Duration("1h", "999d", optional=True)] = key("", "overrides cache.ttl")
    proxy: Annotated[str, Text('an HTTP proxy such as "http://proxy.example.org:3128"; "" for none')] = key(
        "", "HTTP proxy for this upstream (hkp, hkps, vks, certs)"
    )
    tls_ca_file: Annotated[Path | None, File("a PEM file with certificate authorities")] = key(
        "", "only these may have signed its TLS certificate; empty: the system's"
    )
    allow_private: Switch = key(
        False,
        "may its {domain} host, its SRV records and its redirects lead to an address that is not global? "
        "(always allowed for addresses and names written here in full)",
    )
    starttls: Switch = key(False, "ldap: go over to TLS before anything is asked")
    bind_dn: Annotated[str, Text("a distinguished name, or nothing for anonymous")] = key(
        "", "LDAP: who we are; only with TLS"
    )
    bind_password_file: Annotated[Path | None, File("a file with the password")] = key("", "LDAP: the password to it")
    filter: Annotated[str, Text('an LDAP filter with {address} in it, such as "(mail={address})"; "" to find out')] = (
        key("", "LDAP: how an address is searched; empty: found out")
    )
    attributes: Attributes = key([], "LDAP: where certificates stand; empty: found out")

    @property
    def scheme(self) -> str:
        """The URL's scheme, lower case."""
        return self.url.partition(":")[0].lower()

    @property
    def template(self) -> bool:
        """Is its host made of the domain asked for?"""
        return "{domain}" in self.url
