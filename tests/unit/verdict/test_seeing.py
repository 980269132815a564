"""What is noted of those who were asked for: by the cache alone, once a day each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from keyserver import openpgp
from keyserver.model import Answer, Answered, Certificate, Entry, Failed, How, Kind, Source, State, View
from keyserver.query import parse
from keyserver.store.history import Bounds
from keyserver.store.recipients import DAY, Coverage, Encryptable, Ending, Looked
from keyserver.verdict import seeing
from keyserver.verdict.deciding import Policy, Verdict, Word, decide
from keyserver.verdict.seeing import Seeing
from support.openpgp import CREATED, make
from support.resolving import NOW, Ground, sends

ANN, BEN, CY = (f"{name}@example.org" for name in ("ann", "ben", "cy"))


class Seen:
    """A cache with one upstream, and what is noted there."""

    def __init__(self, directory: Path) -> None:
        self.ground = Ground(directory)
        self.peer = self.ground.peer("a")
        self.wanted: set[str] = set()
        ground = self.ground
        self.seeing = Seeing(
            ground.store, self.take, lambda: ground.rules(), ground.hygiene, lambda: ground.now, ground.monotonic
        )

    def take(self) -> Collection[str]:
        taken, self.wanted = self.wanted, set()
        return taken

    async def note(self, *addresses: str) -> int:
        self.wanted.update(addresses)
        return await self.seeing.note()

    async def domains(self) -> list[Coverage]:
        return list(await self.ground.store.recipients.domains(0, 9))


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Seen]:
    made = Seen(tmp_path)
    await made.ground.store.open()
    yield made
    await made.ground.cleaner.close()
    await made.ground.store.close()


async def test_by_what_is_cached_and_nobody_is_asked(seen: Seen) -> None:
    ground = seen.ground
    made = make([f"Ann <{ANN}>"], seed="ann", expires=NOW + 20 * DAY - CREATED)
    await ground.put(made, Source.KEYSERVER, "a")
    await ground.said(ANN, "a", found=True)
    await ground.said(BEN, "a", found=False)
    before, _ = await ground.store.history.size()
    assert await seen.note(ANN, BEN, CY) == 3
    assert await seen.domains() == [Coverage("example.org", 3, 1, 1, 1)]
    ending = Ending(made.fingerprint, Kind.OPENPGP, NOW + 20 * DAY, "it expires", "example.org", (ANN,), 1)
    assert list(await ground.store.recipients.ending(NOW, NOW + 30 * DAY, 0, 9)) == [ending]
    assert seen.peer.asked == []
    assert (await ground.store.history.size())[0] == before + 3, "the notes alone"
    assert (await ground.store.look(parse(ANN).name)).answering == {}


async def test_once_a_day_and_by_whatever_node(seen: Seen) -> None:
    ground = seen.ground
    await ground.said(BEN, "a", found=False)
    other = Seeing(
        ground.store, lambda: {BEN}, lambda: ground.rules(), ground.hygiene, lambda: ground.now, ground.monotonic
    )
    assert [await seen.note(BEN), await seen.note(BEN), await other.note()] == [1, 0, 0]
    ground.now += DAY
    assert [await other.note(), await seen.note(BEN)] == [1, 0]


async def test_so_many_in_one_go_and_the_rest_later(seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeing, "AT_ONCE", 4)
    monkeypatch.setattr(seeing, "BATCH", 2)
    monkeypatch.setattr(seeing, "MOST_WAITING", 7)
    addresses = [f"n{n}@example.org" for n in range(9)]
    assert [await seen.note(*addresses), await seen.note(), await seen.note()] == [4, 3, 0]
    assert [one.asked for one in await seen.domains()] == [7]


async def test_a_certificate_that_is_revoked_later_is_lost(seen: Seen) -> None:
    ground = seen.ground
    await ground.put(make([f"Ann <{ANN}>"], seed="ann"), Source.LOCAL, "admin")
    await seen.note(ANN)
    await ground.put(make([f"Ann <{ANN}>"], seed="ann", revoked=2), Source.LOCAL, "admin")
    ground.now += DAY
    await ground.said(ANN, "a", found=False)
    await seen.note(ANN)
    (one,) = await ground.store.recipients.lost(0, 0, 9)
    assert (one.address, one.since, "it is revoked" in one.reason) == (ANN, NOW + DAY, True)


async def test_nothing_is_judged_without_a_history(seen: Seen) -> None:
    seen.ground.store.history.limit(Bounds(0, 0))
    await seen.ground.store.history.tidy(NOW, 10)
    assert await seen.note(ANN) == 0
    assert await seen.domains() == []


async def test_whoever_is_asked_for_is_wanted_whatever_the_answer(seen: Seen) -> None:
    resolver = seen.ground.resolver()
    seen.peer.answers[ANN] = sends(make([f"Ann <{ANN}>"], seed="ann"))
    seen.peer.answers[CY] = Failed("it is down")
    for term in (ANN, BEN, CY):
        await resolver.lookup(parse(term), View())
    await resolver.lookup(parse("looped@example.org"), View(), looped=True)
    await resolver.lookup(parse("0xDEADBEEFDEADBEEF"), View())
    resolver.note_asked((parse("hot@example.org").name, parse("0xDEADBEEFDEADBEEF").name), NOW)
    assert resolver.take_wanted() == {ANN, BEN, CY, "hot@example.org"}
    assert resolver.take_wanted() == set()


LASTS = {"short": 20, "long": 30, "ever": None}


def answered(name: str) -> Answered:
    days = LASTS[name]
    made = make([f"Ann <{ANN}>"], seed=name, expires=None if days is None else NOW + days * DAY - CREATED)
    (certificate,) = openpgp.clean(made.octets, NOW)
    assert isinstance(certificate, Certificate)
    entry = Entry(
        certificate.fingerprint, Kind.OPENPGP, certificate.octets, Source.LOCAL, "admin", cached_at=NOW, seen_at=NOW
    )
    return Answered(certificate, (entry,))


@pytest.mark.parametrize(("usable", "best"), [(("short", "long"), "long"), (("long", "ever", "short"), "ever")])
def test_of_several_the_one_that_lasts_longest_is_noted(usable: tuple[str, ...], best: str) -> None:
    answers = {Kind.OPENPGP: Answer(State.FOUND, How.HIT, "cached", tuple(map(answered, usable)))}
    proof = answered(best).certificate.proof
    why = "it expires" if proof.expires else ""
    noted = seeing.looked(decide(ANN, Policy(), answers, NOW), answers, NOW)
    assert noted == Looked(Encryptable.YES, NOW, Kind.OPENPGP, proof.fingerprint, proof.expires, why)


def test_no_reason_has_an_address() -> None:
    verdict = Verdict(ANN, Word.NO, f"F00: it was sent by {ANN}, not <{BEN}>")
    assert seeing.looked(verdict, {}, NOW).reason == "F00: it was sent by (address) not (address)"
    assert seeing.looked(Verdict(ANN, Word.REJECT, "no"), {}, NOW).word is Encryptable.NO
    assert seeing.looked(Verdict(ANN, Word.UNKNOWN, "no"), {}, NOW) == Looked(Encryptable.UNKNOWN, NOW)
