"""Policy: may this be answered, is it fresh, and why. Pure functions; whoever asks gets the same word.

Rule numbers are those of the cache rules in docs/cache-rules.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from keyserver.model import Answered, Entry, Kind, Record, Source, UpstreamSpec, Validity, View
from keyserver.query import ByAddress, ByText, Query

MAILFLOW_TTL = 180 * 86400  # rule 3: fixed, no setting
MAX_ANSWER = 20  # rule 12: certificates in one answer
FOREVER = 2**53


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

    def ttl_of(self, upstream: str) -> int:
        """Seconds for which what this upstream said holds; one that left the configuration has the global ttl."""
        spec = self.upstreams.get(upstream)
        return self.ttl if spec is None or spec.ttl is None else spec.ttl


@dataclass(frozen=True, slots=True)
class Verdict:
    """May this entry be answered to this view, and why (not)?"""

    answerable: bool
    freshness: Freshness
    until: int  # when this verdict turns; FOREVER for never
    reason: str


def expires_at(entry: Entry, terms: Terms) -> int | None:
    """When an entry's time to live ends (rule 3); None: never."""
    if entry.source is Source.LOCAL:
        return None
    if entry.source is Source.MAILFLOW:
        return entry.seen_at + MAILFLOW_TTL
    return entry.cached_at + terms.ttl_of(entry.origin)


def judge(entry: Entry, view: View, now: int, terms: Terms) -> Verdict:
    """Rules 3, 4 and 6 for one entry."""
    end = expires_at(entry, terms)
    if end is None or now < end:
        freshness, until = Freshness.FRESH, FOREVER if end is None else end
    elif entry.source is Source.KEYSERVER and now < end + terms.serve_stale:
        freshness, until = Freshness.STALE, end + terms.serve_stale
    else:
        return Verdict(False, Freshness.EXPIRED, FOREVER, f"expired {now - end} s ago")
    if entry.source is Source.MAILFLOW and not entry.approved:
        if entry.held:
            return Verdict(False, freshness, until, "seen in mail, held until an administrator approves it")
        if not view.answer_mailflow:
            return Verdict(False, freshness, until, "seen in mail, and this view does not answer mailflow entries")
    if (
        entry.kind is Kind.X509
        and terms.require_chain
        and not (entry.chained or entry.approved or entry.source is Source.LOCAL)
    ):
        return Verdict(False, freshness, until, "its chain does not verify, and smime.require_chain is on")
    return Verdict(True, freshness, until, f"{entry.source} entry of {entry.origin}, {freshness}")


def in_domains(domain: str, domains: Iterable[str]) -> bool:
    """Is `domain` one of these? `*.example.org` means every name below example.org, not itself."""
    return any(domain == d or (d.startswith("*.") and domain.endswith(d[1:])) for d in domains)


def hears(spec: UpstreamSpec, query: Query, terms: Terms) -> str:
    """May this upstream be told this query? Empty for yes, else the reason why not."""
    if query.kind not in spec.kinds:
        return f"it has no {query.kind} certificates"
    if isinstance(query, ByAddress):
        if spec.domains and not in_domains(query.domain, spec.domains):
            return f"it is only told addresses of {', '.join(spec.domains)}"
        if not spec.domains and in_domains(query.domain, with_subdomains(terms.internal_domains)):
            return f"{query.domain} is internal and this upstream does not list it"
        if not spec.domains and "." not in query.domain:
            return f"{query.domain} is a name of somebody's own network, and this upstream does not list it"
        return ""
    if spec.template:
        return "its host is made of an address's domain, and this is no address"
    if isinstance(query, ByText) and spec.domains:
        return "free text is only told to upstreams for any domain"
    return ""


def with_subdomains(domains: Iterable[str]) -> tuple[str, ...]:
    """Internal domains cover what lies below them: a host name inside is as private as the domain."""
    return tuple(d for domain in domains for d in (domain, f"*.{domain}"))


def admits(entry: Entry, query: Query, terms: Terms) -> bool:
    """An entry answers an address only if its upstream would be told that address (rule 10, last sentence)."""
    if not isinstance(query, ByAddress) or entry.source is not Source.KEYSERVER or entry.approved:
        return True
    spec = terms.upstreams.get(entry.origin)
    return spec is None or not hears(spec, query, terms)


def record_until(record: Record, terms: Terms) -> int:
    """Until when an upstream's word is believed (rule 11)."""
    ttl = terms.ttl_of(record.upstream)
    return record.at + (ttl if record.found else min(ttl, terms.negative_ttl))


_VALIDITY = {v: n for n, v in enumerate(Validity)}


def order_key(answered: Answered, terms: Terms) -> tuple[int, int, int, int, int, str]:
    """Sorts certificates of an answer as rule 12 says."""
    proof = answered.certificate.proof
    priorities = [
        terms.upstreams[e.origin].priority if e.origin in terms.upstreams else 1 << 30
        for e in answered.entries
        if e.source is Source.KEYSERVER
    ]
    return (
        0 if any(e.source is Source.LOCAL for e in answered.entries) else 1,
        0 if any(e.approved for e in answered.entries) else 1,
        min(priorities, default=1 << 30),
        _VALIDITY[proof.validity],
        -proof.newest,
        proof.fingerprint,
    )
