"""A client's connections are counted across processes."""

from __future__ import annotations

from ipaddress import ip_network

from keyserver.listen.clients import MANY_OF_ONE, Clients
from keyserver.listen.trust import Trust
from keyserver.processes.ledger import Ledger


def test_a_client_has_its_limit_in_all_fronts_together() -> None:
    ledger = Ledger(3)
    fronts = [Clients(4, 100, Trust()) for _ in range(3)]
    for number, clients in enumerate(fronts):
        clients.share(ledger.page(number, "hkp.listen"))
    assert [fronts[n % 3].enter("192.0.2.1") for n in range(6)] == ["", "", "", "", MANY_OF_ONE, MANY_OF_ONE]
    assert fronts[0].enter("192.0.2.2") == ""
    fronts[2].leave("192.0.2.1")
    assert fronts[1].enter("192.0.2.1") == ""
    assert fronts[0].enter("192.0.2.1") == MANY_OF_ONE
    ledger.begin(1)  # that front died: its connections with it
    assert [fronts[0].enter("192.0.2.1") for _ in range(3)] == ["", "", MANY_OF_ONE]


def test_listeners_and_trusted_clients_have_their_own() -> None:
    ledger = Ledger(2)
    trust = Trust([ip_network("192.0.2.0/24")])
    one, other, ldap = (Clients(2, 100, trust) for _ in range(3))
    one.share(ledger.page(0, "hkp.listen"))
    other.share(ledger.page(1, "hkp.listen"))
    ldap.share(ledger.page(1, "ldap.listen"))
    assert not any(one.enter("198.51.100.1") for _ in range(2))
    assert ldap.enter("198.51.100.1") == ""
    assert other.enter("198.51.100.1") == MANY_OF_ONE
    assert not any(clients.enter("192.0.2.1") for clients in (one, other) for _ in range(50)), "half of each front"
    assert one.enter("192.0.2.1") == MANY_OF_ONE
