"""The report, made of what the store has noted of recipients and upstreams, and of revocation lists. Pure.

It counts who was asked for. Who asked, or wrote to whom, is noted nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keyserver.outlook.pace import Slower
from keyserver.resolver.revoked import Standing
from keyserver.store.recipients import DAY, Coverage, Ending, Lost
from keyserver.usable import EXPIRES, KEY_EXPIRES

MOST = 200
"""Rows of each section."""

LIST_SOON, LIST_LAST = DAY, 0.1
"""A list is about to be stale in its last day where it cannot be had, and in the last tenth of its time (a day at most)
where nothing has taken its place."""


_ENDED = {EXPIRES: "it is expired", KEY_EXPIRES: "its key for encryption is expired"}


@dataclass(frozen=True, slots=True)
class EndingSoon:
    """A certificate in use with which nobody can encrypt any more from `until` on."""

    fingerprint: str
    kind: str  # openpgp, x509
    until: int
    cause: str
    domain: str
    identities: tuple[str, ...]  # addresses asked for that it is known to bear
    recipients: int  # addresses asked for that depend on it


@dataclass(frozen=True, slots=True)
class NoLonger:
    """A recipient that could be encrypted to until `since`, and cannot any more."""

    identities: tuple[str, ...]  # the address, where it is known in clear
    domain: str
    since: int
    fingerprint: str  # of the certificate that there was; empty: it is known to nobody any more
    reason: str


@dataclass(frozen=True, slots=True)
class Partner:
    """A domain, and for how many of its recipients asked for there is a usable certificate."""

    domain: str  # empty: all others together
    asked: int
    yes: int
    no: int
    unknown: int
    share: float  # yes of yes and no, 0 to 1


@dataclass(frozen=True, slots=True)
class ListEnding:
    """A revocation list that is stale, or about to be."""

    url: str
    authority: str
    ends: int  # 0: it has never been had
    stale: bool
    problem: str  # why it could not be had the last time


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. Times are Unix seconds."""

    at: int
    days: int  # so many ahead, and so many back
    known: bool  # has anything been noted of recipients in that time?
    ending: tuple[EndingSoon, ...]  # soonest first
    no_longer: tuple[NoLonger, ...]  # latest first
    partners: tuple[Partner, ...]  # asked for most first
    upstreams: tuple[Slower, ...]
    lists: tuple[ListEnding, ...]


def ending_of(one: Ending) -> EndingSoon:
    """One row of `Report.ending`."""
    return EndingSoon(one.fingerprint, str(one.kind), one.until, one.cause, one.domain, one.addresses, one.recipients)


def no_longer_of(lost: Iterable[Lost], ended: Iterable[Ending]) -> tuple[NoLonger, ...]:
    """`Report.no_longer`: what was seen to be lost, and certificates that have ended since their recipients were asked
    for last."""
    seen = [NoLonger((o.address,) if o.address else (), o.domain, o.since, o.fingerprint, o.reason) for o in lost]
    past = [_ended(one, address) for one in ended for address in one.addresses or ("",)]
    return tuple(sorted([*seen, *past], key=lambda one: one.since, reverse=True)[:MOST])


def _ended(one: Ending, address: str) -> NoLonger:
    why = _ENDED.get(one.cause, one.cause)  # a newer node may have words of its own
    return NoLonger((address,) if address else (), one.domain, one.until, one.fingerprint, why)


def partner_of(one: Coverage) -> Partner:
    """One row of `Report.partners`."""
    judged = one.yes + one.no
    return Partner(one.domain, one.asked, one.yes, one.no, one.unknown, one.yes / judged if judged else 0.0)


def lists_of(standings: Iterable[Standing], now: int) -> Sequence[ListEnding]:
    """Lists that nobody can rely on, now or soon."""
    found = []
    for one in standings:
        soon = LIST_SOON if one.problem else min(LIST_SOON, LIST_LAST * (one.ends - one.issued))
        if one.stale or one.ends - now < soon:
            found.append(ListEnding(one.url, one.authority, one.ends, one.stale, one.problem))
    return found
