"""Our own directory entries, for another directory to hold."""

from __future__ import annotations

from keyserver.faces.ldap.entries import Node
from keyserver.faces.ldap.schema import KNOWN
from keyserver.faces.ldap.tree import Space, Tree, Wanted
from keyserver.model import Answer, How, Kind, State
from keyserver.query import ByFingerprint
from keyserver.wire.dn import parse_dn
from support.ldap_memory import BASE, Memory

KEYS, PEOPLE = f"ou=PGP Keys,{BASE}", f"ou=People,{BASE}"
ONLY_OURS = ("pgpkeyv2", "objectcategory", "mailnickname", "othermailbox")
"""What slapd's schema has not; its otherMailbox is X.500's."""


def nodes(held: Memory) -> list[Node]:
    """Every entry of the directory."""
    tree = Tree(BASE, start_tls=False, text_search=lambda: False)
    spaces = {Kind.OPENPGP: Space(Kind.OPENPGP, KEYS, parse_dn(KEYS), "gpgfingerprint")}
    spaces[Kind.X509] = Space(Kind.X509, PEOPLE, parse_dn(PEOPLE), "uid")
    found: list[Node] = []
    for one in held.held:
        proof = one.certificate.proof
        query = ByFingerprint(proof.fingerprint, proof.kind)
        answer = Answer(State.FOUND, How.HIT, "", (one,))
        found += tree.nodes(Wanted(query, spaces[proof.kind]), answer)
    return found


def slapd_entry(node: Node) -> tuple[str, dict[str, list[bytes]]]:
    """As `directory.Slapd` takes it."""
    attributes = {
        KNOWN[key].written.decode(): list(node.values(key))
        for key in KNOWN
        if node.has(key) and not KNOWN[key].operational and key not in ONLY_OURS
    }
    return node.dn, attributes
