"""Which certificate is meant, by what somebody typed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from keyserver.admin.filters import wanted_of
from keyserver.admin.problems import Ambiguous, Candidate, NotKnown, Unusable
from keyserver.model import Entry, Kind, Selection
from keyserver.policy import Terms
from keyserver.query import BadQuery, ByAddress, ByFingerprint, ByHash, ByKeyId, ByText, Query, parse
from keyserver.store.base import Store
from keyserver.store.listing import Budget, Filter, Status


class Finding:
    """Looks among what is cached, and blocked."""

    def __init__(
        self, store: Store, terms: Callable[[], Terms], clock: Callable[[], int], monotonic: Callable[[], float]
    ) -> None:
        self._store = store
        self._terms = terms
        self._clock = clock
        self._monotonic = monotonic

    async def find(self, term: str, *, cached: bool = True) -> str:
        """The fingerprint that a fingerprint, key ID or address means, among what is cached.

        Raises Ambiguous where several fit, NotKnown where none does; a whole fingerprint that is not cached stands for
        itself unless `cached`."""
        query = read(term)
        if isinstance(query, ByText | ByHash):
            raise Unusable(f"{term!r} is neither a fingerprint, nor a key ID of 16 digits, nor an address")
        whole = query.fingerprint if isinstance(query, ByFingerprint) else None
        if whole and (await self._store.certificate(whole)).entries:
            return whole
        candidates = await self._candidates(query)
        if len(candidates) == 1:
            return next(iter(candidates))
        if candidates:
            raise Ambiguous(term, [Candidate(*item) for item in sorted(candidates.items())])
        if whole and (not cached or whole in await self._store.blocked()):
            return whole
        raise NotKnown(f"{query} is not cached")

    async def _candidates(self, query: ByFingerprint | ByKeyId | ByAddress) -> dict[str, tuple[str, ...]]:
        """Certificates indexed under what is meant, of either kind; blocked ones are found by listing."""
        found: dict[str, tuple[str, ...]] = {}
        for kind in Kind:
            for entry in (await self._store.look(of_kind(query, kind).name)).entries:
                found[entry.fingerprint] = entry.identities
        if not found:
            blocked = frozenset(await self._store.blocked())
            those = Filter(Selection(text=str(query)), status=Status.BLOCKED)
            wanted = wanted_of(those, self._clock(), self._terms())
            page = await self._store.list(wanted, None, Budget(self._monotonic))
            found = {e.fingerprint: e.identities for e in page.entries if e.fingerprint in blocked and _fits(e, query)}
        return found


def read(term: str) -> Query:
    """What is asked for. Raises Unusable."""
    try:
        return parse(term)
    except BadQuery as problem:
        raise Unusable(str(problem)) from None


def of_kind(query: ByFingerprint | ByKeyId | ByAddress, kind: Kind) -> Query:
    """The same question for certificates of this kind."""
    return type(query)(**{**asdict(query), "kind": kind})


def _fits(entry: Entry, query: ByFingerprint | ByKeyId | ByAddress) -> bool:
    if isinstance(query, ByAddress):
        wanted = {query.address, f"<{query.address}>"}
        return any(word.casefold() in wanted for identity in entry.identities for word in identity.split())
    digits = query.fingerprint if isinstance(query, ByFingerprint) else query.key_id
    return entry.fingerprint == digits or entry.fingerprint.endswith(digits) or entry.fingerprint.startswith(digits)
