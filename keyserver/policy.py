"""Policy: may this be answered, is it fresh, and why. Pure functions; whoever asks gets the same word.

Rule numbers are those of the cache rules in docs/cache-rules.md.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from keyserver.domains import NONE, DomainRule, DomainRules
from keyserver.model import (
    Answered,
    Claim,
    Entry,
    Kind,
    OnChange,
    Record,
    Source,
    UpstreamSpec,
    Validity,
    View,
    Voucher,
)
from keyserver.query import ByAddress, ByText, Query, address_in, parse_address

MAILFLOW_TTL = 180 * 86400  # rule 3: fixed, no setting
MAX_ANSWER = 20  # rule 12: certificates in one answer
FOREVER = 2**53
SKEW = 60  # seconds by which clocks may differ; what is dated later than that comes from a clock that was wrong
PREFETCH_SHARE = 0.1  # the last tenth of a ttl, in which what is asked for is searched again
_EVERY_VIEW = View(answer_mailflow=True)
_BETWEEN_WORDS = re.compile(r"[\s<>()\[\]\",;:\\]+")


class Freshness(StrEnum):
    """An entry's age, judged now."""

    FRESH = "fresh"
    STALE = "stale"  # past its ttl, within serve_stale
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Terms:
    """The part of the configuration that policy goes by."""

    ttl: int = 86400
    negative_ttl: int = 900
    serve_stale: int = 0
    internal_domains: tuple[str, ...] = ()
    require_chain: bool = False
    upstreams: Mapping[str, UpstreamSpec] = field(default_factory=dict)
    domains: DomainRules = NONE
    on_change: OnChange = OnChange.REPORT

    def rule(self, address: str | None) -> DomainRule | None:
        """The rule for recipients of this address's domain."""
        return None if address is None else self.domains.of(address.rpartition("@")[2])

    def ttl_of(self, upstream: str, address: str | None = None) -> int:
        """Seconds for which what this upstream said holds, where it is about an address under the rule of its domain;
        one that left the configuration has the global ttl."""
        if (rule := self.rule(address)) is not None and rule.ttl is not None:
            return rule.ttl
        spec = self.upstreams.get(upstream)
        return self.ttl if spec is None or spec.ttl is None else spec.ttl


@dataclass(frozen=True, slots=True)
class Verdict:
    """May this entry be answered to this view, and why (not)?"""

    answerable: bool
    freshness: Freshness
    until: int  # when this verdict turns; FOREVER for never
    reason: str


def expires_at(entry: Entry, now: int, terms: Terms, address: str | None = None) -> int | None:
    """When an entry's time to live ends (rule 3), for this address where one is asked for; None: never. One from the
    future counts as cached now (rule 5)."""
    if entry.source is Source.LOCAL:
        return None
    if entry.source is Source.MAILFLOW:
        return _dated(entry.seen_at, now) + MAILFLOW_TTL
    return _dated(entry.cached_at, now) + terms.ttl_of(entry.origin, address)


def is_expired(entry: Entry, now: int, terms: Terms, address: str | None = None) -> bool:
    """Is its time to live over (rule 3)? `serve_stale` prolongs what may be answered, not this."""
    end = expires_at(entry, now, terms, address)
    return end is not None and end <= now


def is_old_mail(dated: int | None, now: int) -> bool:
    """Was a mail received so long ago that what it carries has expired (rule 3)? None: unknown, so now."""
    return dated is not None and now - dated >= MAILFLOW_TTL


def _dated(at: int, now: int) -> int:
    return now if at > now + SKEW else at


def purged_before(now: int, terms: Terms) -> dict[tuple[Source, str | None], int]:
    """Rule 3 as `Store.purge_expired` wants it; what may still be answered stale stays."""
    longest = terms.domains.longest_ttl
    cutoffs: dict[tuple[Source, str | None], int] = {
        (Source.KEYSERVER, None): now - max(terms.ttl, longest) - terms.serve_stale,
        (Source.MAILFLOW, None): now - MAILFLOW_TTL,
    }
    for name in terms.upstreams:
        cutoffs[Source.KEYSERVER, name] = now - max(terms.ttl_of(name), longest) - terms.serve_stale
    return cutoffs


def absent_before(now: int, terms: Terms) -> int:
    """Absent records of before this instant are believed no more, by no upstream's ttl (rule 11)."""
    return now - terms.negative_ttl


def due_before(now: int, terms: Terms) -> dict[str | None, int]:
    """What was found before these instants enters the last tenth of its ttl, as `Store.due` wants it."""
    ttls: dict[str | None, int] = {None: terms.ttl, **{name: terms.ttl_of(name) for name in terms.upstreams}}
    return {name: now - _ripe(ttl) for name, ttl in ttls.items()}


def is_due(record: Record, tried: int, now: int, terms: Terms) -> bool:
    """Is a ripe record worth another search: still within its ttl, and not tried a moment ago?"""
    ttl = terms.ttl_of(record.upstream, address_in(record.name))
    return now < record.at + ttl and now - tried >= max(30, (ttl - _ripe(ttl)) // 3)


def prefetch_interval(terms: Terms) -> float:
    """Seconds between two looks for what is due: ten in the last tenth of the shortest ttl."""
    shortest = min([terms.ttl, *(s.ttl for s in terms.upstreams.values() if s.ttl)])
    return max(1.0, shortest * PREFETCH_SHARE / 10)


def _ripe(ttl: int) -> int:
    """The age at which something with this ttl is searched again."""
    return ttl - max(1, int(ttl * PREFETCH_SHARE))


def judge(entry: Entry, view: View, now: int, terms: Terms, address: str | None = None) -> Verdict:
    """Rules 3, 4, 6 and 10 for one entry, asked for by this address (None: by what its key itself proves)."""
    end = expires_at(entry, now, terms, address)
    if end is None or now < end:
        freshness, until = Freshness.FRESH, FOREVER if end is None else end
    elif entry.source is Source.KEYSERVER and now < end + terms.serve_stale:
        freshness, until = Freshness.STALE, end + terms.serve_stale
    else:
        return Verdict(False, Freshness.EXPIRED, FOREVER, f"expired {now - end} s ago")
    if address is not None:
        silent = speaks(entry, address, view, terms)
    elif view.by_domain:
        silent = "" if entry.source is Source.LOCAL else "it is no local entry, and stands for no domain"
    else:
        silent = _mute(entry, view, terms) if entry.source is Source.MAILFLOW else ""
    if silent:
        return Verdict(False, freshness, until, silent)
    if (
        entry.kind is Kind.X509
        and terms.require_chain
        and not (entry.chained or approved_for(entry, address) or entry.source is Source.LOCAL)
    ):
        return Verdict(False, freshness, until, "its chain does not verify, and smime.require_chain is on")
    alone = ""
    if address is None and entry.source is Source.KEYSERVER and entry.origin not in terms.upstreams:
        alone = ", which is no upstream any more: it answers for no address"
    return Verdict(True, freshness, until, f"{entry.source} entry of {entry.origin}, {freshness}{alone}")


def speaks(entry: Entry, address: str, view: View, terms: Terms) -> str:
    """May this entry's origin speak for this address, to this view? Empty for yes, else why not (rules 6 and 10).

    A certificate names whom it likes: an upstream speaks while it would be told the address (a template, one upstream
    of many hosts, where the address's own host has sent it), mail for the address that it came from, an administrator's
    own entries for all. An approval lifts neither `domains` nor `internal_domains`. A view that speaks as the domain's
    own directory takes local entries and its owner's word, nobody else's; for a whole domain nobody speaks but an
    upstream that lists it. The rule for the domain comes first, and holds for local entries too.
    """
    domain = address.rpartition("@")[2]
    rule = terms.rule(address)
    if rule is not None and (why := rule.bars(entry, approved=approved_for(entry, address))):
        return why
    if entry.source is Source.LOCAL:
        return "a local entry stands for a domain only where the configuration names it" if view.by_domain else ""
    if entry.source is Source.KEYSERVER:
        spec = terms.upstreams.get(entry.origin)
        if spec is None:
            return f"{entry.origin} is no upstream any more, and speaks for no address"
        if why := told(spec, domain, terms):
            return f"{entry.origin} is not believed for this address: {why}"
        voucher = entry.voucher(address)
        if spec.template and (voucher is None or not (voucher.authenticated or voucher.approved)):
            return f"{entry.origin} is another host for each domain, and this address's own did not send it"
        return uncounted(spec, domain, view)
    if in_domains(domain, with_subdomains(terms.internal_domains)):
        return f"{domain} is internal, and no mail speaks for it"
    if "." not in domain:
        return f"{domain} is no public domain, and no mail speaks for it"
    if view.directory:
        return "seen in mail, which is not the word of its domain's owner"
    if view.by_domain:
        return "seen in mail, which speaks for no domain"
    if view.no_mailflow:
        return "seen in mail, which speaks for no subaddress"
    voucher = entry.voucher(address)
    if voucher is None:
        return "seen in mail, but in none from this address that is on record"
    if voucher.approved:
        return ""
    if voucher.held:
        return "seen in mail, held until an administrator approves it"
    if not (voucher.authenticated or entry.chained):
        return "seen in mail whose sender was not authenticated"
    return "" if view.answer_mailflow else "seen in mail, and this view does not answer mailflow entries"


def without_effect(entry: Entry, address: str, view: View, terms: Terms) -> str:
    """Why an approval of this entry for this address would change nothing; empty where it would."""
    others = tuple(v for v in entry.vouchers if v.address != address)
    return speaks(replace(entry, vouchers=(*others, Voucher(address, approved=True))), address, view, terms)


def approved_for(entry: Entry, address: str | None) -> bool:
    """Has an administrator approved this entry for the address (None: for any)?"""
    return any(v.approved for v in entry.vouchers if address is None or v.address == address)


def uncounted(spec: UpstreamSpec, domain: str, view: View) -> str:
    """Why this upstream's word on an address of the domain does not count in this view, which takes that of the
    domain's owner or of who lists it; empty where it does."""
    if in_domains(domain, spec.domains):
        return ""
    if view.by_domain:
        return f"{spec.name} does not list {domain}, and anybody may have registered its authority there"
    if view.directory and not spec.by_owner:
        return f"{spec.name} does not list {domain}, whose directory this answer is"
    return ""


def keeps(entry: Entry, claim: Claim, view: View, terms: Terms, asked: str | None = None) -> bool:
    """May a user ID of this entry stand in an answer that goes by its origin's word (rule 6)? `asked`: the address.

    In a directory's answer nothing stands but that very address (draft-koch-openpgp-webkey-service-21 §3.1).

    Clients read more loosely than the strict rule (gpg takes `ceo@here.example <m@attacker.example>` for either): what
    it shows beside its address must be the origin's to say, too. One without an address stays only where nothing in it
    could be taken for one, and the origin speaks for whatever it likes.
    """
    if view.directory and shown_by(claim) != {asked}:
        return False
    if entry.source is Source.LOCAL:  # but for what a domain's rule bars
        return not any(a is not None and speaks(entry, a, view, terms) for a in shown_by(claim))
    if claim.address is not None:
        return all(a is not None and not speaks(entry, a, view, terms) for a in shown_by(claim))
    spec = terms.upstreams.get(entry.origin) if entry.source is Source.KEYSERVER else None
    return spec is not None and not spec.domains and "@" not in unicodedata.normalize("NFKC", claim.text)


def shown_by(claim: Claim) -> frozenset[str | None]:
    """Addresses that a user ID shows to whoever reads it loosely: its own, and any word with an `@` inside.

    None stands for a word that is no address by the strict rule."""
    own = frozenset({claim.address} if claim.address is not None else ())
    text = unicodedata.normalize("NFKC", claim.text)
    if own and text.count("@") == 1:
        return own
    words = (word.strip(".'@") for word in _BETWEEN_WORDS.split(text) if "@" in word)
    return own.union(parse_address(word) for word in words if "@" in word)


def _mute(entry: Entry, view: View, terms: Terms) -> str:
    """Why a mailflow entry speaks for no address at all; empty where it speaks for one."""
    silent = [speaks(entry, v.address, view, terms) for v in entry.vouchers]
    if not silent:
        return "seen in mail before senders were kept: answers when it is seen or approved again"
    return min(silent)  # empty before anything else


def in_domains(domain: str, domains: Iterable[str]) -> bool:
    """Is `domain` one of these? `*.example.org` means every name below example.org, not itself."""
    return any(domain == d or (d.startswith("*.") and domain.endswith(d[1:])) for d in domains)


def hears(spec: UpstreamSpec, query: Query, terms: Terms) -> str:
    """May this upstream be told this query? Empty for yes, else the reason why not."""
    if query.kind not in spec.kinds:
        return f"it has no {query.kind} certificates"
    if isinstance(query, ByAddress):
        rule = terms.rule(query.address)
        if rule is not None and query.kind not in rule.kinds:
            return f"the rule for {rule.name} takes no {query.kind} certificates"
        return told(spec, query.domain, terms)
    if spec.template:
        return "its host is made of an address's domain, and this is no address"
    if isinstance(query, ByText) and spec.domains:
        return "free text is only told to upstreams for any domain"
    return ""


def told(spec: UpstreamSpec, domain: str, terms: Terms) -> str:
    """May this upstream be told addresses of this domain? Empty for yes, else the reason why not."""
    if spec.domains and not in_domains(domain, spec.domains):
        return f"it is only told addresses of {', '.join(spec.domains)}"
    if not spec.domains and in_domains(domain, with_subdomains(terms.internal_domains)):
        return f"{domain} is internal and this upstream does not list it"
    if not spec.domains and "." not in domain:
        return f"{domain} is a name of somebody's own network, and this upstream does not list it"
    rule = terms.domains.of(domain)
    return "" if rule is None else rule.leaves_out(spec.name)


def with_subdomains(domains: Iterable[str]) -> tuple[str, ...]:
    """Internal domains cover what lies below them: a host name inside is as private as the domain."""
    return tuple(d for domain in domains for d in (domain, f"*.{domain}"))


def is_believed(record: Record, now: int, terms: Terms) -> bool:
    """Is an upstream's word still believed (rule 11)? A word from the future is none (rule 5)."""
    return record.at <= now + SKEW and now < record_until(record, terms)


def record_until(record: Record, terms: Terms) -> int:
    """Until when an upstream's word is believed (rule 11)."""
    ttl = terms.ttl_of(record.upstream, address_in(record.name))
    return record.at + (ttl if record.found else min(ttl, terms.negative_ttl))


@dataclass(frozen=True, slots=True)
class OnRecord:
    """What is on record of earlier searches for one query (rule 11)."""

    living: Mapping[str, Record]  # upstream -> its word, where still believed
    negative: bool  # everybody who may be asked has said absent
    until: int  # when the first living record ends; FOREVER without any
    without: tuple[str, ...] = ()  # negative, although these had failed: they need not speak

    @property
    def finished(self) -> bool:
        """Is a finished search on record?"""
        return self.negative or any(r.found for r in self.living.values())

    def found_by(self, upstream: str) -> bool:
        """Has this upstream found it?"""
        record = self.living.get(upstream)
        return record is not None and record.found


def on_record(
    records: Sequence[Record], asked: Sequence[str], now: int, terms: Terms, missing: Mapping[str, int] | None = None
) -> OnRecord:
    """`asked`: names of the upstreams that may be asked now. `missing`: of those that need not speak and have failed a
    moment ago, until when that does."""
    living = {r.upstream: r for r in records if is_believed(r, now, terms)}
    silent = [name for name in asked if name not in living]
    spoken = [living[name] for name in asked if name in living]
    negative = bool(spoken) and not any(r.found for r in spoken) and all(name in (missing or {}) for name in silent)
    without = tuple(silent) if negative else ()
    ends = [record_until(r, terms) for r in living.values()] + [missing[name] for name in without if missing]
    return OnRecord(living, negative, min(ends, default=FOREVER), without)


def in_vain_until(record: OnRecord, asked: Sequence[str], terms: Terms) -> int | None:
    """When a search that has found nothing to be answered is repeated; None where there was none.

    What an upstream found that is not asked any more (`asked`: those that are) is no reason not to ask the others."""
    found = [r.at for r in record.living.values() if r.found and r.upstream in asked]
    return max(found) + terms.negative_ttl if found else None


def backed(entry: Entry, record: OnRecord, address: str | None) -> bool:
    """May this entry, which is no hit by itself, answer by what is on record (rule 10)?"""
    if entry.source is not Source.KEYSERVER or (address is not None and approved_for(entry, address)):
        return record.finished
    return record.found_by(entry.origin)


def knows(entry: Entry, address: str, records: Sequence[Record], now: int, terms: Terms) -> bool:
    """Is this address known by this entry's certificate, whatever a view may be told? `records`: of the address.

    What no origin may speak for counts for nothing, or a forged mail would keep its victim's own certificate out; nor
    does what waits for an administrator, or what an upstream sent for another question (rule 10). What mail showed
    before senders were kept came from this domain, that much is sure."""
    if is_expired(entry, now, terms, address):
        return False
    if (voucher := entry.voucher(address)) is not None and voucher.waits:
        return False
    if entry.source is Source.MAILFLOW and not entry.vouchers:
        return entry.origin == address.rpartition("@")[2]
    if speaks(entry, address, _EVERY_VIEW, terms):
        return False
    if entry.source is not Source.KEYSERVER or approved_for(entry, address):
        return True
    return on_record(records, (), now, terms).found_by(entry.origin)


_VALIDITY = {v: n for n, v in enumerate(Validity)}


def order_key(answered: Answered, terms: Terms, address: str | None = None) -> tuple[int, int, int, int, int, str]:
    """Sorts certificates of an answer as rule 12 says; an approval counts for the address that it was given for."""
    proof = answered.certificate.proof
    priorities = [
        terms.upstreams[e.origin].priority if e.origin in terms.upstreams else 1 << 30
        for e in answered.entries
        if e.source is Source.KEYSERVER
    ]
    return (
        0 if any(e.source is Source.LOCAL for e in answered.entries) else 1,
        0 if any(approved_for(e, address) for e in answered.entries) else 1,
        min(priorities, default=1 << 30),
        _VALIDITY[proof.validity],
        -proof.newest,
        proof.fingerprint,
    )
