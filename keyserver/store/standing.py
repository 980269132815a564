"""What an entry's vouchers come to, and what of a certificate listings go by. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keyserver.model import Name, Source, Voucher
from keyserver.store import vouchers


@dataclass(frozen=True, slots=True)
class Standing:
    """What an entry's vouchers come to, as its row and its names say it."""

    approved: bool
    held: bool
    column: str
    rank: int  # of the entry, and of names that are no addresses
    claimed: int  # of an address that it claims
    vouched: tuple[str, ...]  # addresses for which somebody stands behind it

    @classmethod
    def of(cls, source: Source, behind: tuple[Voucher, ...], *, chained: bool) -> Standing:
        """From all of them."""
        approved = any(v.approved for v in behind)
        vouched = (v.address for v in behind if v.approved or ((v.authenticated or chained) and not v.held))
        return cls(
            approved,
            any(v.waits for v in behind),
            vouchers.written(behind),
            rank(source, approved),
            rank(source, approved=False),
            () if source is Source.LOCAL else tuple(vouched),
        )


def recount(tally: Counter[str], before: Iterable[Voucher], stand: Standing) -> None:
    """Count an entry as held and approved as it now is, no more as it was with the vouchers before."""
    known = tuple(before)
    tally["held"] += stand.held - any(v.waits for v in known)
    tally["approved"] += stand.approved - any(v.approved for v in known)


def rank(source: Source, approved: bool) -> int:
    """Which entries come first where not all can: 0 local, 1 approved (vouched for, found), 2 keyserver, 3 mailflow."""
    if source is Source.LOCAL:
        return 0
    return 1 if approved else 2 if source is Source.KEYSERVER else 3


def folded(identities: Sequence[str]) -> str:
    """Identities as text searches compare them."""
    return "\n".join(identities).casefold().encode("utf-8", "replace").decode()


def first_address(names: Iterable[Name]) -> str:
    """As `schema.FIRST_ADDRESS`, before the names are written."""
    return min((name.partition(":addr:")[2] for name in names if ":addr:" in name), default="")


def storable(text: str) -> str:
    """Hostile text as every database can hold it: without NUL and lone surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
