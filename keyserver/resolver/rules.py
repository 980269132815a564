"""What lookups, searches and upkeep go by, in one value that never changes; `rules.InForce` holds that of now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from keyserver.model import OnChange, View
from keyserver.policy import Terms, hears
from keyserver.query import ByText, Query
from keyserver.resolver.plan import Tiers, tiers_of
from keyserver.upstreams.base import Upstream


@dataclass(frozen=True, slots=True)
class DomainCertificate:
    """A domain, or `*.` and one for all below it, whose gateway decrypts for everybody there: by which certificate."""

    domain: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Rules:
    """Read them at each use, and again after each wait.

    deadline: seconds in which a lookup answers. max_certificate: octets after cleaning. searches: under way at once.
    purge_interval, revocation_interval: seconds. subaddress: what begins the tag of an address, in these domains;
    empty: nothing does. domain_authority: the word of who lists a domain counts for its authority (RFC 3183)."""

    terms: Terms = field(default_factory=Terms)
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)
    text_search: str = "off"  # "off", "cache", "upstream"
    deadline: float = 5.0
    max_certificate: int = 1 << 20
    searches: int = 1000
    prefetch: bool = True
    purge_interval: int = 900
    revocation_interval: int = 86400
    subaddress: str = ""
    subaddress_domains: tuple[str, ...] = ()
    domain_certificates: tuple[DomainCertificate, ...] = ()
    domain_authority: bool = False

    @property
    def holds(self) -> bool:
        """May a certificate be held because another one answered before it?"""
        rules, specs = self.terms.domains, self.terms.upstreams.values()
        words = [r.on_change for r in rules] + [s.on_change for s in specs] + [v.on_change for v in self.views.values()]
        return OnChange.HOLD in (self.terms.on_change, *words)

    def view(self, view: View) -> View:
        """The policy of the view of that name, for this question; one that they do not name keeps its own."""
        found = self.views.get(view.name, view)
        if view.directory or view.no_mailflow or view.verdict or view.by_domain:
            return replace(
                found,
                directory=view.directory,
                no_mailflow=view.no_mailflow,
                verdict=view.verdict,
                by_domain=view.by_domain,
            )
        return found

    def tiers(self, query: Query, view: View = View()) -> Tiers:
        """Who may be told this query for this view, in which order."""
        if isinstance(query, ByText) and self.text_search != "upstream":
            return Tiers((), {})
        return tiers_of((u.spec for u in self.upstreams.values()), query, self.terms, view)

    def asks(self, tiers: Tiers) -> tuple[tuple[Upstream, ...], ...]:
        """Their upstreams: what makes one search another than the next, by these rules or by others."""
        return tuple(tuple(self.upstreams[spec.name] for spec in tier) for tier in tiers.tiers)

    def silences(self, upstream: Upstream, query: Query) -> str:
        """Why an upstream is neither told this query nor believed about it; empty where it is both."""
        if self.upstreams.get(upstream.spec.name) is not upstream:
            return "it is no upstream any more"
        if isinstance(query, ByText) and self.text_search != "upstream":
            return "text is not asked of upstreams"
        return hears(upstream.spec, query, self.terms)
