"""Vouchers on their way into a row and out of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from keyserver.model import Voucher

MOST = 64  # addresses of one entry: approved ones stay before others, what waits leaves first, then the oldest


def merged(old: Iterable[Voucher], new: Iterable[Voucher]) -> tuple[Voucher, ...]:
    """Both as one, by address. What stands is not taken away by a later mail, perhaps a forged one: authenticated and
    approved stay; held stays until approved, and none becomes held that was not."""
    known = {v.address: v for v in old}
    for voucher in new:
        before = known.get(voucher.address)
        if before is None:
            known[voucher.address] = voucher
            continue
        approved = before.approved or voucher.approved
        known[voucher.address] = Voucher(
            voucher.address,
            authenticated=before.authenticated or voucher.authenticated,
            held=before.held and not approved,
            approved=approved,
            seen_at=max(before.seen_at, voucher.seen_at),
        )
    ordered = sorted(known.values(), key=lambda v: (not v.approved, v.waits, -v.seen_at, v.address))
    return tuple(ordered[:MOST])


def written(vouchers: Iterable[Voucher]) -> str:
    """As a column of text."""
    return json.dumps([[v.address, v.authenticated, v.held, v.approved, v.seen_at] for v in vouchers])


def read(column: str) -> tuple[Voucher, ...]:
    """From such a column."""
    return of_rows(json.loads(column))


def of_rows(rows: object) -> tuple[Voucher, ...]:
    """From what JSON makes of it."""
    return tuple(Voucher(*row) for row in rows) if isinstance(rows, list) else ()
