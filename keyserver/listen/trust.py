"""Whose is a connection, or a request, and is that one of ours? Addresses are compared to networks here alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from cachetools import FIFOCache

from keyserver.wire.forwarded import hops

REMEMBERED = 4096  # addresses that were judged lately
UNIX = ""
"""The address of whoever comes by a Unix socket."""

Network = IPv4Network | IPv6Network


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """An IP address from its spelling, IPv4 in IPv6 clothes as IPv4, without zone; None where it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def plain(text: str) -> str:
    """The one spelling of an address, so that its connections and searches are counted together."""
    return str(address_of(text) or text)


def loopback(text: str) -> bool:
    """Is this address our own machine's?"""
    address = address_of(text)
    return address is not None and address.is_loopback


class Trust:
    """`limits.trusted`, `limits.proxies` and `limits.proxy_header`, asked by address.

    A proxy speaks for others, so that it is never trusted for itself: what it does not attribute to anybody is
    limited. Where proxies are named, whoever comes by a Unix socket is one (its permissions say who that can be)."""

    def __init__(
        self, trusted: Iterable[Network] = (), proxies: Iterable[Network] = (), header: str = "x-forwarded-for"
    ) -> None:
        self.change(trusted, proxies, header)

    def change(
        self, trusted: Iterable[Network], proxies: Iterable[Network] = (), header: str = "x-forwarded-for"
    ) -> None:
        """From here on these."""
        self.header = header.lower()
        self._trusted = tuple(trusted)
        self._proxies = tuple(proxies)
        self._judged: FIFOCache[str, tuple[bool, bool]] = FIFOCache(REMEMBERED)

    @property
    def proxies(self) -> bool:
        """Are any proxies named?"""
        return bool(self._proxies)

    def trusts(self, address: str) -> bool:
        """Is it one of our own, which limits leave alone?"""
        return self._judge(address)[0]

    def proxy(self, address: str) -> bool:
        """Is it one of our proxies?"""
        return self._judge(address)[1]

    def client(self, peer: str, values: Sequence[str]) -> str:
        """Who a request comes from. values: of the lines of `header` that it bears.

        Behind proxies it is the right-most hop that is no proxy; where they do not say, the proxy itself."""
        if not self.proxy(peer):
            return peer
        for hop in hops(self.header, values):
            if hop is None:
                break
            if not self.proxy(hop):
                return plain(hop)
        return peer

    def _judge(self, text: str) -> tuple[bool, bool]:
        known = self._judged.get(text)
        if known is None:
            address = address_of(text)
            if address is None:
                known = (not self._proxies, bool(self._proxies)) if text == UNIX else (False, False)
            else:
                proxy = any(address in network for network in self._proxies)
                known = not proxy and any(address in network for network in self._trusted), proxy
            self._judged[text] = known
        return known
