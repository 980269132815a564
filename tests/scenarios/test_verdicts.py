"""In random worlds: whom mail can be encrypted to is whom a lookup of the same view finds usable certificates for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyserver.model import Answer, OnChange, State, Validity, View
from keyserver.verdict.deciding import Kinds, Policy, Verdict, Word
from scenarios.world import START, World, view_of
from support.openpgp import CREATED

DAY = 86400
MADE: dict[str, dict[str, object]] = {
    "usable": {},
    "sign only": {"encryption": None},
    "expired": {"expires": 1000},
    "revoked": {"revoked": 0},
    "its subkey expired": {"subkey_expires": 1000},
    "its subkey revoked": {"subkeys_revoked": 0},
    "expires soon": {"expires": START - CREATED + DAY},
}
ADDRESSES = ("alice@example.org", "bob@partner.example")
WAYS = ("sent", "local", "mail", "held", "approved")
Known = tuple[str, str, str]  # what is made, for which address, how it came

known = st.lists(
    st.tuples(st.sampled_from(sorted(MADE)), st.sampled_from(ADDRESSES), st.sampled_from(WAYS)), max_size=5
)


async def known_in(world: World, things: list[Known], failing: str | None) -> None:
    """Put what is known into a world; the upstream has what is sent, and fails for one address."""
    upstream = world.upstream("public")
    sent: dict[str, list[str]] = {}
    for number, (made, address, way) in enumerate(things):
        name = f"{number} {made}"
        world.certificate(name, f"N <{address}>", **MADE[made])
        if way == "sent":
            sent.setdefault(address, []).append(name)
    for address, names in sent.items():
        upstream.answers[address] = world.found(*names)
    if failing:
        upstream.answers[failing] = world.outcome(["timeout"])
    await world.start()
    for number, (made, address, way) in enumerate(things):
        name = f"{number} {made}"
        if way == "local":
            await world.keep(name)
        elif way != "sent":
            await world.mail(name, address, held=way != "mail")
            if way == "approved":
                await world.approve(name, address)


def expected(verdict: Verdict, found: list[str], state: State) -> None:
    assert [one.fingerprint for one in verdict.certificates] == found
    if found:
        assert verdict.word is Word.YES
    else:
        assert verdict.word is (Word.UNKNOWN if state in (State.FAILED, State.BUSY) else verdict.word)
        assert verdict.word is not Word.YES


@settings(max_examples=25, deadline=None)
@given(things=known, mailflow=st.booleans(), failing=st.sampled_from([None, *ADDRESSES]))
@example([("usable", ADDRESSES[0], "sent"), ("revoked", ADDRESSES[0], "sent")], False, None)
@example([("sign only", ADDRESSES[0], "local"), ("usable", ADDRESSES[0], "mail")], True, None)
@example([("its subkey expired", ADDRESSES[0], "sent"), ("usable", ADDRESSES[1], "held")], False, ADDRESSES[1])
def test_a_yes_names_what_a_lookup_finds_usable(things: list[Known], mailflow: bool, failing: str | None) -> None:
    view: View = view_of(mailflow)

    async def compare() -> None:
        with TemporaryDirectory() as directory:
            world = World(Path(directory))
            await known_in(world, things, failing)
            try:
                for address in ADDRESSES:
                    verdict = await world.verdicts.of(address, Policy(kinds=Kinds.OPENPGP, view=view.name))
                    answer = await world.get(address, view)
                    proofs = [one.certificate.proof for one in answer.certificates]
                    usable = [p.fingerprint for p in proofs if p.validity is Validity.VALID and p.can_encrypt]
                    expected(verdict, usable, answer.state)
                    if not mailflow:
                        looked = await world.service.lookup(address)
                        assert (looked.verdict == "usable") == (verdict.word is Word.YES)
            finally:
                await world.stop()

    asyncio.run(compare())


@settings(max_examples=25, deadline=None)
@given(before=known, after=known, mailflow=st.booleans(), waited=st.sampled_from(["0", "25h", "400d"]))
@example([("usable", ADDRESSES[0], "sent")], [("usable", ADDRESSES[0], "sent")], False, "25h")
@example([("usable", ADDRESSES[0], "sent")], [("usable", ADDRESSES[0], "local")], False, "25h")
@example([("usable", ADDRESSES[0], "mail")], [("usable", ADDRESSES[0], "sent")], True, "400d")
@example([("usable", ADDRESSES[0], "sent")], [("usable", ADDRESSES[0], "approved")], False, "25h")
@example([("its subkey expired", ADDRESSES[0], "sent")], [("usable", ADDRESSES[0], "sent")], False, "25h")
@example([("expires soon", ADDRESSES[0], "sent")], [("usable", ADDRESSES[0], "sent")], False, "25h")
@example(
    [("expired", ADDRESSES[0], "sent"), ("expired", ADDRESSES[1], "sent")],
    [("expired", ADDRESSES[0], "local"), ("expired", ADDRESSES[1], "sent")],
    False,
    "25h",
)
def test_what_is_held_is_held_from_views_and_verdicts(
    before: list[Known], after: list[Known], mailflow: bool, waited: str
) -> None:
    """Nobody is given another certificate than before, but what an administrator put there or approved."""
    view: View = view_of(mailflow)

    async def compare() -> None:
        with TemporaryDirectory() as directory:
            world = World(Path(directory))
            world.terms = replace(world.terms, on_change=OnChange.HOLD)
            await known_in(world, before, None)
            try:
                first = {address: fingerprints(await world.get(address, view)) for address in ADDRESSES}
                await world.play(f"pass {waited}")
                if waited != "0":
                    await world.upkeep.purge_now()
                names = await then_known(world, after, len(before))
                trusted = {world.certificates[name].fingerprint for name in names}
                for address in ADDRESSES:
                    answer = await world.get(address, view)
                    got = fingerprints(answer)
                    if first[address]:
                        replaced = any(thing == ("usable", address, "sent") for thing in after)
                        if replaced and not trusted and world.made[first[address][0]].endswith(" usable"):
                            assert first[address][0] in got
                        assert set(got) <= {first[address][0], *trusted, *admitted(world, before, address)}
                    proofs = [one.certificate.proof for one in answer.certificates]
                    usable = [p.fingerprint for p in proofs if p.validity is Validity.VALID and p.can_encrypt]
                    verdict = await world.verdicts.of(address, Policy(kinds=Kinds.OPENPGP, view=view.name))
                    expected(verdict, usable, answer.state)
                    assert fingerprints(await world.get(address, view)) == got, "the same the next time"
            finally:
                await world.stop()

    asyncio.run(compare())


def admitted(world: World, things: list[Known], address: str) -> set[str]:
    """What an administrator has put there or approved."""
    return {
        world.certificates[f"{number} {made}"].fingerprint
        for number, (made, named, way) in enumerate(things)
        if named == address and way in ("local", "approved")
    }


def fingerprints(answer: Answer) -> list[str]:
    return [one.certificate.fingerprint for one in answer.certificates]


async def then_known(world: World, things: list[Known], numbered: int) -> list[str]:
    """Other things are known from here on, and the upstream sends what is sent of them alone; what an administrator has
    put there or approved."""
    upstream, trusted = world.upstreams["public"], []
    upstream.answers.clear()
    sent: dict[str, list[str]] = {}
    for number, (made, address, way) in enumerate(things, numbered):
        name = f"{number} {made}"
        world.certificate(name, f"N <{address}>", **MADE[made])
        if way == "sent":
            sent.setdefault(address, []).append(name)
        elif way == "local":
            await world.keep(name)
        else:
            await world.mail(name, address, held=way != "mail")
            if way == "approved":
                await world.approve(name, address)
        if way in ("local", "approved"):
            trusted.append(name)
    for address, names in sent.items():
        upstream.answers[address] = world.found(*names)
    return trusted


PARTNER = "partner.example"
AUTHORITY = f"domain-confidentiality-authority@{PARTNER}"
GATEWAY_WAYS = ("local", "sent", "mail", "nowhere")  # how the certificate that is named for the gateway is known
AUTHORITY_WAYS = ("listed", "public", "mail", "local", "nowhere")  # whose word there is for the authority
Gateway = tuple[bool, str, str]  # is it named (or counted), what is made, how it came


@settings(max_examples=25, deadline=None)
@given(
    things=known,
    mailflow=st.booleans(),
    failing=st.sampled_from([None, *ADDRESSES, AUTHORITY]),
    named=st.tuples(st.booleans(), st.sampled_from(sorted(MADE)), st.sampled_from(GATEWAY_WAYS)),
    authority=st.tuples(st.booleans(), st.sampled_from(sorted(MADE)), st.sampled_from(AUTHORITY_WAYS)),
    internal=st.sampled_from([(), (), (), (PARTNER,)]),
)
@example([], False, None, (True, "usable", "local"), (False, "usable", "nowhere"), ())
@example([], False, None, (False, "usable", "nowhere"), (True, "usable", "listed"), ())
@example([], True, None, (False, "usable", "nowhere"), (True, "usable", "public"), ())
@example([], False, None, (False, "usable", "nowhere"), (True, "usable", "listed"), (PARTNER,))
@example([], False, None, (True, "usable", "sent"), (False, "usable", "nowhere"), ())
@example([], True, None, (True, "usable", "mail"), (False, "usable", "nowhere"), ())
@example([("revoked", ADDRESSES[1], "sent")], False, None, (True, "usable", "local"), (True, "usable", "listed"), ())
@example([("usable", ADDRESSES[1], "held")], False, None, (True, "usable", "local"), (True, "usable", "nowhere"), ())
@example([], False, AUTHORITY, (False, "usable", "nowhere"), (True, "usable", "listed"), ())
@example([], False, ADDRESSES[1], (True, "usable", "local"), (True, "usable", "listed"), ())
def test_a_domains_certificate_is_the_same_to_views_and_verdicts(
    things: list[Known],
    mailflow: bool,
    failing: str | None,
    named: Gateway,
    authority: Gateway,
    internal: tuple[str, ...],
) -> None:
    async def compare() -> None:
        with TemporaryDirectory() as directory:
            world = World(Path(directory))
            world.handing = mailflow
            world.terms = replace(world.terms, internal_domains=internal)
            expected_gateway = await _with_gateways(world, things, failing, named, authority)
            try:
                for address in ADDRESSES:
                    await _same(world, address, view_of(mailflow), internal, expected_gateway)
            finally:
                await world.stop()

    asyncio.run(compare())


async def _with_gateways(
    world: World, things: list[Known], failing: str | None, named: Gateway, authority: Gateway
) -> str | None:
    """The world, and the fingerprint of the only certificate that may answer for the partner's domain."""
    gateway = world.certificate("gateway", "Gateway <gateway@elsewhere.example>", **MADE[named[1]])
    by_authority = world.certificate("authority", f"Gateway <{AUTHORITY}>", **MADE[authority[1]])
    if named[0] and not world.terms.internal_domains:  # `check` refuses the other
        world.gateways[PARTNER] = "gateway"
    world.domain_authority = authority[0]
    listing = world.upstream("listing", domains=(PARTNER,))
    if authority[2] == "listed":
        listing.answers[AUTHORITY] = world.found("authority")
    if failing == AUTHORITY:
        listing.answers[AUTHORITY] = world.outcome(["timeout"])
    await known_in(world, things, failing if failing != AUTHORITY else None)
    public = world.upstreams["public"]
    if named[2] == "sent":
        public.answers[gateway.fingerprint] = world.found("gateway")
        await world.get(gateway.fingerprint)
    if authority[2] == "public":
        public.answers[AUTHORITY] = world.found("authority")
        await world.get(AUTHORITY)  # as whoever asks for that very address has it cached
    for name, way, sender in (
        ("gateway", named[2], "gateway@elsewhere.example"),
        ("authority", authority[2], AUTHORITY),
    ):
        if way == "local":
            await world.keep(name)
        elif way == "mail":
            await world.mail(name, sender)
            await world.approve(name, sender)
    if world.gateways:
        return gateway.fingerprint if named[1] in FIT and named[2] == "local" else None
    listed = authority[0] and authority[2] == "listed" and failing != AUTHORITY and authority[1] in FIT
    return by_authority.fingerprint if listed else None


FIT = ("usable", "expires soon")


async def _same(
    world: World, address: str, plain: View, internal: tuple[str, ...], expected_gateway: str | None
) -> None:
    """A verdict by the view that hands nothing out is what the one that does answers, and no more than may be."""
    verdict = await world.verdicts.of(address, Policy(kinds=Kinds.OPENPGP, view=plain.name))
    own = await world.get(address, plain)
    handed = await world.get(address, View("gateway"))
    proofs = [one.certificate.proof for one in handed.certificates]
    usable = [p.fingerprint for p in proofs if p.validity is Validity.VALID and p.can_encrypt]
    expected(verdict, usable, handed.state)
    by_domain = [one.fingerprint for one in verdict.certificates if one.by_domain]
    may = (
        own.state is State.ABSENT and own.final and not own.in_vain and address.endswith(f"@{PARTNER}") and not internal
    )
    assert by_domain == ([expected_gateway] if may and expected_gateway else [])
    if not by_domain:
        assert [p.fingerprint for p in proofs] == [one.certificate.fingerprint for one in own.certificates]
