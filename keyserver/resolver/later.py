"""What upstreams of later priorities brought, while a paused one that lists the domain has the first word. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from keyserver.model import Entry, Source
from keyserver.policy import OnRecord, approved_for
from keyserver.query import ByAddress, Query
from keyserver.resolver.plan import Tiers, lists
from keyserver.store.snapshot import Snapshot


def without_later(
    snapshot: Snapshot, query: Query, tiers: Tiers, record: OnRecord, paused: Callable[[str], bool]
) -> Snapshot:
    """What is known, without what only upstreams of later priorities brought, for another query, where a paused one
    that lists the domain would have had the first word."""
    asked = [spec for tier in tiers.tiers for spec in tier]
    silent = [spec for spec in asked if paused(spec.name) and spec.name not in record.living]
    first = min((spec.priority for spec in silent if lists(spec, query)), default=None)
    if first is None:
        return snapshot
    later = {spec.name for spec in asked if spec.priority > first and not record.found_by(spec.name)}
    address = query.address if isinstance(query, ByAddress) else None

    def stays(entry: Entry) -> bool:
        return entry.source is not Source.KEYSERVER or entry.origin not in later or approved_for(entry, address)

    return replace(snapshot, entries=tuple(filter(stays, snapshot.entries)))
