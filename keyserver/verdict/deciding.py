"""The verdict on one address, from what lookups of it gave. Pure: the one place in which it is decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from keyserver.domains import DomainRule
from keyserver.model import PASSED_OVER, Answer, Answered, Kind, Name, Source, joined
from keyserver.policy import FOREVER, approved_for
from keyserver.resolver.by_domain import authority_of
from keyserver.resolver.further import is_finished_absence
from keyserver.usable import ends_by, unusable

NOT_ALONE = "it is that of the domain's gateway, and the address has one of its own, or may have one"
REJECTED = "mail to this domain must be encrypted, and no certificate for the recipient may be used"
"""What whoever sends the mail is told, where the rule says nothing else."""


class Word(StrEnum):
    """What is decided."""

    YES = "yes"
    NO = "no"
    REJECT = "reject"  # no, and the rule for its domain wants no mail to leave in clear
    UNKNOWN = "unknown"  # an upstream that must speak has not: nobody knows


class Kinds(StrEnum):
    """Which certificates a policy asks for."""

    OPENPGP = "openpgp"
    SMIME = "smime"
    EITHER = "either"
    BOTH = "both"

    @property
    def asked(self) -> tuple[Kind, ...]:
        """Those that are looked up."""
        return {Kinds.OPENPGP: (Kind.OPENPGP,), Kinds.SMIME: (Kind.X509,)}.get(self, (Kind.OPENPGP, Kind.X509))


@dataclass(frozen=True, slots=True)
class Policy:
    """A named question (`[[verdict.policy]]`): which certificates count."""

    name: str = "encrypt"
    kinds: Kinds = Kinds.EITHER
    view: str = "default"
    chained: bool = False  # only X.509 certificates with a good chain; an OpenPGP certificate has none
    approved: bool = False  # only local entries, and those that an administrator approved for the address
    valid_for: int = 0  # seconds that it must still be valid


@dataclass(frozen=True, slots=True)
class Usable:
    """A certificate that mail to the address can be encrypted with."""

    kind: Kind
    fingerprint: str
    source: Source
    origin: str
    since: int  # Unix seconds: when it was cached first
    expires: int | None  # the first instant at which it can be used no more by itself; None: never
    chained: bool
    approved: bool
    by_domain: str = ""  # it is that of this domain's gateway; empty: the address's own


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is decided, and why. It holds until `until` (Unix seconds) unless one of `names` changes."""

    address: str
    word: Word
    reason: str
    certificates: tuple[Usable, ...] = ()
    missing: tuple[str, ...] = ()  # upstreams whose word is missing, whether or not they must speak
    names: frozenset[Name] = frozenset()
    until: int = 0
    keep: bool = False  # may it be given again without asking?
    text: str = ""  # of a reject: what whoever sends the mail is told


def decide(
    address: str, policy: Policy, answers: Mapping[Kind, Answer], now: int, rule: DomainRule | None = None
) -> Verdict:
    """The verdict by the answers to the address, one for each kind that the policy asks for. `rule`: of its domain.

    A domain's certificate counts only where the address is known to have none of its own, of whatever kind: mail that
    its owner alone should read does not go to the gateway instead."""
    alone = all(answer.by_domain or is_finished_absence(answer) for answer in answers.values())
    usable: dict[Kind, tuple[Usable, ...]] = {}
    reasons: list[str] = []
    until = min((answer.until for answer in answers.values()), default=now)
    for kind, answer in answers.items():
        found: list[Usable] = []
        answered_for = authority_of(answer.by_domain) if answer.by_domain else address
        for one in answer.certificates:
            why = "" if alone or not answer.by_domain else NOT_ALONE
            if why := why or unfit(one, policy, answered_for, now):
                reasons.append(f"{one.certificate.fingerprint}: {why}")
            else:
                found.append(_usable(one, answered_for, answer.by_domain))
            until = min(until, _turns(one, policy, now))
        usable[kind] = tuple(found)
    lacking = [kind for kind, found in usable.items() if not found]
    enough = not lacking if policy.kinds is Kinds.BOTH else len(lacking) < len(usable)
    if enough:
        word, reason = Word.YES, _named(usable)
    elif open_ := [kind for kind in lacking if not answers[kind].final]:
        word, reason = Word.UNKNOWN, answers[open_[0]].reason
        if policy.kinds is Kinds.BOTH and len(open_) < len(lacking):
            word, reason = Word.NO, _why_not([k for k in lacking if k not in open_], answers, reasons)
    else:
        word, reason = Word.NO, _why_not(lacking, answers, reasons)
    text = ""
    if word is Word.NO and rule is not None and rule.must_encrypt:
        word, text = Word.REJECT, rule.reject_text or REJECTED
        reason = f"{reason}; the rule for {rule.name} lets no mail leave in clear"
    return Verdict(
        address=address,
        word=word,
        reason=reason,
        text=text,
        certificates=tuple(one for found in usable.values() for one in found) if enough else (),
        missing=tuple(dict.fromkeys(name for answer in answers.values() for name in answer.missing)),
        names=frozenset().union(*(answer.names for answer in answers.values())),
        until=until,
        keep=all(answer.keep for answer in answers.values()),
    )


def unfit(one: Answered, policy: Policy, address: str, now: int) -> str:
    """Why mail is not to be encrypted with this certificate, which answers for this address, under this policy; empty
    where it may be."""
    if why := unusable(one.certificate.proof):
        return why
    if policy.valid_for and (why := ends_by(one.certificate.proof, now, now + policy.valid_for)):
        return f"{why} within the time that the policy asks for"
    if policy.chained and not any(entry.chained for entry in one.entries):
        return "it has no good chain"
    if policy.approved and not _approved(one, address):
        return "it is not approved for this address"
    return ""


def _approved(one: Answered, address: str) -> bool:
    return any(entry.source is Source.LOCAL or approved_for(entry, address) for entry in one.entries)


def _usable(one: Answered, address: str, by_domain: str) -> Usable:
    proof, entries = one.certificate.proof, one.entries
    best = next(entry for entry in entries if entry.source is one.source)
    return Usable(
        kind=proof.kind,
        fingerprint=proof.fingerprint,
        source=one.source,
        origin=best.origin,
        since=min(entry.cached_at for entry in entries),
        expires=proof.expires,
        chained=any(entry.chained for entry in entries),
        approved=_approved(one, address),
        by_domain=by_domain,
    )


def _turns(one: Answered, policy: Policy, now: int) -> int:
    """The next instant at which the certificate counts otherwise, as far as its own times and the policy's go."""
    proof = one.certificate.proof
    ends = [proof.expires, *(s.expires for s in proof.subkeys if s.can_encrypt)]
    turns = [end - policy.valid_for for end in ends if end is not None and end - policy.valid_for > now]
    return min([*turns, proof.turns or FOREVER])


def _named(usable: Mapping[Kind, tuple[Usable, ...]]) -> str:
    """What there is, in a few words."""
    return "; ".join(f"{kind} {_of(each[0])}" for kind, each in usable.items() if each)


def _of(one: Usable) -> str:
    behind = f", by the gateway of {one.by_domain}" if one.by_domain else ""
    return f"{one.fingerprint} of {one.source} {one.origin}{behind}"


def _why_not(lacking: list[Kind], answers: Mapping[Kind, Answer], reasons: list[str]) -> str:
    """Why there is nothing to encrypt with: what there is may not be used, or nobody has anything."""
    passed = [s.why for kind in lacking for s in answers[kind].steps if s.what == PASSED_OVER]
    if reasons or passed:
        return f"what there is may not be used: {joined([*reasons, *dict.fromkeys(passed)])}"
    return "nobody has a certificate for it"
