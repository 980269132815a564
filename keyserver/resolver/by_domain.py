"""Domain certificates: what is asked when nobody has a certificate for an address. Pure.

The gateway of its domain may decrypt for all of it: the certificate that `[[domain_certificate]]` names, or that of
RFC 3183's authority (section 4.1), whose name anybody can register at a public server: only an upstream that lists the
domain counts. Which entries do is `View.by_domain`'s matter; nothing is remembered under the address's own name.
"""

from __future__ import annotations

from dataclasses import replace

from keyserver.model import Answer, Kind, View
from keyserver.policy import in_domains, with_subdomains
from keyserver.query import ByAddress, ByFingerprint, Query
from keyserver.resolver.further import is_finished_absence, together
from keyserver.resolver.rules import DomainCertificate, Rules

AUTHORITY = "domain-confidentiality-authority"
NOT_HERE = "verdicts also go by a certificate of the domain's gateway, which this view does not hand out"


def asking(view: View) -> View:
    """The view in which a domain's certificate is asked for."""
    return replace(view, by_domain=True, directory=False, no_mailflow=False)


def is_answered(view: View, rules: Rules) -> bool:
    """Does a domain's certificate count for this view?"""
    return view.verdict or rules.view(view).domain_certificates


def behind(query: Query, answer: Answer, view: View, rules: Rules) -> tuple[ByFingerprint | ByAddress, ...]:
    """What is asked for after this answer, one after the other until something is found; empty: the answer stands.

    Mail to internal domains never leaves by a gateway. A directory answers with the very address alone."""
    if view.directory or view.by_domain or not isinstance(query, ByAddress) or not is_finished_absence(answer):
        return ()
    if in_domains(query.domain, with_subdomains(rules.terms.internal_domains)):
        return ()
    rule = rules.terms.domains.of(query.domain)
    if rule is not None and query.kind not in rule.kinds:
        return ()
    if named := rows_of(query.domain, rules):
        return tuple(ByFingerprint(row.fingerprint, query.kind) for row in named if query.kind in kinds_of(row))
    authority = replace(query, local=AUTHORITY)
    if rules.domain_authority and query != authority and rules.tiers(authority, asking(view)).tiers:
        return (authority,)
    return ()


def rows_of(domain: str, rules: Rules) -> tuple[DomainCertificate, ...]:
    """Those of the most specific name that covers the domain: itself, else the longest of those above it."""
    fitting = [row for row in rules.domain_certificates if in_domains(domain, (row.domain,))]
    best = max(fitting, key=lambda row: (row.domain == domain, len(row.domain)), default=None)
    return tuple(row for row in fitting if best is not None and row.domain == best.domain)


def kinds_of(row: DomainCertificate) -> tuple[Kind, ...]:
    """Of which kinds its certificate may be: SHA-256 is the fingerprint of either."""
    return (Kind.OPENPGP,) if len(row.fingerprint) == 40 else tuple(Kind)


def by_domain(query: ByAddress, first: Answer, second: Answer) -> Answer:
    """The answer for the address by that for its domain, and said to be so; the address itself was not found."""
    joined = together(first, second, f"by the gateway of {query.domain}")
    return replace(joined, by_domain=query.domain, in_vain=False)


def authority_of(domain: str) -> str:
    """The address of the domain's authority."""
    return f"{AUTHORITY}@{domain}"
