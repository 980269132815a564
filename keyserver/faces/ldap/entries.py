"""Directory entries: certificates as attributes, and what stands around them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, KeysView, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from keyserver.faces.ldap.schema import KNOWN, Attribute, Rule, find, normal, read_dn
from keyserver.model import Answered, Kind, Proof, UserId, Validity
from keyserver.openpgp.armor import armor
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, Query, name_of
from keyserver.smime import pack
from keyserver.usable import unusable
from keyserver.wire import ldap as wire

Values = tuple[bytes, ...]
Maker = Callable[["Node"], Values]
Attributes = Mapping[str, Values | Maker]
"""Key of the schema -> values, or what makes them when they are asked for."""

KEY_TYPES = {1: "RSA", 2: "RSA", 3: "RSA", 16: "Elgamal", 17: "DSS/DH", 18: "ECDH", 19: "ECDSA", 22: "EdDSA"} | {
    25: "X25519",
    26: "X448",
    27: "Ed25519",
    28: "Ed448",
    30: "ML-DSA-65+Ed25519",
    31: "ML-DSA-87+Ed448",
}
"""OpenPGP algorithm -> pgpKeyType. GnuPG knows the first and the fifth and shows the others as unknown."""

ELSEWHERE = ("userprincipalname", "othermailbox", "email", "maillocaladdress", "mozillasecondemail")
PROXIED = ("proxyaddresses", "targetaddress")
"""Where directories of other makes have a person's addresses: clients of those ask for them there. `SMTP:` in capitals
is the first of several."""


@dataclass(frozen=True, slots=True, eq=False)
class AttributeSelection:
    """Which attributes a search wants (RFC 4511 section 4.5.1.8, RFC 3673). Compared by `meaning`, or by identity."""

    user: bool
    operational: bool
    named: Mapping[str, bytes]  # key -> the name it is answered under

    @property
    def meaning(self) -> Hashable:
        """Equal where two selections give the same."""
        return self.user, self.operational, frozenset(self.named.items())


def select(attributes: Iterable[str]) -> AttributeSelection:
    """What an attribute list means; names that nobody knows are ignored."""
    named: dict[str, bytes] = {}
    user, operational, empty = False, False, True
    for description in attributes:
        empty = False
        if description == "*":
            user = True
        elif description == "+":
            operational = True
        elif known := find(description):
            attribute, binary = known
            plain = attribute.written.partition(b";")[0]
            named[attribute.key] = plain + b";binary" if binary else attribute.written
    return AttributeSelection(user or empty, operational, named)


class Node:
    """A directory entry. Attributes stand in the order of their mapping."""

    __slots__ = ("_attributes", "_last", "_named", "_normal", "dn", "ready", "weight")

    def __init__(self, dn: str, attributes: Attributes, weight: int = 0) -> None:
        self.dn = dn
        self.weight = weight
        """Octets of the certificate behind it, and more for what takes long to compare."""
        self.ready = not weight
        """Is `prepare` done, or not needed?"""
        self._attributes = dict(attributes)
        self._normal: dict[str, tuple[str, ...]] = {}
        self._named: frozenset[tuple[str, str]] | None = None
        self._last: tuple[AttributeSelection, bytes] | None = None  # the whole entry as it was asked for last

    @property
    def cost(self) -> int:
        """Octets that it takes, the entry as it was written last included."""
        made = sum(len(value) for values in self._attributes.values() if not callable(values) for value in values)
        return 2 * made + (3 * self.weight if self.weight else 0) + 2000

    def has(self, key: str) -> bool:
        """Is the attribute there?"""
        return key in self._attributes

    @property
    def keys(self) -> KeysView[str]:
        """Of all attributes that are there."""
        return self._attributes.keys()

    def values(self, key: str) -> Values:
        """An attribute's values."""
        values = self._attributes.get(key, ())
        if callable(values):
            values = self._attributes[key] = values(self)
        return values

    def normal(self, attribute: Attribute) -> tuple[str, ...]:
        """An attribute's values as they are compared."""
        key = attribute.key
        forms = self._normal.get(key)
        if forms is None:
            found = (normal(attribute.rule, value) for value in self.values(key))
            forms = self._normal[key] = tuple(form for form in found if form is not None)
        return forms

    @property
    def named(self) -> frozenset[tuple[str, str]]:
        """Key and value, as they are compared, of every part of its distinguished name."""
        if self._named is None:
            self._named = frozenset(pair for rdn in read_dn(self.dn) for pair in rdn)
        return self._named

    def prepared(self, selection: AttributeSelection) -> bool:
        """Is what `prepare` does done, or not worth it?"""
        return not self.weight or (self.ready and self._last is not None and self._last[0] is selection)

    def prepare(self, selection: AttributeSelection) -> None:
        """Make what else is made when it is asked for; of a large certificate that takes its time."""
        for key in tuple(self._attributes):
            self.values(key)
            if KNOWN[key].rule is not Rule.NONE:
                self.normal(KNOWN[key])
        self.encode(selection, types_only=False)
        self.ready = True

    def wants(self, key: str, selection: AttributeSelection) -> bytes | None:
        """The name under which a selection wants this attribute, or None."""
        if name := selection.named.get(key):
            return name
        attribute = KNOWN[key]
        if attribute.operational:
            return attribute.written if selection.operational else None
        return attribute.written if selection.user and not attribute.asked_only else None

    def encode(self, selection: AttributeSelection, types_only: bool) -> bytes:
        """The SearchResultEntry."""
        if self._last is not None and self._last[0] is selection and not types_only:
            return self._last[1]
        written = []
        for key in self._attributes:
            name = self.wants(key, selection)
            if name is None:
                continue
            written.append(wire.attribute(name, () if types_only else self.values(key)))
        entry = wire.entry(self.dn.encode(), b"".join(written))
        if not types_only:
            self._last = selection, entry
        return entry


def openpgp_node(answered: Answered, query: Query, space: str, subschema: str) -> Node:
    """An OpenPGP certificate below the keyspace `space`, by GnuPG's schema. The user ID that was asked for is first:
    GnuPG shows only that one (ks-engine-ldap.c). A subaddress that it answers for stands behind its addresses."""
    certificate, proof = answered.certificate, answered.certificate.proof
    asked = query.address if isinstance(query, ByAddress) else None
    users = sorted((u for u in proof.user_ids if _shown(u, proof)), key=lambda u: u.address != asked)
    octets, crc = certificate.octets, proof.version < 6

    def key(_: Node) -> Values:
        return (armor(octets, crc=crc),)

    attributes: dict[str, Values | Maker] = {
        "objectclass": (b"pgpKeyInfo", b"keyserverCertificate", b"top"),
        "gpgfingerprint": (proof.fingerprint.encode(),),
        "pgpcertid": (proof.key_id.encode(),),
        "pgpkeyid": (proof.key_id[-8:].encode(),),
        "pgpuserid": _texts(u.text for u in users),
        "gpgmailbox": _texts((*(u.address for u in users if u.address and _proved(u.address, proof)), asked or "")),
        "gpgsubfingerprint": _texts(s.fingerprint for s in proof.subkeys),
        "pgpsubkeyid": _texts(s.key_id for s in proof.subkeys),
        "pgpkeytype": (KEY_TYPES.get(proof.algorithm, str(proof.algorithm)).encode(),),
        "pgpkeysize": (b"%05d" % proof.bits,),
        "pgpkeycreatetime": (stamp(proof.created),),
        "pgpkeyexpiretime": () if proof.expires is None else (stamp(proof.expires),),
        "pgprevoked": (b"1" if proof.validity is Validity.REVOKED else b"0",),
        "pgpdisabled": (b"0",),
        "keyservercanencrypt": _can_encrypt(proof),
        "pgpkey": key,
        "pgpkeyv2": _same_key,
        **_operational(answered, subschema),
    }
    dn = f"gpgFingerprint={proof.fingerprint},{space}"
    return Node(dn, {k: v for k, v in attributes.items() if v != ()}, len(octets) + _slow(u.text for u in users))


def _same_key(node: Node) -> Values:
    return node.values("pgpkey")


def person_node(answered: Answered, query: Query, space: str, subschema: str) -> Node:
    """An X.509 certificate below `space` as a person of its own: GnuPG reads only the first value of an attribute. A
    subaddress that it answers for stands behind its addresses."""
    certificate, proof = answered.certificate, answered.certificate.proof
    facts, octets = proof.x509, answered.certificate.octets
    proved = [u.address for u in proof.user_ids if u.address and _proved(u.address, proof)]
    mail = tuple(dict.fromkeys([*proved, query.address] if isinstance(query, ByAddress) else proved))
    name = (facts.common_name if facts else "") or (mail[0] if mail else certificate.fingerprint)

    def bundle(_: Node) -> Values:
        return (pack([octets]),)

    attributes: dict[str, Values | Maker] = {
        "objectclass": (
            *(b"inetOrgPerson", b"organizationalPerson", b"person", b"pkiUser", b"user"),
            *(b"keyserverCertificate", b"top"),
        ),
        "objectcategory": (b"CN=Person,CN=Schema,CN=Configuration",),
        "uid": (proof.fingerprint.encode(),),
        "cn": _texts((name,)),
        "sn": _texts(((facts.surname if facts else "") or (name.split() or [name])[-1],)),
        "givenname": _texts((facts.given_name if facts else "",)),
        "displayname": _texts((name,)),
        "mail": _texts(mail),
        "mailnickname": _texts(address.rpartition("@")[0] for address in mail[:1]),
        **dict.fromkeys(ELSEWHERE, _texts(mail)),
        **dict.fromkeys(PROXIED, _texts(f"{'smtp' if n else 'SMTP'}:{address}" for n, address in enumerate(mail))),
        "usercertificate": (octets,),
        "usersmimecertificate": bundle,
        "keyservercanencrypt": _can_encrypt(proof),
        **_operational(answered, subschema),
    }
    weight = len(octets) + _slow((name, *mail))
    return Node(f"uid={proof.fingerprint},{space}", {k: v for k, v in attributes.items() if v != ()}, weight)


def certificate_nodes(query: Query, certificates: Iterable[Answered], space: str, subschema: str) -> tuple[Node, ...]:
    """The entries of an answer, in the order in which they are sent.

    OpenPGP: a v6 certificate, which makes GnuPG fail a whole import, only where its fingerprint was asked for; one
    without user IDs only where an ID was. X.509: one that has ended only by its fingerprint; usable ones first, then
    the newest, because clients read one or two.
    """
    by_id = isinstance(query, ByFingerprint | ByKeyId)
    if query.kind is Kind.X509:
        people = [a for a in certificates if a.certificate.proof.kind is Kind.X509]
        if not by_id:
            people = [a for a in people if a.certificate.proof.validity is Validity.VALID]
        people.sort(key=lambda a: (not a.certificate.proof.can_encrypt, -a.certificate.proof.newest))
        return tuple(person_node(a, query, space, subschema) for a in people)
    v6 = isinstance(query, ByFingerprint) and len(query.fingerprint) == 64
    keys = [a for a in certificates if a.certificate.proof.kind is Kind.OPENPGP]
    keys = [a for a in keys if (a.certificate.proof.version == 6) is v6]
    keys = [a for a in keys if by_id or a.certificate.proof.user_ids]
    return tuple(openpgp_node(a, query, space, subschema) for a in keys)


def stamp(instant: int) -> bytes:
    """Generalized time in the 15 characters that GnuPG reads."""
    try:
        return f"{datetime.fromtimestamp(instant, UTC):%Y%m%d%H%M%SZ}".encode()
    except (ValueError, OverflowError):
        return b"99991231235959Z"


def _shown(user: UserId, proof: Proof) -> bool:
    return bool(user.text) and (not user.revoked or proof.validity is Validity.REVOKED)


def _proved(address: str, proof: Proof) -> bool:
    return name_of(proof.kind, "addr", address) in proof.names


def _slow(texts: Iterable[str]) -> int:
    """What is added to a certificate's octets for text beyond ASCII: preparing an octet takes up to 4 microseconds."""
    return 16 * sum(len(text.encode("utf-8", "replace")) for text in texts if not text.isascii())


def _texts(texts: Iterable[str]) -> Values:
    """Distinct, not empty, in UTF-8."""
    return tuple(dict.fromkeys(t.encode("utf-8", "replace") for t in texts if t))


def _can_encrypt(proof: Proof) -> Values:
    return (b"FALSE" if unusable(proof) else b"TRUE",)


def _operational(answered: Answered, subschema: str) -> dict[str, Values | Maker]:
    seen = max((max(e.cached_at, e.seen_at) for e in answered.entries), default=answered.certificate.proof.newest)
    return {"modifytimestamp": (stamp(seen),), "subschemasubentry": (subschema.encode(),)}
