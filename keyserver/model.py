"""Values that cross borders: frozen, without behaviour, importing nothing of ours.

Times are whole Unix seconds (int). Fingerprints and key IDs are upper-case hex without `0x`. A *name* is what a
certificate is found under and what a hot answer depends on; `query.name_of` writes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

Name: TypeAlias = str


class Malformed(ValueError):
    """Octets that are not what they should be; the one exception of the codecs. The text says what is wrong."""


class Kind(StrEnum):
    """The two kinds of certificates."""

    OPENPGP = "openpgp"
    X509 = "x509"


class Source(StrEnum):
    """Where an entry comes from (contract, cache rule 2)."""

    KEYSERVER = "keyserver"
    MAILFLOW = "mailflow"
    LOCAL = "local"


class OnChange(StrEnum):
    """What becomes of a certificate when another one than before would answer for an address."""

    REPORT = "report"  # it answers; the history says so
    HOLD = "hold"  # it waits for an administrator, and the one before it answers on

    @classmethod
    def of(cls, text: str) -> OnChange | None:
        """As the configuration writes it; empty: whatever else says."""
        return cls(text) if text else None


class Validity(StrEnum):
    """A certificate's own state at one instant, in the order answers prefer."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    UNVERIFIABLE = "unverifiable"  # an algorithm that we do not have, nothing that certifies the primary key, no list


@dataclass(frozen=True, slots=True)
class UserId:
    """One self-signed user ID, or a revoked one. `text` is hostile: escape it wherever it is shown."""

    text: str
    address: str | None  # normalised by the strict rule, else None
    created: int  # of the self-signature that counts now (or of the revocation, where only that is left)
    expires: int | None
    revoked: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """What one user ID says, whoever may believe it: its hostile text, and the address in it by the strict rule."""

    text: str
    address: str | None


@dataclass(frozen=True, slots=True)
class Subkey:
    """One subkey with a verified binding."""

    fingerprint: str
    key_id: str
    algorithm: int  # OpenPGP public-key algorithm number
    bits: int
    created: int
    expires: int | None
    revoked: bool
    can_encrypt: bool
    back_signed: bool  # a verified 0x19 back-signature: may stand as a hit by itself (cache rule 10)


@dataclass(frozen=True, slots=True)
class X509Facts:
    """What only X.509 certificates have."""

    subject: str
    issuer: str
    serial: str  # hex
    not_before: int
    not_after: int
    common_name: str
    surname: str = ""
    given_name: str = ""
    key_usage: tuple[str, ...] = ()
    sha1: str = ""  # SHA-1 fingerprint, hex


@dataclass(frozen=True, slots=True)
class Proof:
    """What a certificate shows by its own signatures, judged at one instant."""

    kind: Kind
    version: int
    fingerprint: str
    key_id: str
    algorithm: int
    bits: int
    created: int
    expires: int | None
    validity: Validity
    can_encrypt: bool  # now, by the primary or an unexpired, unrevoked subkey
    user_ids: tuple[UserId, ...]
    subkeys: tuple[Subkey, ...]
    strong: frozenset[Name]  # names that make a hit by themselves: primary and back-signed subkeys
    weak: frozenset[Name]  # the rest that is proved now: addresses, encryption-only subkeys
    index: frozenset[Name]  # superset to index under: whatever any instant may prove
    newest: int  # creation time of the newest self-signature (X.509: notBefore)
    turns: int | None  # the next instant at which anything above changes, None for never
    claims: tuple[Claim, ...] = ()  # every user ID in its octets, also those that prove nothing now
    identities: tuple[str, ...] = ()  # texts for listings and text searches: what any instant may prove
    marks: tuple[str, ...] = ()  # remarks for people: "sha1", "claimed revoker", …
    x509: X509Facts | None = None
    revocations: bool = True  # may it carry revocations? False saves looking for them
    barred: str = ""  # why it may not be used whatever it says itself: its authority's revocation list (X.509)

    @property
    def names_somebody(self) -> bool:
        """Has it a user ID that is not revoked?"""
        return any(not user_id.revoked for user_id in self.user_ids)

    @property
    def names(self) -> frozenset[Name]:
        """Every name that is proved now."""
        return self.strong | self.weak


@dataclass(frozen=True, slots=True)
class Certificate:
    """A clean certificate: its octets (OpenPGP packets in canonical order, or DER) and what they prove."""

    octets: bytes = field(repr=False)
    proof: Proof

    @property
    def fingerprint(self) -> str:
        """The primary key's fingerprint (X.509: SHA-256 of the DER)."""
        return self.proof.fingerprint


@dataclass(frozen=True, slots=True)
class Refused:
    """A certificate that hygiene did not let in, and why. `fatal`: the input could not be read (failed, not absent)."""

    reason: str
    fingerprint: str | None = None
    fatal: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """One certificate's octets, as they stood in a stream or file of many."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a stream that is no certificate we can hand on, and why."""

    reason: str


Piece: TypeAlias = Cut | Skipped


@dataclass(frozen=True, slots=True)
class Voucher:
    """What stands behind an entry for one address: mails From it that carried the certificate, an approval."""

    address: str  # normalised
    authenticated: bool = False  # such a mail was authenticated
    held: bool = False  # waits for an administrator
    approved: bool = False  # an administrator has approved the entry for this address
    seen_at: int = 0  # the last such mail; 0: none

    @property
    def waits(self) -> bool:
        """Is it held, and not yet approved?"""
        return self.held and not self.approved


@dataclass(frozen=True, slots=True)
class Entry:
    """Certificate + source + origin + when: one row of the cache (contract, cache rule 1)."""

    fingerprint: str
    kind: Kind
    octets: bytes = field(repr=False)
    source: Source
    origin: str  # upstream name, sender's domain, or administrator
    cached_at: int
    seen_at: int  # mailflow: the last mail that carried it; otherwise as cached_at
    vouchers: tuple[Voucher, ...] = ()  # by address; none from before senders were kept
    chained: bool = False  # X.509: its chain verified against the trust anchors
    detail: str = ""  # mailflow: the message-id of the last mail; keyserver: the method by which it was found
    identities: tuple[str, ...] = ()  # for listings

    @property
    def approved(self) -> bool:
        """Is it approved for some address?"""
        return any(v.approved for v in self.vouchers)

    @property
    def held(self) -> bool:
        """Does it wait for an administrator, for some address?"""
        return any(v.waits for v in self.vouchers)

    def voucher(self, address: str) -> Voucher | None:
        """What stands behind it for this address."""
        return next((v for v in self.vouchers if v.address == address), None)


@dataclass(frozen=True, slots=True)
class Find:
    """A cleaned certificate on its way into the store."""

    certificate: Certificate
    source: Source
    origin: str
    replace: bool = True  # False: merge with this origin's earlier copy (it came without user IDs, or by mail)
    vouchers: tuple[Voucher, ...] = ()
    chained: bool = False
    detail: str = ""  # as in Entry
    update: bool = False  # only merged into the copy of an entry that is there, which stays as it is otherwise


@dataclass(frozen=True, slots=True)
class Record:
    """What one upstream said to one query, and when. `found` False means it said absent."""

    name: Name
    upstream: str
    found: bool
    at: int
    asked_at: int = 0  # when a client last asked for it; 0: not since `at`


@dataclass(frozen=True, slots=True)
class Raw:
    """Octets that an upstream sent, unarmored but not yet believed."""

    kind: Kind
    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Found:
    """The upstream sent something that may be what was asked for. `damaged`: what beside it could not be read."""

    raw: tuple[Raw, ...]
    damaged: tuple[str, ...] = ()
    method: str = ""  # how it was asked, where its protocol has several ways: "wkd advanced openpgpkey.example.org"


@dataclass(frozen=True, slots=True)
class Absent:
    """The upstream said that it has nothing. `remember` False: true for this request only (loops, not askable)."""

    reason: str
    remember: bool = True
    method: str = ""  # as in Found


class Fault(StrEnum):
    """Why an upstream failed, as far as its health is concerned."""

    TRANSIENT = "transient"  # time-out, refused, 5xx, garbage
    CONFIGURATION = "configuration"  # 401, 403, TLS name: nobody will mend it in a minute
    BUSY = "busy"  # 429 or 503 with Retry-After
    LOCAL = "local"  # our own limit or budget; says nothing of the upstream's health


@dataclass(frozen=True, slots=True)
class Failed:
    """No usable word: never becomes "does not exist"."""

    reason: str
    fault: Fault = Fault.TRANSIENT
    retry_after: float | None = None  # seconds, as the upstream asked
    method: str = ""  # as in Found


Outcome: TypeAlias = Found | Absent | Failed


SPANS = {1: "s", 60: "min", 3600: "h", 86400: "day"}
"""Seconds in which so many questions may be asked, as the configuration writes them."""


@dataclass(frozen=True, slots=True)
class Rate:
    """So many questions in any span of so many seconds, one of `SPANS`."""

    times: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.times}/{SPANS[self.seconds]}"


@dataclass(frozen=True, slots=True)
class UpstreamSpec:
    """What policy and resolver know of an upstream without speaking its protocol."""

    name: str
    priority: int = 10
    domains: tuple[str, ...] = ()  # lower-case A-labels, "*.example.org" allowed; empty: any
    ttl: int | None = None  # seconds; None: the global one
    timeout: float = 2.0
    template: bool = False  # its host comes from the address asked for
    kinds: frozenset[Kind] = frozenset({Kind.OPENPGP})
    required: bool = True  # False: when it fails and the others have spoken, the query has not failed
    rate: Rate | None = None  # how often it is asked at most; None: no limit
    id_rate: Rate | None = None  # the same for fingerprints and key IDs, where it is another
    by_owner: bool = False  # what it says of an address is the word of the domain's owner, and may be passed on as such
    nameless: bool = True  # False: a certificate without user IDs only updates what is known, and is no find
    on_change: OnChange | None = None  # None: the global one


@dataclass(frozen=True, slots=True)
class View:
    """A listener's policy: which entries it may hand out."""

    name: str = "default"
    answer_mailflow: bool = False
    directory: bool = False  # speaks as the Web Key Directory of the address's domain: the owner's word alone
    usable_only: bool = False  # hands out only what can be encrypted to now
    no_mailflow: bool = False  # not even approved: it asks in the name of another address
    domain_certificates: bool = False  # for an address that has none, hands out the one of its domain's gateway
    verdict: bool = False  # asks what mail can be encrypted with, whatever is handed out
    by_domain: bool = False  # asks for a domain's certificate: a local entry, or the word of who lists the domain
    on_change: OnChange | None = None  # None: that of whoever brought the certificate

    @property
    def memory(self) -> str:
        """Under which name it is remembered what answered here: narrower questions get other answers."""
        narrower = [("directory", self.directory), ("without mail", self.no_mailflow), ("domain", self.by_domain)]
        return ", ".join([self.name, *(what for what, asked in narrower if asked)])


class How(StrEnum):
    """How an answer came about."""

    HIT = "HIT"
    MISS = "MISS"
    STALE = "STALE"


class State(StrEnum):
    """What an answer says."""

    FOUND = "found"
    ABSENT = "absent"
    FAILED = "failed"  # nothing known and an upstream failed
    BUSY = "busy"  # too much under way, or this client asks too much


PASSED_OVER = "passed over"
"""What a step does that says what is cached and why it is not answered."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a lookup's trace: `at` in milliseconds since it began."""

    at: float
    who: str  # "cache", "records", an upstream's name, "clean", "answer", …
    what: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """One certificate of an answer: the merge of what this view may hand out."""

    certificate: Certificate
    entries: tuple[Entry, ...]

    @property
    def source(self) -> Source:
        """The best source among its entries: local, keyserver, mailflow."""
        order = (Source.LOCAL, Source.KEYSERVER, Source.MAILFLOW)
        return min((e.source for e in self.entries), key=order.index)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the resolver returns."""

    state: State
    how: How
    reason: str
    certificates: tuple[Answered, ...] = ()
    names: frozenset[Name] = frozenset()  # every name this answer depends on
    since: int = 0  # when the first certificate (or the oldest "absent") was cached
    until: int = 0  # the first instant at which anything behind it turns; the answer may be kept until then
    keep: bool = False  # may be kept by hot answers and clients (False: `no-store`)
    steps: tuple[Step, ...] = ()
    query: Name = ""  # the name that was asked for
    final: bool = True  # False: somebody who must speak has not, and another answer was possible
    missing: tuple[str, ...] = ()  # upstreams whose word is missing, also those that need not speak
    in_vain: bool = False  # absent, although something was found for this very query: none of it may be answered
    by_domain: str = ""  # nobody has one for the address itself: this came of asking for the gateway of that domain


@dataclass(frozen=True, slots=True)
class Change:
    """One finished change of the store and every name it touches; `everything`: all names."""

    number: int
    names: frozenset[Name]
    everything: bool = False


EVERYTHING = Change(0, frozenset(), everything=True)
"""Of no store's making: whatever is held is forgotten."""

NO_NAMES = Change(0, frozenset())
"""Of no store's making: whatever is held stands, but says of itself something else than before."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which entries a list, purge or export means; None matches all."""

    source: Source | None = None
    upstream: str | None = None  # origin, for keyserver entries
    domain: str | None = None  # of an address that the certificate proves
    text: str | None = None  # part of an identity, the beginning of a fingerprint, a key ID
    kind: Kind | None = None


def joined(parts: Sequence[str], most: int = 3) -> str:
    """A short list for people: `a, b, c and 4 more`."""
    rest = len(parts) - most
    return ", ".join(parts[:most]) + (f" and {rest} more" if rest > 0 else "")
