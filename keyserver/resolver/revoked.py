"""What revocation lists say of X.509 certificates, whenever one is judged (RFC 5280 section 6.3).

Certificates carry no revocations of their own, so what one proves depends on the lists in force, which are replaced as
a whole. A list speaks for a certificate only if the very key of its authority signed both."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeAlias

from cachetools import LRUCache

from keyserver.model import Proof, Validity
from keyserver.smime.crl import REASONS, Authority, RevocationList, serial_of
from keyserver.smime.reading import read

MOST = 16_384  # certificates of which it is remembered who issued them

_Issued: TypeAlias = tuple[frozenset[str], bytes]  # fingerprints of the authorities, serial number


@dataclass(frozen=True, slots=True)
class Listed:
    """An authority, and the list of its that holds; None: none has been had yet. `fatal`: without a current list
    nothing of this authority is used."""

    authority: Authority
    list: RevocationList | None
    fatal: bool = False

    def stale(self, now: int) -> bool:
        """Should there be a newer one by now?"""
        return self.list is None or now > self.list.ends


@dataclass(frozen=True, slots=True)
class Standing:
    """How one list stands, for people and metrics. Times are Unix seconds; 0: never."""

    url: str
    authority: str
    fatal: bool
    entries: int
    issued: int
    ends: int
    fetched_at: int
    failures: int  # since the start
    stale: bool
    problem: str  # why it could not be had the last time; empty where it could

    @property
    def complaint(self) -> str:
        """What is wrong, for everybody; empty for nothing."""
        if not self.stale:
            return ""
        state = f"ended on {_day(self.ends)}" if self.ends else "has not been had yet"
        return f"the revocation list of {self.authority} {state}"


class Revocations:
    """The lists in force; for any thread."""

    def __init__(self) -> None:
        self._lists: Sequence[Listed] = ()
        self._issued: LRUCache[str, _Issued] = LRUCache(MOST)
        self._lock = threading.Lock()

    @property
    def lists(self) -> Sequence[Listed]:
        """Those that hold now."""
        return self._lists

    def replace(self, lists: Sequence[Listed]) -> None:
        """These hold from now on. Answers made before are forgotten by whoever calls (`changes.EVERYTHING`)."""
        with self._lock:
            if {one.authority.fingerprint for one in lists} != {one.authority.fingerprint for one in self._lists}:
                self._issued = LRUCache(MOST)
            self._lists = tuple(lists)

    def judge(self, octets: bytes, proof: Proof, now: int) -> Proof:
        """What a certificate proves at `now`, given what it proves by itself."""
        with self._lock:
            lists, memory = self._lists, self._issued
            known = memory.get(proof.fingerprint)
        if not lists:
            return proof
        if known is None:
            known = _issued_by(octets, lists)
            with self._lock:
                memory[proof.fingerprint] = known  # the memory of these authorities, be they replaced meanwhile or not
        issuers, serial = known
        mine = [one for one in lists if one.authority.fingerprint in issuers]
        for one in mine:
            if one.list is not None and (at := one.list.find(serial)) is not None:
                return _barred(proof, Validity.REVOKED, _revoked(one.authority, one.list, at))
        for one in mine if proof.validity is Validity.VALID else ():
            if one.fatal and one.stale(now):
                return _barred(proof, Validity.UNVERIFIABLE, _stale(one))
        ends = [one.list.ends + 1 for one in mine if one.fatal and one.list is not None]
        return replace(proof, turns=min([*ends, *([proof.turns] if proof.turns else [])])) if ends else proof


def _issued_by(octets: bytes, lists: Sequence[Listed]) -> _Issued:
    try:
        certificate = read(octets)
        signers = frozenset(o.authority.fingerprint for o in lists if o.authority.issued(certificate))
        return signers, serial_of(certificate)
    except ValueError:  # nobody's list speaks for what cannot be read
        return frozenset(), b""


def _barred(proof: Proof, validity: Validity, why: str) -> Proof:
    """It stays what it is, and is found by its own names; it cannot be encrypted to, and answers no address."""
    marks = (*proof.marks, why)
    return replace(proof, validity=validity, can_encrypt=False, weak=frozenset(), turns=None, marks=marks, barred=why)


def _revoked(authority: Authority, found: RevocationList, at: int) -> str:
    entry = found.entry(at)
    when = f" on {_day(entry.at)}" if entry.at is not None else ""
    why = f" ({REASONS[entry.reason]})" if entry.reason in REASONS else ""
    return f"revoked by {authority.title}{when}{why}"


def _stale(one: Listed) -> str:
    if one.list is None:
        return f"no revocation list of {one.authority.title} is known, and smime.crl says stale = fatal"
    ended = _day(one.list.ends)
    return f"the revocation list of {one.authority.title} ended on {ended}, and smime.crl says stale = fatal"


def _day(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
