"""One certificate in full: what it is, for whom each entry would be answered and why not, and who else is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from keyserver.admin.approving import without_effect
from keyserver.admin.files import file_of
from keyserver.admin.resources import CertificateResource, EntryResource, row_of, shown_of
from keyserver.admin.service import NotKnown
from keyserver.hygiene import Hygiene
from keyserver.model import Certificate, Entry, Kind, Proof, Source, View, X509Facts
from keyserver.policy import OnRecord, Terms, approved_for, backed, judge, on_record
from keyserver.query import ByAddress, name_of
from keyserver.resolver.plan import tiers_of
from keyserver.resolver.rules import Rules
from keyserver.resolver.select import merged_of
from keyserver.store.base import Store

MOST_ADDRESSES = 20  # of one certificate that are explained
MOST_OTHERS = 20  # certificates of the same addresses that are shown


@dataclass(frozen=True, slots=True)
class ForAddress:
    """One entry and one address that the certificate names: is it answered to whoever looks the address up?"""

    address: str
    source: str
    origin: str
    answered: bool
    searched_first: bool  # nothing is on record: the next lookup asks upstreams, and goes by what they say
    reason: str
    approved: bool
    approvable: bool  # an approval would have it answered


@dataclass(frozen=True, slots=True)
class Other:
    """Another certificate of the same address."""

    address: str
    fingerprint: str
    kind: str
    entries: tuple[EntryResource, ...]


@dataclass(frozen=True, slots=True)
class Explained:
    """All of it."""

    certificate: CertificateResource
    addresses: tuple[ForAddress, ...]
    others: tuple[Other, ...]
    x509: X509Facts | None


@dataclass(frozen=True, slots=True)
class Download:
    """A certificate as a file: armor, or PEM for X.509."""

    kind: Kind
    octets: bytes


class Explaining:
    """The operations; they raise as those of `Service` do. find: see `Service.find`."""

    def __init__(
        self,
        *,
        store: Store,
        find: Callable[..., Awaitable[str]],
        hygiene: Mapping[Kind, Hygiene],
        rules: Callable[[], Rules],
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._find = find
        self._hygiene = hygiene
        self._rules = rules
        self._clock = clock

    def _terms(self) -> Terms:
        return self._rules().terms

    @property
    def _view(self) -> View:
        """The default one."""
        return self._rules().view(View())

    async def explain(self, term: str) -> Explained:
        """By fingerprint, key ID or address, as `Service.show`."""
        fingerprint, entries, merged = await self._read(term)
        blocked = frozenset(await self._store.blocked())
        now, terms = self._clock(), self._terms()

        def row(entry: Entry) -> EntryResource:
            return row_of(entry, now, terms, self._view, blocked)

        shown = shown_of(merged.proof, tuple(map(row, entries)), blocked=fingerprint in blocked)
        named, kind = _addresses(merged.proof), merged.proof.kind
        verdicts: list[ForAddress] = []
        for address in named:
            known = await self._store.look(name_of(kind, "addr", address))
            record = on_record(known.records, self._asked(kind, address), now, terms)
            verdicts += [self._for_address(entry, address, record, now) for entry in entries]
        return Explained(shown, tuple(verdicts), await self._others(fingerprint, named, row), merged.proof.x509)

    async def download(self, term: str) -> Download:
        """The merge of its entries."""
        _, _, merged = await self._read(term)
        return Download(merged.proof.kind, file_of(merged))

    async def _read(self, term: str) -> tuple[str, tuple[Entry, ...], Certificate]:
        fingerprint = await self._find(term)
        snapshot = await self._store.certificate(fingerprint)
        if snapshot.entries:
            own = self._hygiene[snapshot.entries[0].kind]
            revocations = snapshot.revocations.get(fingerprint, b"")
            merged = merged_of(snapshot.entries, revocations, own, self._clock())
            if merged is not None:
                return fingerprint, snapshot.entries, merged
        if fingerprint in await self._store.blocked():
            raise NotKnown(f"{fingerprint} is blocked, and not cached")
        raise NotKnown(f"{fingerprint} is not cached")

    def _asked(self, kind: Kind, address: str) -> Sequence[str]:
        """The upstreams that may be asked for an address."""
        local, _, domain = address.rpartition("@")
        terms = self._terms()
        return tiers_of(terms.upstreams.values(), ByAddress(local, domain, kind), terms).names

    def _for_address(self, entry: Entry, address: str, record: OnRecord, now: int) -> ForAddress:
        verdict = judge(entry, self._view, now, self._terms(), address)
        believed = entry.source is Source.LOCAL or backed(entry, record, address)
        first = verdict.answerable and not believed and not record.finished
        reason = verdict.reason
        if first:
            reason = "no search for this address is on record: the next lookup asks upstreams first"
        elif verdict.answerable and not believed:
            reason = "it claims the address, but the last search for it found it nowhere"
        approved = approved_for(entry, address)
        helps = not without_effect(entry, address, self._view, self._terms())
        return ForAddress(
            address=address,
            source=entry.source.value,
            origin=entry.origin,
            answered=verdict.answerable and believed,
            searched_first=first,
            reason=reason,
            approved=approved,
            approvable=helps and not approved and not verdict.answerable,
        )

    async def _others(
        self, fingerprint: str, addresses: tuple[str, ...], row: Callable[[Entry], EntryResource]
    ) -> tuple[Other, ...]:
        found: dict[tuple[str, str], list[Entry]] = {}
        for address in addresses:
            for kind in Kind:
                for entry in (await self._store.look(name_of(kind, "addr", address))).entries:
                    if entry.fingerprint != fingerprint and len(found) < MOST_OTHERS:
                        found.setdefault((address, entry.fingerprint), []).append(entry)
        return tuple(
            Other(address, other, entries[0].kind.value, tuple(map(row, entries)))
            for (address, other), entries in found.items()
        )


def _addresses(proof: Proof) -> tuple[str, ...]:
    """Those that its user IDs name, in their order."""
    named = dict.fromkeys(u.address for u in proof.user_ids if u.address and not u.revoked)
    return tuple(address for address in named if address)[:MOST_ADDRESSES]
