"""The service's own parts under another configuration: what lives on, what begins anew, and what changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from keyserver.admin.problems import Refusal
from keyserver.admin.reloading import Mistaken, Reloaded
from keyserver.app import opened
from keyserver.app.listening import Listeners
from keyserver.app.parts import Parts
from keyserver.app.reloading import Reloader
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.config.sources import Sources
from keyserver.events.posting import Target
from keyserver.model import Failed, State, UpstreamSpec, View
from keyserver.query import parse
from keyserver.upstreams.base import Upstream
from support.openpgp import CREATED
from support.resolving import until
from support.upstreams import Told
from support.x509 import authority

NOW = CREATED + 100_000_000


class Peer(Told):
    """An upstream that says when it is closed."""

    closed = False

    async def close(self) -> None:
        self.closed = True


@dataclass
class Running:
    """The service without listeners; `following` is what the next reload reads."""

    directory: Path
    peers: list[Peer] = field(default_factory=list)

    def config(self, *upstreams: dict[str, Any], **sections: Any) -> Config:
        base = {
            "cache": {"database": f"sqlite:///{self.directory / 'keyserver.db'}", **sections.pop("cache", {})},
            "smime": {"trust_anchors": "none", **sections.pop("smime", {})},
            "upstream": [{"url": f"hkp://{row['name']}.example", **row} for row in upstreams],
        }
        return Config.model_validate(base | sections).with_sources(Sources())

    def make(self, section: UpstreamSection, spec: UpstreamSpec) -> Upstream:
        if section.url.endswith("broken"):
            raise ValueError("it cannot be made")
        self.peers.append(Peer(spec))
        return self.peers[-1]

    async def reload(self, *upstreams: dict[str, Any], **sections: Any) -> Reloaded:
        self.following = self.config(*upstreams, **sections)
        return await self.reloader.reload()

    async def ask(self, term: str) -> State:
        return (await self.parts.resolver.lookup(parse(term), View())).state

    parts: Parts = field(init=False)
    reloader: Reloader = field(init=False)
    following: Config = field(init=False)


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    made = Running(tmp_path)
    monotonic = asyncio.get_running_loop().time
    start = made.config({"name": "a"}, {"name": "b"})
    async with opened(start, Clocks(lambda: NOW, monotonic, lambda: 0.0), made.make) as made.parts:
        made.reloader = Reloader(made.parts, Listeners(monotonic), lambda config: made.following)
        yield made


async def test_upstreams_that_stay_live_on_and_others_begin_anew(running: Running) -> None:
    a, b = running.peers
    a.otherwise = b.otherwise = Failed("down")
    for number in range(5):
        await running.ask(f"user{number}@example.org")
    assert [(s.name, s.state, s.failed) for s in running.parts.resolver.statuses()] == [
        ("a", "open", 4),
        ("b", "open", 4),
    ]
    b.open.clear()
    done = await running.reload(
        {"name": "a", "priority": 5, "domains": ["example.org"], "ttl": "2h", "timeout": "1s"},
        {"name": "b", "url": "hkp://elsewhere.example"},
        {"name": "c"},
    )
    assert {change.key for change in done.changed} == {
        "upstream[a].priority", "upstream[a].domains", "upstream[a].ttl", "upstream[a].timeout", "upstream[b].url",
        "upstream[c]",
    }  # fmt: skip
    assert len(running.peers) == 4
    assert (a.spec.priority, a.spec.domains, a.spec.ttl, a.spec.timeout) == (5, ("example.org",), 7200, 1.0)
    assert [(s.name, s.state, s.failed) for s in running.parts.resolver.statuses()] == [
        ("a", "open", 4),
        ("b", "closed", 4),
        ("c", "closed", 0),
    ]
    assert not a.closed
    assert not b.closed, "somebody may still wait for it"
    await until(lambda: b.closed)
    await running.reload({"name": "b", "url": "hkp://elsewhere.example"})
    await running.reload({"name": "a"}, {"name": "b", "url": "hkp://elsewhere.example"})
    assert [(s.name, s.state, s.failed) for s in running.parts.resolver.statuses()] == [
        ("a", "closed", 0),
        ("b", "closed", 4),
    ]


async def test_a_question_to_an_upstream_that_left_says_nothing_of_the_one_in_its_place(running: Running) -> None:
    a, _ = running.peers
    a.open.clear()
    waiting = [asyncio.ensure_future(running.ask(f"user{number}@example.org")) for number in range(6)]
    await until(lambda: len(a.asked) == 6)
    await running.reload({"name": "a", "url": "hkp://elsewhere.example"})
    a.otherwise = Failed("gone")
    a.open.set()
    assert set(await asyncio.gather(*waiting)) == {State.ABSENT}
    await until(lambda: not running.parts.resolver.searches)
    (status,) = running.parts.resolver.statuses()
    assert (status.state, status.failed) == ("closed", 0)


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"upstreams": [{"name": "new"}, {"name": "b", "url": "hkp://broken"}]}, "upstream"),
        ({"smime": {"trust_anchors": __file__}}, "smime.trust_anchors"),
        ({"upstreams": [{"name": "a"}, {"name": "a"}]}, "upstream.name"),
    ],
)
async def test_what_cannot_be_had_changes_nothing(running: Running, wrong: dict[str, Any], key: str) -> None:
    before, rules = running.reloader.config, running.parts.rules.lookups()
    published = running.parts.changes.published
    with pytest.raises(Mistaken) as refused:
        await running.reload(*wrong.pop("upstreams", []), **wrong, cache={"ttl": "2h"})
    assert [mistake.key for mistake in refused.value.mistakes] == [key]
    assert running.reloader.config is before
    assert running.parts.rules.lookups() is rules
    assert running.parts.changes.published == published
    assert [peer.closed for peer in running.peers] == [False, False] + [True] * (len(running.peers) - 2)


async def test_everything_goes_by_it_when_it_returns(running: Running) -> None:
    issued = authority("Root")
    anchors = running.directory / "anchors.pem"
    from cryptography.hazmat.primitives.serialization import Encoding

    anchors.write_bytes(issued.certificate.public_bytes(Encoding.PEM))
    number, parts = running.parts.changes.published, running.parts
    await running.reload(
        {"name": "a"},
        cache={"ttl": "2h", "deadline": "9s", "max_size": "1 KiB", "prefetch": False, "purge_interval": "1s"},
        policy={"answer_mailflow": True, "text_search": "cache", "internal_domains": ["here.example"]},
        limits={"searches": 7, "trusted": [], "misses_per_minute": 1},
        mailflow={"authserv_id": "mx.here.example"},
        smime={"trust_anchors": str(anchors), "require_chain": True},
        hkp={"explain": False},
        log={"identities": True},
    )
    rules, faces, mail = parts.rules.lookups(), parts.rules.faces(), parts.rules.mail()
    assert (rules.terms.ttl, rules.deadline, rules.searches, rules.prefetch, rules.purge_interval) == (
        7200,
        9.0,
        7,
        False,
        1,
    )
    assert (rules.text_search, rules.terms.require_chain, rules.terms.internal_domains) == (
        "cache",
        True,
        ("here.example",),
    )
    assert rules.view(View()).answer_mailflow
    assert (faces.explain, faces.text_search, faces.max_size) == (False, True, 1 << 10)
    assert (mail.authserv_id, mail.terms) == ("mx.here.example", rules.terms)
    assert not parts.trust.trusts("127.0.0.1")
    assert parts.lookups.misses.take("127.0.0.1")
    assert not parts.lookups.misses.take("127.0.0.1")
    assert parts.observer.identity("alice") == "alice"
    assert "max_size" in (await parts.store.stats()).healthy
    assert parts.changes.touched(number, ["openpgp:addr:anybody@example.org"])
    assert parts.cache.anchors.loaded.origin[0] == str(anchors)


async def test_a_configuration_that_came_from_nowhere_is_not_read_again(running: Running) -> None:
    reloader = Reloader(running.parts, Listeners(asyncio.get_running_loop().time))
    reloader.config = running.config().with_sources(None)
    with pytest.raises(Refusal):
        await reloader.reload()


async def test_events_go_elsewhere_by_a_reload_which_reads_the_secret_again(running: Running) -> None:
    secret = running.directory / "webhook.secret"
    secret.write_text("the first of the secrets")
    section = {"webhook": "http://127.0.0.1:1/", "webhook_secret_file": str(secret)}
    targets: list[Target | None] = []
    running.parts.events.webhook.change = targets.append  # type: ignore[method-assign]
    done = await running.reload({"name": "a"}, {"name": "b"}, events=section)
    assert [change.key for change in done.changed] == ["events.webhook", "events.webhook_secret_file"]
    assert not done.restart
    secret.write_text("the second of the secrets\n")
    await running.reload({"name": "a"}, {"name": "b"}, events=section)
    secret.write_text("short")
    with pytest.raises(Mistaken) as caught:
        await running.reload({"name": "a"}, {"name": "b"}, events=section)
    assert [mistake.key for mistake in caught.value.mistakes] == ["events.webhook_secret_file"]
    await running.reload({"name": "a"}, {"name": "b"})
    url = "http://127.0.0.1:1/"
    first, second = Target(url, b"the first of the secrets"), Target(url, b"the second of the secrets")
    assert targets == [first, second, None]
