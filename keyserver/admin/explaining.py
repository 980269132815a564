"""One certificate in full: what it is, for whom each entry would be answered and why not, and who else is there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from keyserver.admin.files import file_of
from keyserver.admin.resources import CertificateResource, EntryResource, row_of, shown_of
from keyserver.admin.service import Whole
from keyserver.model import Entry, Kind, Proof, Source, View, X509Facts
from keyserver.policy import OnRecord, Terms, approved_for, backed, judge, on_record, without_effect
from keyserver.query import ByAddress, name_of
from keyserver.resolver.plan import tiers_of
from keyserver.resolver.rules import Rules
from keyserver.store.base import Store
from keyserver.store.snapshot import Snapshot
from keyserver.tripwire import HELD, is_held, remembered
from keyserver.usable import withheld

MOST_ADDRESSES = 20  # of one certificate that are explained
MOST_OTHERS = 20  # certificates of the same addresses that are shown


@dataclass(frozen=True, slots=True)
class ForAddress:
    """One entry and one address that the certificate names: is it answered to whoever looks the address up
    in these views?"""

    address: str
    source: str
    origin: str
    answered: bool
    searched_first: bool  # nothing is on record: the next lookup asks upstreams, and goes by what they say
    reason: str
    approved: bool
    approvable: bool  # an approval would have it answered
    views: tuple[str, ...] = (View().name,)  # those of which this holds


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
    """The operations; they raise as those of `Service` do. whole: see `Service.whole`."""

    def __init__(
        self,
        *,
        store: Store,
        whole: Callable[[str], Awaitable[Whole]],
        rules: Callable[[], Rules],
        clock: Callable[[], int],
    ) -> None:
        self._store = store
        self._whole = whole
        self._rules = rules
        self._clock = clock

    def _terms(self) -> Terms:
        return self._rules().terms

    @property
    def _views(self) -> Sequence[View]:
        """All of them, the default one first."""
        rules = self._rules()
        return tuple({View().name: rules.view(View()), **rules.views}.values())

    async def explain(self, term: str) -> Explained:
        """By fingerprint, key ID or address, as `Service.show`."""
        whole = await self._whole(term)
        fingerprint, entries, proof = whole.fingerprint, whole.entries, whole.certificate.proof
        blocked = frozenset(await self._store.blocked())
        now, terms, views = self._clock(), self._terms(), self._views

        def row(entry: Entry) -> EntryResource:
            return row_of(entry, now, terms, views[0], blocked)

        shown = shown_of(proof, tuple(map(row, entries)), blocked=fingerprint in blocked)
        verdicts: list[ForAddress] = []
        others: dict[tuple[str, str], list[Entry]] = {}
        for address in _addresses(proof):
            for kind in Kind:
                known = await self._store.look(name_of(kind, "addr", address))
                if kind is proof.kind:
                    record = on_record(known.records, self._asked(kind, address), now, terms)
                    keeps_back = {
                        view: proof.barred or withheld(proof, view) or self._held(entries, known, view, address)
                        for view in views
                    }
                    for entry in entries:
                        verdicts += _by_view(
                            self._for_address(entry, address, record, view, now, why)
                            for view, why in keeps_back.items()
                        )
                for entry in known.entries:
                    if entry.fingerprint != fingerprint and len(others) < MOST_OTHERS:
                        others.setdefault((address, entry.fingerprint), []).append(entry)
        return Explained(
            shown,
            tuple(verdicts),
            tuple(Other(a, other, of_it[0].kind.value, tuple(map(row, of_it))) for (a, other), of_it in others.items()),
            proof.x509,
        )

    async def download(self, term: str) -> Download:
        """The merge of its entries."""
        certificate = (await self._whole(term)).certificate
        return Download(certificate.proof.kind, file_of(certificate))

    def _asked(self, kind: Kind, address: str) -> Sequence[str]:
        """The upstreams that may be asked for an address."""
        local, _, domain = address.rpartition("@")
        terms = self._terms()
        return tiers_of(terms.upstreams.values(), ByAddress(local, domain, kind), terms).names

    def _held(self, entries: Sequence[Entry], known: Snapshot, view: View, address: str) -> str:
        """Why it waits although its entries may be answered; empty where it does not."""
        before = remembered(known.answering, view)
        return HELD if is_held(entries, before, view, self._terms(), address) else ""

    def _for_address(
        self, entry: Entry, address: str, record: OnRecord, view: View, now: int, withheld: str
    ) -> ForAddress:
        """`withheld`: why the view keeps the certificate back whatever the entry is."""
        verdict = judge(entry, view, now, self._terms(), address)
        believed = entry.source is Source.LOCAL or backed(entry, record, address)
        first = verdict.answerable and not believed and not record.finished and not withheld
        reason = verdict.reason
        if verdict.answerable and withheld:
            reason = withheld
        elif first:
            reason = "no search for this address is on record: the next lookup asks upstreams first"
        elif verdict.answerable and not believed:
            reason = "it claims the address, but the last search for it found it nowhere"
        approved = approved_for(entry, address)
        held = withheld == HELD
        helps = (held or not withheld) and not without_effect(entry, address, view, self._terms())
        return ForAddress(
            address=address,
            source=entry.source.value,
            origin=entry.origin,
            answered=verdict.answerable and believed and not withheld,
            searched_first=first,
            reason=reason,
            approved=approved,
            approvable=helps and not approved and (held or not verdict.answerable),
            views=(view.name,),
        )


def _by_view(each: Iterable[ForAddress]) -> list[ForAddress]:
    """Views of which the same holds together."""
    grouped: dict[ForAddress, tuple[str, ...]] = {}
    for one in each:
        same = replace(one, views=())
        grouped[same] = (*grouped.get(same, ()), *one.views)
    return [replace(one, views=views) for one, views in grouped.items()]


def _addresses(proof: Proof) -> tuple[str, ...]:
    """Those that its user IDs name, in their order."""
    named = dict.fromkeys(u.address for u in proof.user_ids if u.address and not u.revoked)
    return tuple(address for address in named if address)[:MOST_ADDRESSES]
