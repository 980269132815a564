"""Whose word counts, in random worlds: mail, searches, imports, approvals, renames, rules for domains, over the real
store and resolver.

The second implementation keeps a plain list of what has happened and reads all of it again for every question.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from keyserver.domains import DomainRule, DomainRules
from keyserver.model import Failed, Fault, Kind, Source, UpstreamSpec, View
from keyserver.query import parse
from scenarios.world import World, view_of

T = TypeVar("T")
NAMED = {
    "mallory": ("m@attacker.example", "ceo@here.example", "bob@partner.example"),
    "bob": ("bob@partner.example", "m@attacker.example"),
    "ceo": ("ceo@here.example",),
}
ADDRESSES = sorted({a for named in NAMED.values() for a in named})
SPECS = {
    "public": {},
    "partner": {"domains": ("partner.example",)},
    "ours": {"domains": ("here.example",)},
    "own": {"template": True},
}
CERTIFICATES, PEERS = st.sampled_from(sorted(NAMED)), st.sampled_from(sorted(SPECS))


@dataclass(frozen=True)
class Fact:
    """Something that has happened: a certificate came from an origin, or was approved."""

    what: str  # mail, sent, local, approved
    certificate: str
    source: Source
    origin: str
    address: str = ""  # the mail's sender; what was approved
    good: bool = True  # mail: authenticated
    held: bool = False
    asked: str = ""  # sent: the address that was asked for; empty: a fingerprint


@dataclass(frozen=True)
class Of:
    """What is said of the recipients of some domain. Empty: nothing."""

    upstreams: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()  # certificates


class Worlds(RuleBasedStateMachine):
    """Each rule does something to the world and notes it; the invariant compares all answers with the notes."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.world = World(Path(self.directory.name))
        self.world.terms = replace(self.world.terms, internal_domains=("here.example",), ttl=999 * 86400)
        self.facts: list[Fact] = []
        self.domains: dict[str, Of] = {}
        self.names = {peer: peer for peer in SPECS}  # what each is called now; "" when it was removed
        for name, addresses in NAMED.items():
            self.world.certificate(name, *(f"N <{a}>" for a in addresses), "no address", encryption=None)
        for peer, options in SPECS.items():
            self.world.upstream(peer, **options)
        self.run(self.world.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.world.stop())
        self.runner.close()
        self.directory.cleanup()

    # --- what happens

    @rule(certificate=CERTIFICATES, n=st.integers(0, 2), good=st.booleans(), held=st.booleans())
    def mail(self, certificate: str, n: int, good: bool, held: bool) -> None:
        sender = NAMED[certificate][n % len(NAMED[certificate])]
        self.run(self.world.mail(certificate, sender, held=held, authenticated=good))
        domain = sender.partition("@")[2]
        self.facts.append(Fact("mail", certificate, Source.MAILFLOW, domain, sender, good, held))

    @rule(certificate=CERTIFICATES, peer=PEERS, n=st.integers(0, 3))
    def an_upstream_sends(self, certificate: str, peer: str, n: int) -> None:
        """For an address that it is told, or for the fingerprint."""
        name, spec = self.names[peer], SPECS[peer]
        if not name:
            return
        address = "" if n == 3 else NAMED[certificate][n % len(NAMED[certificate])]
        if spec.get("template") and not address:
            return
        if address and (not self.told(self.world.upstreams[name].spec, address) or "x509" in self.of(address).kinds):
            return
        term = address or self.world.certificates[certificate].fingerprint
        for other in self.world.upstreams.values():
            other.answers.clear()
        self.world.upstreams[name].answers[term] = self.world.found(certificate)
        self.run(self.refreshed(term))
        self.facts.append(Fact("sent", certificate, Source.KEYSERVER, name, asked=address))

    async def refreshed(self, term: str) -> None:
        await self.world.resolver.refresh(parse(term))
        while self.world.resolver.searches:
            await asyncio.sleep(0.001)

    @rule(certificate=CERTIFICATES)
    def an_import(self, certificate: str) -> None:
        self.run(self.world.keep(certificate))
        self.facts.append(Fact("local", certificate, Source.LOCAL, "admin"))

    @rule(data=st.data())
    def an_approval(self, data: st.DataObject) -> None:
        come = sorted({(f.certificate, f.source, f.origin) for f in self.facts if f.what != "approved"})
        if not come:
            return
        certificate, source, origin = data.draw(st.sampled_from(come))
        address = data.draw(st.sampled_from(NAMED[certificate]))
        fingerprint = self.world.certificates[certificate].fingerprint
        assert self.run(self.world.store.approve(fingerprint, source, origin, address))
        self.facts.append(Fact("approved", certificate, source, origin, address))

    @rule(peer=PEERS, name=st.sampled_from(["", "new", "back"]))
    def a_new_name(self, peer: str, name: str) -> None:
        """Renamed, removed, or called as at first again."""
        self.world.upstreams.pop(self.names[peer], None)
        self.names[peer] = {"": "", "new": f"new {peer}", "back": peer}[name]
        if self.names[peer]:
            self.world.upstream(self.names[peer], **SPECS[peer])
        specs = {u.spec.name: u.spec for u in self.world.upstreams.values()}
        self.world.terms = replace(self.world.terms, upstreams=specs)
        self.run(self.world.play("restart"))

    @rule(
        name=st.sampled_from(["partner.example", "attacker.example", "here.example", "*.example"]),
        said=st.builds(
            Of,
            st.lists(PEERS, max_size=2, unique=True).map(tuple),
            st.sampled_from([(), (), ("openpgp",), ("x509",)]),
            st.lists(CERTIFICATES, max_size=1).map(tuple),
        ),
    )
    def a_rule_for_a_domain(self, name: str, said: Of) -> None:
        self.domains[name] = said
        made = [
            DomainRule(
                domain,
                of.upstreams,
                frozenset(map(Kind, of.kinds)) or frozenset(Kind),
                pinned=frozenset(self.world.certificates[one].fingerprint for one in of.pinned),
            )
            for domain, of in self.domains.items()
        ]
        self.world.terms = replace(self.world.terms, domains=DomainRules(made))
        self.run(self.world.play("restart"))

    # --- what the rules say of it

    def of(self, address: str) -> Of:
        domain = address.partition("@")[2]
        return self.domains.get(domain) or self.domains.get("*.example") or Of()

    def told(self, spec: UpstreamSpec, address: str) -> bool:
        domain, of = address.partition("@")[2], self.of(address)
        if of.upstreams and spec.name not in of.upstreams:
            return False
        return domain in spec.domains if spec.domains else domain != "here.example"

    def vouched(self, fact: Fact, address: str, view: View) -> bool:
        """May the origin of this entry speak for the address?"""
        same = [f for f in self.facts if (f.certificate, f.origin) == (fact.certificate, fact.origin)]
        same = [f for f in same if f.source is fact.source]
        approved = any(f.what == "approved" and f.address == address for f in same)
        of = self.of(address)
        if "openpgp" not in (of.kinds or ("openpgp",)) or fact.certificate not in (of.pinned or NAMED):
            return False
        if fact.source is Source.LOCAL:
            return True
        if fact.source is Source.KEYSERVER:
            upstream = self.world.upstreams.get(fact.origin)
            own = approved or any(f.asked == address for f in same)
            return upstream is not None and self.told(upstream.spec, address) and (own or not upstream.spec.template)
        mails = [f for f in same if f.what == "mail" and f.address == address]
        first = same.index(mails[0]) if mails else 0
        waits = bool(mails) and mails[0].held  # the first mail decides, until an administrator does
        if any(f.what == "approved" and f.address == address for f in same[:first]):
            waits = False
        good = any(f.good for f in mails) and not of.upstreams and not waits and view.answer_mailflow
        return address.partition("@")[2] != "here.example" and (approved or good)

    def shown(self, fact: Fact, view: View) -> set[str]:
        upstream = self.world.upstreams.get(fact.origin) if fact.source is Source.KEYSERVER else None
        anything = fact.source is Source.LOCAL or (upstream is not None and not upstream.spec.domains)
        own = {"no address"} if anything else set()
        return own | {f"N <{a}>" for a in NAMED[fact.certificate] if self.vouched(fact, a, view)}

    def expected(self, address: str, view: View, *, backed: bool) -> dict[str, set[str]]:
        """`backed`: only what a finished search for this very address stands behind."""
        answer: dict[str, set[str]] = {}
        finds = {f.origin for f in self.facts if f.asked == address}
        for certificate in NAMED:
            usable = {
                (f.source, f.origin): f
                for f in self.facts
                if f.certificate == certificate and address in NAMED[certificate] and self.vouched(f, address, view)
            }
            if backed and not any(source is Source.LOCAL for source, _ in usable):
                approved = {(f.source, f.origin) for f in self.facts if f.what == "approved" and f.address == address
                            and f.certificate == certificate}  # fmt: skip
                usable = {
                    place: f
                    for place, f in usable.items()
                    if (finds if place[0] is not Source.KEYSERVER or place in approved else place[1] in finds)
                }
            for fact in usable.values():
                answer.setdefault(certificate, set()).update(self.shown(fact, view))
        return answer

    @invariant()
    def every_answer_is_what_the_rules_say(self) -> None:
        """All addresses, while all upstreams fail: what is known is answered, and nothing that nobody vouches for."""
        for upstream in self.world.upstreams.values():
            upstream.answers.clear()
            upstream.otherwise = lambda: Failed("down", Fault.LOCAL)  # local: leaves the circuit alone
        self.run(self.world.play("pass 16m"))
        by_fingerprint = {m.fingerprint: n for n, m in self.world.certificates.items()}
        for address in ADDRESSES:
            for view in (View(), view_of(answer_mailflow=True)):
                answer = self.run(self.world.get(address, view))
                got = {
                    by_fingerprint[a.certificate.fingerprint]: {u.text for u in a.certificate.proof.user_ids}
                    for a in answer.certificates
                }
                asked = [u for u in self.world.upstreams.values() if self.told(u.spec, address)]
                wanted = self.expected(address, view, backed=bool(asked) and "x509" not in self.of(address).kinds)
                wanted = wanted or self.expected(address, view, backed=False)
                assert got == wanted, f"{address}: {answer.reason}"


def test_nobody_is_answered_for_whom_no_origin_speaks() -> None:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Worlds,
        settings=settings(
            max_examples=20, stateful_step_count=16, deadline=None, derandomize=True, suppress_health_check=checks
        ),
    )
