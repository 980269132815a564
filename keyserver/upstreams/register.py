"""Every protocol in which upstreams can be asked. A new one is a module that describes itself, and its line here."""

from __future__ import annotations

from collections.abc import Mapping

from keyserver.upstreams import certs, dane, hkp, ldap, vks, wkd
from keyserver.upstreams.protocol import Protocol

PROTOCOLS: tuple[Protocol, ...] = (
    hkp.PROTOCOL,
    ldap.PROTOCOL,
    wkd.PROTOCOL,
    vks.PROTOCOL,
    dane.PROTOCOL,
    certs.PROTOCOL,
)

BY_SCHEME: Mapping[str, Protocol] = {scheme: protocol for protocol in PROTOCOLS for scheme in protocol.ports}
