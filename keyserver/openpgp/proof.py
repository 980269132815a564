"""What a clean certificate proves at one instant (RFC 9580 section 5.2.3.10; time enters nowhere else)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from keyserver.model import Claim, Kind, Name, Proof, Subkey, UserId, Validity
from keyserver.openpgp import packets, signatures
from keyserver.openpgp.packets import PublicKey
from keyserver.openpgp.parts import CertificateParts, Component, read, user_id_order
from keyserver.openpgp.signatures import SHA1, Signature
from keyserver.openpgp.userid import address_of, text_of
from keyserver.openpgp.verify import verifiable
from keyserver.query import name_of

UNCERTIFIED = "no self-signature over the primary key or a user ID"
"""The remark on a certificate that nothing says may be used."""


def prove(octets: bytes, now: int) -> Proof:
    """Judges octets that `clean` or `merge` made; their signatures are trusted, not verified again."""
    return judge(read(octets), now)


def index(octets: bytes) -> tuple[frozenset[Name], tuple[str, ...]]:
    """Every name that any instant may prove, and the texts of the user IDs, for listings."""
    parts = read(octets)
    if not verifiable(parts.key):
        return _key_names(parts.key), ()
    user_ids = _user_ids(parts)
    addresses = {address_of(c.body) for c in user_ids}
    index = _key_names(parts.key).union(*_found_by(addresses, _bindings(parts)))
    return index, tuple(text_of(c.body) for c in user_ids)


def judge(parts: CertificateParts, now: int) -> Proof:
    """`prove` for a certificate that is taken apart already."""
    key = parts.key
    if not verifiable(key):
        return _unverifiable(parts)
    names, bound, claimed = _key_names(key), _bindings(parts), _claimed(parts)
    made = (_UserId.of(c, claim, now) for c, claim in claimed)
    user_ids = sorted((user_id for user_id in made if user_id), key=lambda u: u.order)
    governing = _governing(parts, user_ids, now)
    expires = _key_expiry(key, governing)
    validity = _validity(parts, expires, governing, now)
    subkeys = [subkey for b in bound if (subkey := _subkey(b, now))]
    usable = validity is Validity.VALID and key.created <= now
    addresses = {claim.address for c, claim in claimed if c.of_self()}
    return Proof(
        kind=Kind.OPENPGP,
        version=key.version,
        fingerprint=_hex(key.fingerprint),
        key_id=_hex(key.key_id),
        algorithm=key.algorithm,
        bits=key.bits,
        created=key.created,
        expires=expires,
        validity=validity,
        can_encrypt=usable and (_encrypts(key, governing) or any(usable_now(s, now) for s, _, _ in subkeys)),
        user_ids=tuple(u.value for u in user_ids),
        subkeys=tuple(s for s, _, _ in subkeys),
        strong=names.union(*(b.names for s, b, _ in subkeys if s.back_signed)),
        weak=frozenset(u.name for u in user_ids if u.name and u.alive and not u.value.revoked).union(
            *(b.names for s, b, _ in subkeys if b.named and not s.back_signed)
        ),
        index=names.union(*_found_by(addresses, bound)),
        newest=max((s.made for s in _self_signatures(parts) if s.made <= now), default=key.created),
        turns=min((t for t in _instants(parts, bound) if t > now), default=None),
        claims=tuple(claim for _, claim in claimed),
        identities=tuple(text_of(c.body) for c in _user_ids(parts)),
        revocations=any(c.of_revocations() for c in (parts.direct, *parts.components.values())),
        marks=_marks(
            parts, [*governing, *(u.counts for u in user_ids if not u.withdrawn), *(counts for _, _, counts in subkeys)]
        ),
    )


def _claimed(parts: CertificateParts) -> list[tuple[Component, Claim]]:
    """All user IDs and what they say, in an order that no copy's history decides."""
    user_ids = sorted((c for c in parts.components.values() if c.tag == packets.USER_ID), key=lambda c: c.body)
    return [(c, Claim(text_of(c.body), address_of(c.body))) for c in user_ids]


@dataclass(slots=True)
class _UserId:
    """A user ID that some self-signature has made by now, or that only a revocation still speaks of."""

    value: UserId
    counts: Signature  # the self-signature that counts; the revocation where there is none
    alive: bool
    name: Name | None
    order: tuple[bool, bool, int, bytes]  # the primary user ID first (section 5.2.3.27)

    @property
    def withdrawn(self) -> bool:
        """Is nothing but a revocation left of it?"""
        return self.counts.type in signatures.REVOCATIONS

    @classmethod
    def of(cls, component: Component, claim: Claim, now: int) -> _UserId | None:
        counts, alive = counting(component, now)
        if counts is None:
            return cls._withdrawn(component, claim, now)
        revoked = is_revoked(component, counts, now, final=False)
        value = UserId(claim.text, claim.address, counts.made, _end(counts), revoked)
        order = (revoked or not alive, not counts.primary, -counts.made, component.body)
        return cls(value, counts, alive, _address_name(claim.address), order)

    @classmethod
    def _withdrawn(cls, component: Component, claim: Claim, now: int) -> _UserId | None:
        """Listed as revoked, as gpg and Sequoia do, and found by nobody: nothing says that it was ever certified."""
        last = next((r for r in component.of_revocations() if r.hard or r.made <= now), None)
        if last is None:
            return None
        value = UserId(claim.text, claim.address, last.made, None, True)
        return cls(value, last, False, None, (True, True, -last.made, component.body))


@dataclass(slots=True)
class _Bound:
    """A subkey that has ever been bound."""

    component: Component
    key: PublicKey
    agreed: bool  # ... with a back-signature
    named: bool  # is the certificate found by it at all?
    names: frozenset[Name]

    @classmethod
    def of(cls, component: Component) -> _Bound:
        """`clean` leaves no embedded signature that does not verify, unless the subkey's algorithm is not ours."""
        key, bindings = component.key(), component.of_self()
        agreed = verifiable(key) and any(b.embedded for b in bindings)
        harmless = all(not (b.flags or 0) & (signatures.SIGN | signatures.CERTIFY) for b in bindings)
        return cls(component, key, agreed, agreed or harmless, _key_names(key))


def _subkey(bound: _Bound, now: int) -> tuple[Subkey, _Bound, Signature] | None:
    """The subkey and its binding; None where nothing binds it by now.

    A subkey that may sign or certify, but did not agree to this certificate by a back-signature (section 5.2.1.9),
    may be anybody's: nobody finds this certificate by it."""
    component, key = bound.component, bound.key
    binding, alive = counting(component, now)
    if binding is None:
        return None
    expires = key.created + binding.key_lifetime if binding.key_lifetime else None
    end = _end(binding)
    if end is not None and not alive:
        expires = end if expires is None else min(expires, end)
    encrypts = binding.flags is None or bool(binding.flags & signatures.ENCRYPT)
    subkey = Subkey(
        fingerprint=_hex(key.fingerprint),
        key_id=_hex(key.key_id),
        algorithm=key.algorithm,
        bits=key.bits,
        created=key.created,
        expires=expires,
        revoked=is_revoked(component, binding, now, final=True),
        can_encrypt=encrypts and key.algorithm in packets.ENCRYPTING,
        back_signed=bound.agreed,
    )
    return subkey, bound, binding


def counting(component: Component, now: int) -> tuple[Signature | None, bool]:
    """The newest self-signature that lives now; else the newest that ever did."""
    made = [s for s in component.of_self() if s.made <= now]
    alive = next((s for s in made if _lives(s, now)), None)
    return (alive, True) if alive else (made[0] if made else None, False)


def _lives(signature: Signature, now: int) -> bool:
    end = _end(signature)
    return signature.made <= now and (end is None or now < end)


def _end(signature: Signature) -> int | None:
    return signature.made + signature.lifetime if signature.lifetime else None


def is_revoked(component: Component, counts: Signature, now: int, *, final: bool) -> bool:
    """Does a revocation stand against the self-signature that counts? The newer of the two wins, a revocation at the
    same second too; `final`: a hard one always wins. (A user ID may be taken back and given again, whatever the
    reason: Sequoia and gpg agree on that.) A revocation does not end with its own signature's expiration: as in gpg,
    while in Sequoia what was taken back would come back by itself."""
    for revocation in component.of_revocations():
        if revocation.hard and (final or revocation.made >= counts.made):
            return True
        if not revocation.hard and counts.made <= revocation.made <= now:
            return True
    return False


def _governing(parts: CertificateParts, user_ids: Sequence[_UserId], now: int) -> list[Signature]:
    """The self-signatures that speak for the primary key, newest first: the direct-key signature, and in v4 that of
    the primary user ID (section 5.2.3.10)."""
    direct, alive = counting(parts.direct, now)
    governing = [direct] if direct and alive else []
    if parts.key.version == 4 and (first := next((u for u in user_ids if u.alive), None)):
        governing.append(first.counts)
    return sorted(governing, key=lambda s: -s.made)


def _key_expiry(key: PublicKey, governing: Sequence[Signature]) -> int | None:
    """An end that one of them states is not taken back by a 0 of the other, as in gpg (in Sequoia, not by a 0 of the
    direct-key signature): a key that is over for either is over here."""
    said = next((s.key_lifetime for s in governing if s.key_lifetime), None)
    return None if said is None else key.created + said


def _validity(parts: CertificateParts, expires: int | None, governing: Sequence[Signature], now: int) -> Validity:
    """Revoked for good by any revocation of the key itself, a soft one from its date on. Expired too where every
    self-signature over the key has run out or lies in the future: then nothing says that it may be used. Where
    there never was one (keyservers that take user IDs out leave that) it is not usable, as in gpg and Sequoia."""
    if any(r.hard or r.made <= now for r in parts.direct.of_revocations()):
        return Validity.REVOKED
    if not _certified(parts):
        return Validity.UNVERIFIABLE
    if (expires is not None and expires <= now) or parts.key.created > now or not governing:
        return Validity.EXPIRED
    return Validity.VALID


def _certified(parts: CertificateParts) -> bool:
    """Does anything of any time speak for the primary key? Bindings speak for subkeys only."""
    return bool(parts.direct.of_self() or _user_ids(parts))


def _encrypts(key: PublicKey, governing: Sequence[Signature]) -> bool:
    flags = next((s.flags for s in governing if s.flags is not None), None)
    return key.algorithm in packets.ENCRYPTING and (flags is None or bool(flags & signatures.ENCRYPT))


def usable_now(subkey: Subkey, now: int) -> bool:
    """Can one encrypt to it at this instant, as far as it alone goes?"""
    living = subkey.created <= now and (subkey.expires is None or now < subkey.expires)
    return subkey.can_encrypt and living and not subkey.revoked


def _user_ids(parts: CertificateParts) -> list[Component]:
    """Those with a self-signature of any time, in canonical order."""
    found = (c for c in parts.components.values() if c.tag == packets.USER_ID and c.of_self())
    return sorted(found, key=user_id_order)


def _bindings(parts: CertificateParts) -> list[_Bound]:
    return [_Bound.of(c) for c in parts.components.values() if c.tag == packets.SUBKEY and c.of_self()]


def _self_signatures(parts: CertificateParts) -> Iterator[Signature]:
    yield from parts.direct.of_self()
    for component in parts.components.values():
        yield from component.of_self()


def _instants(parts: CertificateParts, bound: Iterable[_Bound]) -> Iterator[int]:
    """When something may change: dates of keys and signatures, their ends, the ends of keys that they state."""
    user_ids = ((c, parts.key) for c in parts.components.values() if c.tag == packets.USER_ID)
    subkeys = ((b.component, b.key) for b in bound)
    for component, key in ((parts.direct, parts.key), *user_ids, *subkeys):
        yield key.created
        for signature in component.signatures.values():
            yield signature.made
            if signature.lifetime:
                yield signature.made + signature.lifetime
            if signature.key_lifetime:
                yield key.created + signature.key_lifetime


def _found_by(addresses: Iterable[str | None], bound: Iterable[_Bound]) -> Iterator[Iterable[Name]]:
    """The names that any instant may prove, beside the primary key's."""
    yield (name for name in map(_address_name, addresses) if name)
    yield from (b.names for b in bound if b.named)


def _marks(parts: CertificateParts, counting: Sequence[Signature]) -> tuple[str, ...]:
    """Remarks for people: what rests on SHA-1, what is missing, and revocations that we cannot check."""
    weak = any(s.hash == SHA1 or any(s.body[at + 3] == SHA1 for at, _ in s.embedded) for s in counting)
    remarks = (("sha1", weak), (UNCERTIFIED, not _certified(parts)), ("claimed revoker", bool(parts.claimed)))
    return tuple(remark for remark, holds in remarks if holds)


def _unverifiable(parts: CertificateParts) -> Proof:
    """We lack its algorithm: found by what its octets hash to, and by nothing that it says."""
    key = parts.key
    names = _key_names(key)
    return Proof(
        kind=Kind.OPENPGP,
        version=key.version,
        fingerprint=_hex(key.fingerprint),
        key_id=_hex(key.key_id),
        algorithm=key.algorithm,
        bits=key.bits,
        created=key.created,
        expires=None,
        validity=Validity.UNVERIFIABLE,
        can_encrypt=False,
        user_ids=(),
        subkeys=(),
        strong=names,
        weak=frozenset(),
        index=names,
        newest=key.created,
        turns=None,
        claims=tuple(claim for _, claim in _claimed(parts)),
        marks=("unverifiable",),
    )


def _key_names(key: PublicKey) -> frozenset[Name]:
    return frozenset(
        {name_of(Kind.OPENPGP, "fpr", _hex(key.fingerprint)), name_of(Kind.OPENPGP, "kid", _hex(key.key_id))}
    )


def _address_name(address: str | None) -> Name | None:
    return name_of(Kind.OPENPGP, "addr", address) if address else None


def _hex(octets: bytes) -> str:
    return octets.hex().upper()
