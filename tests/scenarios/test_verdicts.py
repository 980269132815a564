"""In random worlds: whom mail can be encrypted to is whom a lookup of the same view finds usable certificates for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from keyserver.model import State, Validity, View
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
