"""Revocation lists of a service: fetched, verified, kept over a restart, and in force at the next question."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keyserver.app import opened
from keyserver.app.crls import DAY, HOUR, wait_of
from keyserver.app.listening import Listeners
from keyserver.app.parts import Parts
from keyserver.app.reloading import Reloader
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.config.sources import Sources
from keyserver.model import Certificate, Change, Find, Kind, Source, State, View
from keyserver.query import parse
from keyserver.resolver.revoked import Standing
from keyserver.smime import clean
from support import x509 as made
from support.crls import ENDS, ISSUED, revocation_list
from support.resolving import until
from support.scripted import NOT_FOUND, Scripted, hang, reply

CA = made.authority("List CA")
ALICE = made.person("alice@example.org", CA, serial=7)
NOW = ISSUED + 1000


@dataclass
class Running:
    """A service without listeners, again and again over one directory, and the server that its list lies on."""

    directory: Path
    server: Scripted
    now: int = NOW
    stale: str = "ignore"
    changes: list[Change] = field(default_factory=list)
    following: Config = field(init=False)
    reloader: Reloader = field(init=False)

    @property
    def url(self) -> str:
        return f"{self.server.http}/ca.crl"

    def publish(self, serials: Iterable[int], **options: Any) -> bytes:
        octets = revocation_list(CA, serials, **options)
        self.server.routes["ca.crl"] = reply(200, octets)
        return octets

    def config(self, **crl: str) -> Config:
        issuer = self.directory / "ca.pem"
        issuer.write_bytes(CA.pem)
        rows = [{"issuer_file": str(issuer), "url": self.url, "stale": self.stale, **crl}]
        return Config.model_validate(
            {
                "cache": {"database": f"sqlite:///{self.directory / 'keyserver.db'}"},
                "smime": {"trust_anchors": "none", "crl": rows},
            }
        ).with_sources(Sources())

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Parts]:
        monotonic = asyncio.get_running_loop().time
        self.following = self.config()
        async with opened(self.following, Clocks(lambda: self.now, monotonic, lambda: 0.0)) as parts:
            parts.changes.subscribe(self.changes.append)
            self.reloader = Reloader(parts, Listeners(monotonic), lambda config: self.following)
            (certificate,) = clean(ALICE.der, self.now)
            assert isinstance(certificate, Certificate)
            await parts.store.put([Find(certificate, Source.LOCAL, "test")], [], await parts.store.begin(), self.now)
            self.changes.clear()
            yield parts

    @property
    def kept(self) -> Path:
        (file,) = (self.directory / "crl").iterdir()
        return file


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with Scripted() as server:
        yield Running(tmp_path, server)


async def answered(parts: Parts) -> bool:
    answer = await parts.resolver.lookup(parse("alice@example.org", Kind.X509), View())
    return answer.state is State.FOUND


def standing(parts: Parts) -> Standing:
    (one,) = parts.crls.standings()
    return one


async def test_revoked_reinstated_and_kept_over_a_restart(running: Running) -> None:
    octets = running.publish([7])
    async with running.opened() as parts:
        assert await answered(parts)
        assert standing(parts).complaint.endswith("has not been had yet")
        await parts.crls.fetch()
        assert not await answered(parts)
        assert [change.everything for change in running.changes] == [True]
        assert (one := standing(parts)).entries == 1 and one.fetched_at == NOW and not one.complaint
    assert running.kept.read_bytes() == octets
    assert stat.S_IMODE(running.kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.kept.parent.stat().st_mode) == 0o700
    running.server.routes["ca.crl"] = NOT_FOUND
    async with running.opened() as parts:
        assert not await answered(parts), "before anything is fetched"
        await parts.crls.fetch()
        assert not await answered(parts)
        assert (one := standing(parts)).problem == "it answered 404" and one.failures == 1
        running.publish([8], number=2)
        await parts.crls.fetch()
        assert await answered(parts)
        assert len(running.changes) == 1
        assert not standing(parts).problem


async def test_the_same_list_again_takes_no_answers_away(running: Running) -> None:
    async with running.opened() as parts:
        running.publish([7])
        await parts.crls.fetch()
        await parts.crls.fetch()
        running.publish([7], number=2, issued=ISSUED + 1)
        await parts.crls.fetch()
        assert len(running.changes) == 1
        assert standing(parts).issued == ISSUED + 1


async def test_an_older_list_does_not_bring_back_what_a_newer_one_has_revoked(running: Running) -> None:
    running.publish([7], number=5)
    async with running.opened() as parts:
        await parts.crls.fetch()
        running.publish([], number=4)
        await parts.crls.fetch()
        assert not await answered(parts)
        assert standing(parts).problem == "older than the list that is known"
    async with running.opened() as parts:
        await parts.crls.fetch()
        assert not await answered(parts), "nor after a restart"


@pytest.mark.parametrize(
    "octets",
    [
        revocation_list(made.authority("List CA"), []),
        revocation_list(made.authority("Somebody"), []),
        b"<html>moved</html>",
        b"",
        revocation_list(CA, [])[:-1],
    ],
    ids=["impostor", "another authority", "a page", "nothing", "cut off"],
)
async def test_what_is_no_list_of_the_authority_changes_nothing(running: Running, octets: bytes) -> None:
    running.publish([7])
    async with running.opened() as parts:
        await parts.crls.fetch()
        running.server.routes["ca.crl"] = reply(200, octets)
        await parts.crls.fetch()
        assert standing(parts).problem
        assert not await answered(parts)
        assert len(running.changes) == 1


async def test_what_was_kept_is_verified_again(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    running.publish([7])
    async with running.opened() as parts:
        await parts.crls.fetch()
    running.kept.write_bytes(revocation_list(made.authority("List CA"), []))
    async with running.opened() as parts:
        assert standing(parts).stale
        assert "cannot be used: the signature is not that of the authority" in caplog.text
        await parts.crls.fetch()
        assert not await answered(parts)


async def test_a_directory_that_cannot_be_written_costs_the_next_start_alone(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    (running.directory / "crl").write_text("in the way")
    running.publish([7])
    async with running.opened() as parts:
        await parts.crls.fetch()
        assert not await answered(parts)
    assert "cannot be kept for the next start" in caplog.text


async def test_a_list_whose_end_is_over_by_setting(running: Running) -> None:
    running.publish([8])
    async with running.opened() as parts:
        await parts.crls.fetch()
        running.now = ENDS
        assert await answered(parts) and not standing(parts).complaint
        running.now = ENDS + 1
        assert standing(parts).complaint == "the revocation list of CN=List CA ended on 2032-07-19"
        assert await answered(parts)
        running.following = running.config(stale="fatal")
        await running.reloader.reload()
        assert not await answered(parts)
        running.changes.clear()
        running.publish([8], number=2, ends=ENDS + DAY)
        await parts.crls.fetch()
        assert await answered(parts) and running.changes, "the same entries, and answers that were none"


async def test_fatal_from_the_first_start_on(running: Running) -> None:
    running.stale = "fatal"
    async with running.opened() as parts:
        assert not await answered(parts)
        answer = await parts.resolver.lookup(parse("alice@example.org", Kind.X509), View())
        assert "no revocation list of CN=List CA is known" in answer.reason
        running.publish([8])
        await parts.crls.fetch()
        assert await answered(parts)


async def test_the_loop_fetches_and_a_reload_fetches_again(running: Running) -> None:
    running.publish([8])
    async with running.opened() as parts, asyncio.TaskGroup() as group:
        task = group.create_task(parts.crls.run())
        await until(lambda: standing(parts).entries == 1)
        running.publish([7, 8], number=2)
        await running.reloader.reload()
        await until(lambda: standing(parts).entries == 2)
        assert not await answered(parts)
        first = running.kept
        running.following = running.config(url=f"{running.server.http}/other.crl")
        running.server.routes["other.crl"] = reply(200, revocation_list(CA, [8]))
        await running.reloader.reload()
        await until(lambda: standing(parts).entries == 1)
        assert await answered(parts)
        assert running.kept != first, "what is not configured any more is not kept either"
        running.following = running.following.model_copy(
            update={"smime": running.following.smime.model_copy(update={"crl": ()})}
        ).with_sources(Sources())
        await running.reloader.reload()
        assert not parts.crls.standings() and not list((running.directory / "crl").iterdir())
        task.cancel()


async def test_a_server_that_hangs_holds_up_no_other_list_and_no_end(running: Running) -> None:
    running.server.routes |= {"ca.crl": hang, "other.crl": reply(200, revocation_list(CA, [7]))}
    async with running.opened() as parts, asyncio.TaskGroup() as group:
        task = group.create_task(parts.crls.run())
        row = running.following.smime.crl[0]
        other = row.model_copy(update={"url": f"{running.server.http}/other.crl"})
        smime = running.following.smime.model_copy(update={"crl": (row, other)})
        running.following = running.following.model_copy(update={"smime": smime}).with_sources(Sources())
        await running.reloader.reload()
        await until(lambda: parts.crls.standings()[1].entries == 1)
        assert not await answered(parts)
        task.cancel()


async def test_it_is_fetched_again_and_again_by_itself(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyserver.app.crls.wait_of", lambda left, *, new, failed, chance: 0.01)
    async with running.opened() as parts, asyncio.TaskGroup() as group:
        task = group.create_task(parts.crls.run())
        await until(lambda: standing(parts).failures > 2)
        running.publish([7])
        await until(lambda: standing(parts).entries == 1)
        assert not await answered(parts)
        running.publish([], number=2)
        await until(lambda: standing(parts).entries == 0)
        assert await answered(parts)
        task.cancel()


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_when_a_list_is_fetched_again(chance: float) -> None:
    def wait(left: int, *, new: bool = True, failed: int = 0) -> float:
        return wait_of(left, new=new, failed=failed, chance=chance)

    assert 0.8 * DAY <= wait(30 * DAY) <= DAY
    assert 0.8 * 10 * HOUR <= wait(10 * HOUR) < 10 * HOUR, "before its end"
    assert wait(600) == wait(-5) == HOUR, "not more often than every hour"
    assert 600 < wait(600, new=False) < 700, "one that has not been replaced yet: right behind its end"
    assert wait(2 * HOUR, new=False) >= HOUR
    waits = [wait(-5, new=False, failed=n) for n in range(1, 20)]
    assert 48 <= waits[0] <= 60 and waits == sorted(waits) and waits[-1] <= HOUR
