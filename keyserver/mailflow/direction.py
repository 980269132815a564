"""Inbound or outbound? Pure; the first rule that knows decides, and is named."""

from __future__ import annotations

from keyserver.config.kinds import Address
from keyserver.listen.trust import address_of
from keyserver.mailflow.values import Direction, Envelope, Rules, Why
from keyserver.policy import in_domains
from keyserver.query import parse_address, parse_domain

_UNKNOWN = Direction(True, "", "inbound: nothing says that it is outbound")


def judge(envelope: Envelope, sender: str | None, rules: Rules) -> Direction:
    """Where a mail goes. `sender`: the normalised address in its From header, None where there is none.

    In order: the local address that took the mail; a client that authenticated or stands in `outbound_networks`; a
    sender, in the header or the envelope, of an internal domain, which whatever came before is never harvested."""
    found = _by_connection(envelope, rules)
    if not found.inbound:
        return found
    if sender is not None and in_domains(sender.rpartition("@")[2], rules.internal_domains):
        return _internal("its From header")
    host = parse_domain(envelope.sender.rpartition("@")[2]) if "@" in envelope.sender else None
    if host is not None and in_domains(host, rules.internal_domains):
        return _internal("its envelope sender")
    return found


def _internal(where: str) -> Direction:
    text = f"outbound or forged: {where} is of a domain in policy.internal_domains"
    return Direction(False, "internal_domains", text, Why.INTERNAL)


def _by_connection(envelope: Envelope, rules: Rules) -> Direction:
    local = ip_of(envelope.local)
    if rules.inbound_addresses and local is not None:
        if local in rules.inbound_addresses:
            return Direction(True, "inbound_addresses", "inbound: taken at an address in mailflow.inbound_addresses")
        text = f"outbound: taken at {local}, which is not in mailflow.inbound_addresses"
        return Direction(False, "inbound_addresses", text)
    if envelope.user:
        return Direction(False, "authenticated", "outbound: the client authenticated itself to our mail server (SASL)")
    client = ip_of(envelope.client)
    if client is not None and any(client in network for network in rules.outbound_networks):
        return Direction(False, "outbound_networks", "outbound: its client is in mailflow.outbound_networks")
    return _UNKNOWN


def ip_of(text: str) -> Address | None:
    """An address as mail servers write it, `IPv6:` and brackets tolerated; None for none and for "any address"."""
    bare = text.strip().strip("[]")
    if bare[:5].lower() == "ipv6:":
        bare = bare[5:]
    found = address_of(bare)
    return None if found is None or found.is_unspecified else found


def sender_of(envelope_sender: str) -> str:
    """The bare address of a MAIL FROM argument; what cannot be read stays as it is."""
    bare = envelope_sender.strip().removeprefix("<").removesuffix(">")
    return parse_address(bare) or bare
