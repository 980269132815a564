"""Rules for recipients of one domain (`[[domain]]`): who is asked and believed, what counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from keyserver.model import Entry, Kind, OnChange, Source


@dataclass(frozen=True, slots=True)
class DomainRule:
    """One rule. `name`: a domain as an A-label, or `*.` and a domain for every name below it."""

    name: str
    upstreams: tuple[str, ...] = ()  # nobody else is told or believed; empty: whoever may
    kinds: frozenset[Kind] = frozenset(Kind)  # certificates of no other kind are asked for or answered
    require_chain: bool = False  # X.509: only with a good chain, approved or local
    pinned: frozenset[str] = frozenset()  # fingerprints: nothing else answers; empty: whatever may
    on_change: OnChange | None = None  # over that of views and upstreams and the global one; None: theirs
    ttl: int | None = None  # seconds, over that of upstreams and the global one; None: theirs
    must_encrypt: bool = False  # the verdict "no" is "reject"
    reject_text: str = ""  # what whoever sends the mail is told then

    def bars(self, entry: Entry, *, approved: bool) -> str:
        """Why this entry answers no address of the domain, whoever else it may answer; empty where it may.

        `approved`: an administrator has approved it for the address."""
        if entry.kind not in self.kinds:
            return f"the rule for {self.name} takes no {entry.kind} certificates"
        if self.pinned and entry.fingerprint not in self.pinned:
            return f"the rule for {self.name} pins other certificates"
        if approved or entry.source is Source.LOCAL:
            return ""
        if self.require_chain and entry.kind is Kind.X509 and not entry.chained:
            return f"its chain does not verify, which the rule for {self.name} requires"
        if self.upstreams and entry.source is Source.MAILFLOW:
            return f"seen in mail, and the rule for {self.name} believes {', '.join(self.upstreams)} alone"
        return ""

    def leaves_out(self, upstream: str) -> str:
        """Why an upstream is neither told nor believed; empty where it is."""
        if self.upstreams and upstream not in self.upstreams:
            return f"the rule for {self.name} names {', '.join(self.upstreams)} alone"
        return ""

    def describe(self) -> Iterator[str]:
        """What it says, in a few words each."""
        if self.upstreams:
            yield f"only {', '.join(self.upstreams)} is asked and believed"
        if self.kinds != frozenset(Kind):
            yield f"only {' and '.join(sorted(self.kinds))} certificates"
        if self.require_chain:
            yield "X.509 only with a good chain, approved or local"
        if self.pinned:
            yield f"nothing answers but {', '.join(sorted(self.pinned))}"
        if self.on_change is OnChange.HOLD:
            yield "another certificate than before is held"
        if self.on_change is OnChange.REPORT:
            yield "another certificate than before is only reported"
        if self.ttl is not None:
            yield f"time to live {self.ttl} s"
        if self.must_encrypt:
            yield "mail that cannot be encrypted is rejected"


class DomainRules:
    """All of them: the most specific one holds."""

    def __init__(self, rules: Iterable[DomainRule] = ()) -> None:
        self._rules: Mapping[str, DomainRule] = {rule.name: rule for rule in rules}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DomainRules) and self._rules == other._rules

    def __hash__(self) -> int:
        return hash(frozenset(self._rules))

    def __iter__(self) -> Iterator[DomainRule]:
        return iter(self._rules.values())

    def of(self, domain: str) -> DomainRule | None:
        """The rule for this very domain, else that for all below the nearest domain above it."""
        if not self._rules:
            return None
        if (found := self._rules.get(domain)) is not None:
            return found
        while domain := domain.partition(".")[2]:
            if (found := self._rules.get(f"*.{domain}")) is not None:
                return found
        return None

    @property
    def longest_ttl(self) -> int:
        """Seconds; 0 where none says one."""
        return max((rule.ttl for rule in self if rule.ttl is not None), default=0)


NONE = DomainRules()
"""No rule for any domain."""
