"""HKP v2 as an upstream: what is asked, what absence means, and which servers are taken to speak it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from urllib.parse import unquote, urlsplit

import pytest

from keyserver.model import Absent, Failed, Found, Kind, Outcome, Raw, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash, ByKeyId, ByText, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.hkp import v2
from keyserver.upstreams.hkp.upstream import Hkp
from keyserver.upstreams.hkp.v2 import AGAIN, KEPT, METHOD, paths_of
from keyserver.upstreams.net import Names
from support.openpgp import make
from support.scripted import NOT_FOUND, Behaviour, Request, Scripted, hang, hang_up, key, reply, slow

ALICE = make(["Alice <alice@example.org>"], seed="alice")
SIX = make(["Six <six@example.org>"], seed="six", version=6)
BY_ALICE = ByAddress("alice", "example.org")
BY_SIX = ByFingerprint(SIX.fingerprint)
BY_V1 = Found((Raw(Kind.OPENPGP, ALICE.octets),))
BY_V2 = Found((Raw(Kind.OPENPGP, SIX.octets),), method=METHOD)
CERTS = "/pks/v2/certs"
PROBE = f"OPTIONS {CERTS}/by-identity"
CONTROL = f"OPTIONS {CERTS}/by-nothing"
V1 = "GET /pks/lookup"
ALLOWS = reply(200, Allow="GET, HEAD, OPTIONS", Access_Control_Allow_Origin="*")
NO_SUCH_CATEGORY = reply(501)
SPEAKS = {PROBE: ALLOWS, CONTROL: NO_SUCH_CATEGORY}


def binary(*octets: bytes) -> Behaviour:
    """As v2 sends certificates."""
    return reply(200, b"".join(octets), Content_Type="application/pgp-keys;armor=no")


class Server(Scripted):
    """Answers by method and path, as `answers` say; anything else is 404."""

    def __init__(self, answers: Mapping[str, Behaviour] | None = None) -> None:
        super().__init__({"*": self._answer})
        self.answers = dict(answers or {})

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool | None:
        return await self.answers.get(_line(request), NOT_FOUND)(request, writer)

    @property
    def lines(self) -> list[str]:
        """What has been asked, in order, decoded."""
        return [_line(request) for request in self.requests]


def _line(request: Request) -> str:
    return f"{request.method} {unquote(urlsplit(request.target).path)}"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with Server() as running:
        yield running


class Clock:
    """Seconds that pass when told."""

    now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def auto(server: Server, clock: Clock) -> AsyncIterator[Hkp]:
    upstream = Hkp(UpstreamSpec("test"), server.url, clock=clock, version="auto")
    yield upstream
    await upstream.close()


@pytest.fixture
async def two(server: Server, clock: Clock) -> AsyncIterator[Hkp]:
    upstream = Hkp(UpstreamSpec("test"), server.url, clock=clock, version="2")
    yield upstream
    await upstream.close()


async def ask(upstream: Hkp, query: Query, left: float = 5) -> Outcome:
    return await upstream.fetch(query, Asking(left, "test-instance"))


# What is asked


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        (ByFingerprint("A" * 40), (f"{CERTS}/by-vfingerprint/04{'A' * 40}", f"{CERTS}/by-vfingerprint/04/{'A' * 40}")),
        (ByFingerprint("B" * 64), (f"{CERTS}/by-vfingerprint/06{'B' * 64}", f"{CERTS}/by-vfingerprint/06/{'B' * 64}")),
        (ByKeyId("C" * 16), (f"{CERTS}/by-keyid/{'C' * 16}",)),
        (BY_ALICE, (f"{CERTS}/by-identity/alice%40example.org",)),
        (ByAddress("a/b+c?d#e%é", "example.org"), (f"{CERTS}/by-identity/a%2Fb%2Bc%3Fd%23e%25%C3%A9%40example.org",)),
        (ByText("alice"), ()),
        (ByFingerprint("A" * 40, Kind.X509), ()),
        (ByAddress("alice", "example.org", Kind.X509), ()),
        (ByHash("ihash", "AB"), ()),
    ],
)
def test_paths(query: Query, paths: Sequence[str]) -> None:
    assert paths_of(query) == paths


async def test_request_lines(server: Server, two: Hkp) -> None:
    query = ByAddress("a/b+c?d#e%é", "example.org")
    assert await ask(two, query) == Absent("it answered 404", method=METHOD)
    assert [request.target for request in server.requests] == list(paths_of(query))


async def test_what_v2_finds(server: Server, two: Hkp) -> None:
    server.answers = {
        f"GET {CERTS}/by-vfingerprint/06{SIX.fingerprint}": binary(SIX.octets),
        f"GET {CERTS}/by-keyid/{ALICE.key_id}": binary(ALICE.octets),
        f"GET {CERTS}/by-identity/alice@example.org": binary(ALICE.octets, SIX.octets),
    }
    assert await ask(two, BY_SIX) == BY_V2
    assert await ask(two, ByKeyId(ALICE.key_id)) == Found((Raw(Kind.OPENPGP, ALICE.octets),), method=METHOD)
    both = Found((Raw(Kind.OPENPGP, ALICE.octets + SIX.octets),), method=METHOD)
    assert await ask(two, BY_ALICE) == both
    assert not [line for line in server.lines if line.startswith("OPTIONS")]


async def test_both_spellings_of_a_domain(server: Server, two: Hkp) -> None:
    server.answers = {f"GET {CERTS}/by-identity/alice@bücher.example": binary(ALICE.octets)}
    found = await ask(two, ByAddress("alice", "xn--bcher-kva.example"))
    assert found == Found((Raw(Kind.OPENPGP, ALICE.octets),), method=METHOD)
    assert len(server.requests) == 2


async def test_free_text_is_not_askable_by_v2(server: Server, two: Hkp, auto: Hkp) -> None:
    assert await ask(two, ByText("alice")) == Absent("HKP v2 has no words for that", remember=False, method=METHOD)
    assert not server.requests
    server.answers = {**SPEAKS, V1: key(ALICE.octets)}
    assert await ask(auto, ByText("alice")) == BY_V1
    assert server.lines == [V1]


@pytest.mark.parametrize("status", [500, 503, 401, 403, 422])
async def test_failures(server: Server, two: Hkp, status: int) -> None:
    server.answers = {f"GET {CERTS}/by-identity/alice@example.org": reply(status)}
    outcome = await ask(two, BY_ALICE)
    assert isinstance(outcome, Failed) and outcome.method == METHOD


async def test_silence_is_no_absence(server: Server, two: Hkp) -> None:
    server.answers = {f"GET {CERTS}/by-identity/alice@example.org": hang}
    assert await ask(two, BY_ALICE, left=0.2) == Failed("no answer in time", method=METHOD)


# Two spellings of versioned fingerprints

DRAFT = f"GET {CERTS}/by-vfingerprint/06{SIX.fingerprint}"
SLASH = f"GET {CERTS}/by-vfingerprint/06/{SIX.fingerprint}"
OTHER = ByFingerprint("0" * 40)
OTHER_DRAFT, OTHER_SLASH = f"GET {CERTS}/by-vfingerprint/04{'0' * 40}", f"GET {CERTS}/by-vfingerprint/04/{'0' * 40}"


async def test_a_server_that_wants_a_slash(server: Server, two: Hkp) -> None:
    server.answers = {SLASH: binary(SIX.octets)}
    assert await ask(two, BY_SIX) == BY_V2
    assert await ask(two, BY_SIX) == BY_V2
    assert server.lines == [DRAFT, SLASH, SLASH]
    assert await ask(two, OTHER) == Absent("it answered 404", method=METHOD)
    assert server.lines[3:] == [OTHER_SLASH, OTHER_DRAFT]


async def test_a_server_that_reads_the_drafts_spelling_is_asked_in_no_other(server: Server, two: Hkp) -> None:
    server.answers = {DRAFT: binary(SIX.octets)}
    assert await ask(two, OTHER) == Absent("it answered 404", method=METHOD)
    assert await ask(two, BY_SIX) == BY_V2
    assert await ask(two, OTHER) == Absent("it answered 404", method=METHOD)
    assert server.lines == [OTHER_DRAFT, OTHER_SLASH, DRAFT, OTHER_DRAFT]


async def test_a_failure_is_asked_again_in_no_other_spelling(server: Server, two: Hkp) -> None:
    server.answers = {DRAFT: reply(500), SLASH: binary(SIX.octets)}
    assert isinstance(await ask(two, BY_SIX), Failed)
    assert server.lines == [DRAFT]


# auto


async def test_a_server_that_speaks_v2_is_probed_once(server: Server, auto: Hkp, clock: Clock) -> None:
    server.answers = {**SPEAKS, DRAFT: binary(SIX.octets)}
    assert await ask(auto, BY_SIX) == BY_V2
    assert await ask(auto, BY_ALICE) == Absent("it answered 404", method=METHOD)
    assert server.lines == [PROBE, CONTROL, DRAFT, f"GET {CERTS}/by-identity/alice@example.org"]
    clock.now += KEPT + 1
    assert await ask(auto, BY_SIX) == BY_V2
    assert server.lines[4:] == [PROBE, CONTROL, DRAFT]


async def test_hockeypuck_is_known_to_speak_v2(server: Server, auto: Hkp) -> None:
    """Its routes as of 2026: OPTIONS at each category, 404 for others, a slash in fingerprints."""
    server.answers = {PROBE: reply(200, Allow="GET, OPTIONS"), SLASH: binary(SIX.octets)}
    assert await ask(auto, BY_SIX) == BY_V2


@pytest.mark.parametrize(
    ("there", "control"),
    [
        (NOT_FOUND, None),
        (reply(405, Allow="GET"), None),
        (reply(501), None),
        (reply(400), None),
        (reply(403), None),
        (reply(200), None),
        (reply(200, Allow="OPTIONS, POST"), None),
        (ALLOWS, ALLOWS),
        (reply(204, Allow="GET"), reply(200, Allow="HEAD,GET")),
    ],
)
async def test_a_server_that_speaks_v1_alone_is_asked_by_v1(
    server: Server, auto: Hkp, there: Behaviour, control: Behaviour | None
) -> None:
    server.answers = {PROBE: there, V1: key(ALICE.octets)} | ({CONTROL: control} if control else {})
    assert await ask(auto, BY_ALICE) == BY_V1
    assert await ask(auto, BY_ALICE) == BY_V1
    assert server.lines == [PROBE, *([CONTROL] if control else []), V1, V1]


@pytest.mark.parametrize("there", [reply(500), reply(503), reply(429), hang_up])
async def test_a_probe_that_fails_decides_nothing(server: Server, auto: Hkp, clock: Clock, there: Behaviour) -> None:
    server.answers = {PROBE: there, V1: key(ALICE.octets)}
    assert await ask(auto, BY_ALICE) == BY_V1
    server.answers |= SPEAKS
    server.answers |= {f"GET {CERTS}/by-identity/alice@example.org": binary(SIX.octets)}
    assert await ask(auto, BY_ALICE) == BY_V1, "not probed again at once"
    clock.now += AGAIN + 1
    assert await ask(auto, BY_ALICE) == BY_V2


@pytest.mark.parametrize("control", [reply(500), hang_up])
async def test_nor_does_one_whose_control_fails(server: Server, auto: Hkp, control: Behaviour) -> None:
    server.answers = {PROBE: ALLOWS, CONTROL: control, V1: key(ALICE.octets)}
    assert await ask(auto, BY_ALICE) == BY_V1


async def test_a_probe_that_hangs_leaves_half_of_the_time(server: Server, auto: Hkp) -> None:
    server.answers = {PROBE: hang, V1: slow(0.1, key(ALICE.octets))}
    assert await ask(auto, BY_ALICE, left=0.6) == BY_V1
    assert await ask(auto, BY_ALICE, left=0.3) == BY_V1, "and is not repeated at once"
    assert server.lines.count(PROBE) == 1


async def test_all_who_ask_meanwhile_wait_for_one_probe(server: Server, auto: Hkp) -> None:
    server.answers = {**SPEAKS, PROBE: slow(0.05, ALLOWS), DRAFT: binary(SIX.octets)}
    assert await asyncio.gather(*(ask(auto, BY_SIX) for _ in range(10))) == [BY_V2] * 10
    assert server.lines.count(PROBE) == server.lines.count(CONTROL) == 1


async def test_who_gives_up_while_probing_leaves_the_probe_to_others(server: Server, auto: Hkp) -> None:
    server.answers = {**SPEAKS, PROBE: slow(0.05, ALLOWS), DRAFT: binary(SIX.octets)}
    first = asyncio.create_task(ask(auto, BY_SIX))
    second = asyncio.create_task(ask(auto, BY_SIX))
    await asyncio.sleep(0.02)
    first.cancel()
    assert await second == BY_V2


@pytest.mark.parametrize("status", [400, 403, 405, 501])
async def test_a_server_that_contradicts_itself_is_asked_by_v1_and_probed_again(
    server: Server, auto: Hkp, clock: Clock, status: int
) -> None:
    by_identity = f"GET {CERTS}/by-identity/alice@example.org"
    server.answers = {**SPEAKS, by_identity: reply(status), V1: key(ALICE.octets)}
    assert await ask(auto, BY_ALICE) == BY_V1
    assert server.lines == [PROBE, CONTROL, by_identity, V1]
    assert await ask(auto, BY_ALICE) == BY_V1
    assert server.lines[4:] == [V1]
    clock.now += AGAIN + 1
    server.answers[by_identity] = binary(SIX.octets)
    assert await ask(auto, BY_ALICE) == BY_V2


async def test_a_server_that_is_down_has_failed(server: Server, auto: Hkp) -> None:
    await server.stop()
    assert isinstance(await ask(auto, BY_ALICE), Failed)


# Templates


async def test_each_host_of_a_template_is_probed_by_itself(server: Server, clock: Clock) -> None:
    asked: list[str] = []

    async def table(host: str, port: int) -> Sequence[str]:
        asked.append(host.rstrip("."))
        return () if "nowhere" in host else ["127.0.0.1"]

    upstream = Hkp(
        UpstreamSpec("test"),
        f"hkp://keys.{{domain}}:{server.port}",
        clock=clock,
        version="auto",
        names=Names(table),
        allow_private=True,
    )
    server.answers = {**SPEAKS, f"GET {CERTS}/by-identity/six@one.de": binary(SIX.octets)}
    try:
        assert await ask(upstream, ByAddress("six", "one.de")) == BY_V2
        assert await ask(upstream, ByAddress("six", "two.de")) == Absent("it answered 404", method=METHOD)
        hosts = [r.headers["host"].partition(":")[0] for r in server.requests if r.method == "OPTIONS"]
        assert hosts == ["keys.one.de"] * 2 + ["keys.two.de"] * 2
        asked.clear()
        assert await ask(upstream, ByAddress("six", "nowhere.de")) == Absent("no such host")
        assert asked == ["keys.nowhere.de"], "a host that is not there is looked for once"
    finally:
        await upstream.close()


async def test_what_is_known_of_hosts_is_bounded(server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2, "HOSTS", 20)

    async def table(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    upstream = Hkp(
        UpstreamSpec("test"),
        f"hkp://keys.{{domain}}:{server.port}",
        clock=clock,
        version="auto",
        names=Names(table),
        allow_private=True,
    )
    server.answers = SPEAKS
    try:
        for number in range(25):
            await ask(upstream, ByAddress("a", f"d{number}.de"))
        server.requests.clear()
        await ask(upstream, ByAddress("a", "d24.de"))
        assert PROBE not in server.lines
        await ask(upstream, ByAddress("a", "d0.de"))
        assert PROBE in server.lines, "forgotten for those that came later"
    finally:
        await upstream.close()
