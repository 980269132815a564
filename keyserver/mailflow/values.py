"""The words of the mail flow: what is known about a mail, what was found in it, and why nothing was cached.

A reason's text names no address and no fingerprint: it may stand in any log. What names them is `detail`, for
administrators who ask.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from keyserver.config.kinds import Address, Network
from keyserver.model import Certificate, Kind, View
from keyserver.policy import Terms
from keyserver.wire.dsn import Failure


class Why(StrEnum):
    """Why nothing (or not everything) of a mail was cached; or that it was."""

    CACHED = "cached"
    HELD = "held"  # cached, and waits for approval
    OUTBOUND = "outbound"
    INTERNAL = "internal sender"  # outbound, or forged
    NO_SENDER = "no usable From"
    UNAUTHENTICATED = "sender not authenticated"
    NO_CERTIFICATE = "no certificate"
    ENCRYPTED = "encrypted"
    NESTED = "forwarded message"
    MISMATCH = "address mismatch"
    INVALID = "signature invalid"
    UNREADABLE = "unreadable"
    REFUSED = "certificate refused"
    BLOCKED = "blocked"
    TOO_LARGE = "too large"
    TOO_OLD = "too old"
    FULL = "cache full"
    DELETED = "deleted meanwhile"
    SHED = "too much mail at once"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Remark:
    """One reason: its kind, a sentence without identities, and what it is about, for administrators."""

    why: Why
    text: str
    detail: str = ""


class Way(StrEnum):
    """How a mail came to us."""

    MILTER = "milter"
    LMTP = "lmtp"
    FILE = "file"  # API and command line


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the transport said of a mail; empty where it said nothing."""

    way: Way
    local: str = ""  # the address of our mail server that took it
    client: str = ""  # the address of whoever handed it to our mail server
    user: str = ""  # the name that the client authenticated with
    sender: str = ""  # envelope sender, bare
    queue_id: str = ""  # the mail server's, for finding the mail in its log

    @property
    def from_nobody(self) -> bool:
        """Was it sent with the null reverse-path (RFC 5321 section 4.5.5)? Files say nothing of that."""
        return self.way is not Way.FILE and not self.sender


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail on its way through the harvest. `cut`: it was larger than is read, and the octets are gone."""

    envelope: Envelope
    octets: bytes = field(repr=False)
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """The part of the configuration that the harvest goes by."""

    inbound_addresses: frozenset[Address] = frozenset()
    outbound_networks: tuple[Network, ...] = ()
    authserv_id: str = ""
    require_authenticated_sender: bool = False
    internal_domains: tuple[str, ...] = ()  # with their subdomains
    hold_changed: bool = True
    max_certificate: int = 1 << 20  # octets after cleaning
    terms: Terms = field(default_factory=Terms)
    views: tuple[View, ...] = ()


@dataclass(frozen=True, slots=True)
class Direction:
    """Where a mail goes, by which rule, and the sentence about it."""

    inbound: bool
    rule: str  # inbound_addresses, authenticated, outbound_networks, internal_domains, or nothing
    text: str
    why: Why = Why.OUTBOUND


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something in a mail that may prove its sender's address. `certificate`: already clean (X.509)."""

    kind: Kind
    how: str  # "S/MIME signature", "attached key", "Autocrypt header", "key in the text"
    octets: bytes = field(repr=False)
    others: tuple[bytes, ...] = field(default=(), repr=False)  # what may complete its chain
    certificate: Certificate | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What reading one mail showed."""

    sender: str | None
    direction: Direction
    authenticated: bool = False
    message_id: str = ""
    dated: int | None = None  # when our own mail server received it, as it says
    candidates: tuple[Candidate, ...] = ()
    remarks: tuple[Remark, ...] = ()
    failure: Failure | None = None  # of a mail that came back, by a notification from nobody


@dataclass(frozen=True, slots=True)
class Caught:
    """What became of one certificate."""

    fingerprint: str
    kind: Kind
    how: str
    result: Why
    new: bool  # no entry of this mail's sender had it before
    chained: bool
    reasons: tuple[str, ...] = ()  # why it is held
    changed: tuple[str, ...] = ()  # fingerprints that the address showed before


@dataclass(frozen=True, slots=True)
class Report:
    """The report on one mail: for `--explain`, the log and the API."""

    verdict: Why  # cached, held, or the first reason why nothing was
    text: str
    direction: str  # inbound, outbound
    rule: str
    sender: str
    authenticated: bool
    message_id: str
    way: Way
    queue_id: str
    explained: bool  # only said what would happen
    certificates: tuple[Caught, ...] = ()
    remarks: tuple[Remark, ...] = ()
