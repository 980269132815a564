"""Whose word counts, against a second, slow, obvious reading of the rules, over random worlds.

A world: upstreams with domains, internal domains, entries of any source with vouchers, a view, a question. The
product's `select` says what is answered and with which user IDs; `expected` says it again in the words of the rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver import openpgp
from keyserver.app import hygiene_of
from keyserver.model import Entry, Kind, Source, UpstreamSpec, View, Voucher
from keyserver.policy import Terms
from keyserver.query import ByAddress, ByFingerprint, ByText, Query
from keyserver.resolver.select import select
from keyserver.store.snapshot import Snapshot
from support.openpgp import CREATED, make

NOW = CREATED + 1000
HYGIENE = hygiene_of()
ADDRESSES = (
    "m@attacker.example",
    "ceo@here.example",
    "it@sub.here.example",
    "bob@partner.example",
    "carol@third.example",
)
DOMAINS = ("attacker.example", "here.example", "sub.here.example", "partner.example", "third.example")
OWN = "just a name"
LOOSE = {  # a user ID and the addresses that it shows to a loose reader
    "ceo@here.example <m@attacker.example>": ("m@attacker.example", "ceo@here.example"),
    "<m@attacker.example> (bob@partner.example)": ("m@attacker.example", "bob@partner.example"),
}
CERTIFICATES = tuple(
    make([*(f"N <{a}>" for a in named), OWN, *LOOSE], seed=f"word{n}", encryption=None, signed_at=CREATED + 100)
    for n, named in enumerate((ADDRESSES, ADDRESSES[:2], ADDRESSES[1:4], ADDRESSES[3:], ADDRESSES[::2]))
)
UPSTREAMS = ("public", "partner", "ours", "gone")

vouchers = st.lists(
    st.builds(
        Voucher,
        st.sampled_from(ADDRESSES),
        authenticated=st.booleans(),
        held=st.booleans(),
        approved=st.booleans(),
    ),
    max_size=3,
    unique_by=lambda v: v.address,
).map(tuple)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    source = draw(st.sampled_from(list(Source)))
    origin = draw(st.sampled_from(UPSTREAMS)) if source is Source.KEYSERVER else "somewhere"
    made = draw(st.sampled_from(CERTIFICATES))
    return Entry(
        made.fingerprint,
        Kind.OPENPGP,
        made.octets,
        source,
        origin,
        NOW,
        NOW,
        draw(vouchers),
        chained=draw(st.booleans()),
    )


domains = st.sets(st.sampled_from([*DOMAINS, "*.here.example"]), max_size=2).map(lambda s: tuple(sorted(s)))


@st.composite
def worlds(draw: st.DrawFn) -> Terms:
    named = {
        n: UpstreamSpec(n, domains=draw(domains), template=draw(st.booleans()))
        for n in UPSTREAMS
        if n != "gone" and draw(st.booleans())
    }
    return Terms(
        internal_domains=draw(st.sampled_from([(), ("here.example",), ("sub.here.example",)])), upstreams=named
    )


questions = st.one_of(
    st.sampled_from(ADDRESSES).map(lambda a: ByAddress(*a.split("@"))),
    st.sampled_from(CERTIFICATES).map(lambda m: ByFingerprint(m.fingerprint)),
    st.sampled_from(["attacker", "here", "just a", "bob"]).map(ByText),
)


@dataclass
class Rules:
    """The rules as they are written."""

    terms: Terms
    view: View

    def internal(self, domain: str) -> bool:
        return any(domain == d or domain.endswith("." + d) for d in self.terms.internal_domains)

    def listed(self, upstream: UpstreamSpec, domain: str) -> bool:
        for pattern in upstream.domains:
            if pattern == domain or (pattern[0] == "*" and domain.endswith(pattern[1:])):
                return True
        return False

    def vouches(self, entry: Entry, address: str) -> bool:
        domain = address.split("@")[1]
        if entry.source == "local":
            return True
        if entry.source == "keyserver":
            if entry.origin not in self.terms.upstreams:
                return False
            upstream = self.terms.upstreams[entry.origin]
            if upstream.template and not any(
                v.address == address and (v.authenticated or v.approved) for v in entry.vouchers
            ):
                return False
            if upstream.domains:
                return self.listed(upstream, domain)
            return not self.internal(domain)
        if self.internal(domain):
            return False
        for voucher in entry.vouchers:
            if voucher.address == address:
                good = voucher.authenticated or entry.chained
                return voucher.approved or (self.view.answer_mailflow and good and not voucher.held)
        return False

    def user_ids(self, entry: Entry, named: tuple[str, ...], *, whole: bool) -> Iterator[str]:
        """What of an entry's user IDs may be shown."""
        for text in named:
            if whole or entry.source == "local":
                yield text
            elif text in LOOSE:
                if all(self.vouches(entry, address) for address in LOOSE[text]):
                    yield text
            elif text == OWN:
                known = self.terms.upstreams.get(entry.origin) if entry.source == "keyserver" else None
                if known is not None and not known.domains:
                    yield text
            elif self.vouches(entry, text[3:-1]):
                yield text

    def expected(self, found: list[Entry], query: Query) -> dict[str, set[str]]:
        answer: dict[str, set[str]] = {}
        by_name = isinstance(query, ByAddress | ByText)
        for entry in found:
            named = NAMES[entry.fingerprint]
            if isinstance(query, ByAddress) and not self.vouches(entry, query.address):
                continue
            if entry.source == "mailflow" and not any(self.vouches(entry, v.address) for v in entry.vouchers):
                continue
            whole = not by_name and entry.source != "mailflow"
            answer.setdefault(entry.fingerprint, set()).update(self.user_ids(entry, named, whole=whole))
        return {f: ids for f, ids in answer.items() if self.proved(f, ids, query)}

    def proved(self, fingerprint: str, user_ids: set[str], query: Query) -> bool:
        if isinstance(query, ByFingerprint):
            return fingerprint == query.fingerprint
        if isinstance(query, ByText):
            return any(query.text in text.lower() for text in user_ids)
        return any(query.address in (text[3:-1], *LOOSE.get(text, ())[:1]) for text in user_ids)


NAMES = {m.fingerprint: tuple(u.text for u in openpgp.prove(m.octets, NOW).user_ids) for m in CERTIFICATES}
REVOCATIONS = {
    c.fingerprint: openpgp.revocations(
        make(NAMES[c.fingerprint], primary=c.primary, encryption=None,
             revoked_user_ids=NAMES[c.fingerprint], revoked_at=CREATED + 50).octets
    )
    for c in CERTIFICATES
}  # fmt: skip
"""Of every user ID, older than the self-signatures: nothing is revoked by them, and nothing that was cut comes back."""


@settings(max_examples=300, derandomize=True)
@given(st.lists(entries(), max_size=5), worlds(), st.booleans(), questions)
def test_an_entry_answers_an_address_only_if_its_origin_may_speak_for_it(
    found: list[Entry], terms: Terms, answer_mailflow: bool, query: Query
) -> None:
    by_place = {(e.fingerprint, e.source, e.origin): e for e in found}
    found = list(by_place.values())
    view = View(answer_mailflow=answer_mailflow)
    sifted = select(Snapshot(tuple(found), REVOCATIONS), query, view, NOW, terms, HYGIENE, None)
    got = {a.certificate.fingerprint: {u.text for u in a.certificate.proof.user_ids} for a in sifted.certificates}
    assert got == Rules(terms, view).expected(found, query)
