"""Who is connected: connections counted by client address, within a limit that our own gateways are free of."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

REMEMBERED = 4096  # addresses whose trust is remembered


class Clients:
    """Connections of one listener."""

    def __init__(self, per_client: int, total: int, trusted: Sequence[IPv4Network | IPv6Network] = ()) -> None:
        self._per_client = per_client
        self._total = total
        self._trusted = tuple(trusted)
        self._counts: dict[str, int] = {}
        self._trust: dict[str, bool] = {}
        self.open = 0
        self.refused = 0

    def enter(self, client: str) -> bool:
        """A connection begins; False: there are too many. A Unix socket's client is the empty string."""
        mine = self._counts.get(client, 0)
        if self.open >= self._total or (mine >= self._per_client and client and not self.trusts(client)):
            self.refused += 1
            return False
        self._counts[client] = mine + 1
        self.open += 1
        return True

    def leave(self, client: str) -> None:
        """A connection that had entered is gone."""
        self.open -= 1
        mine = self._counts[client] - 1
        if mine:
            self._counts[client] = mine
        else:
            del self._counts[client]

    def trusts(self, client: str) -> bool:
        """Is this address in one of the trusted networks?"""
        known = self._trust.get(client)
        if known is None:
            address = _address(client)
            known = any(address in network for network in self._trusted)
            if len(self._trust) >= REMEMBERED:
                self._trust.clear()
            self._trust[client] = known
        return known


def loopback(client: str) -> bool:
    """Is this address our own machine's?"""
    return _address(client).is_loopback


def _address(client: str) -> IPv4Address | IPv6Address:
    """A peer's address, an IPv4 one also where it came to an IPv6 socket."""
    address = ip_address(client.partition("%")[0])
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
