"""A hostile upstream, whoever runs its name server, and our own network when it fails: what they make us say and do."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyserver.model import Absent, Failed, Fault, Found, Kind, Outcome, UpstreamSpec
from keyserver.query import ByAddress
from keyserver.upstreams.base import Asking
from keyserver.upstreams.hkp.upstream import Hkp
from keyserver.upstreams.ldap.upstream import Ldap
from keyserver.upstreams.net import Names, NoSuchHost, Service
from scenarios.world import World
from support.openpgp import armored, make
from support.scripted import NOT_FOUND, Scripted, key, redirect, reply

PARTNER = ByAddress("alice", "partner.de")
ROOT = Path(__file__).parents[2]


def table(**hosts: str) -> Names:
    """A name service in which `keys_partner_de="127.0.0.1"` is all there is."""

    async def lookup(name: str, port: int) -> Sequence[str]:
        found = hosts.get(name.rstrip(".").replace(".", "_"))
        if found is None:
            raise NoSuchHost("no such host")
        return found.split()

    async def no_services(name: str) -> Sequence[Any]:
        return ()

    return Names(lookup, no_services)


async def asked(url: str, names: Names, times: int = 1, **options: Any) -> Outcome:
    """What an upstream of any scheme says, the last time where it is asked several `times`."""
    spec = UpstreamSpec("u", template="{domain}" in url, kinds=frozenset(Kind))
    with ThreadPoolExecutor(2) as threads:
        upstream: Hkp | Ldap = (
            Hkp(spec, url, clock=time.time, names=names, **options)
            if url.startswith("hkp")
            else Ldap(spec, url, names=names, threads=threads, monotonic=time.monotonic, **options)
        )
        try:
            for _ in range(times - 1):
                await upstream.fetch(PARTNER, Asking(3.0, "test"))
            return await upstream.fetch(PARTNER, Asking(3.0, "test"))
        finally:
            await upstream.close()


def in_a_child(what: Callable[[], object], *before: str) -> Any:
    """What a function of this module returns in a process of its own, started by `before`."""
    code = f"import json; from attacks import test_upstream as t; print(json.dumps(t.{what.__name__}()))"
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [*before, sys.executable, "-c", code], env=paths, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def told(outcome: Outcome) -> list[str]:
    return [type(outcome).__name__, str(getattr(outcome, "fault", "")), outcome.reason]  # type: ignore[union-attr]


# Our own network


URLS = ["hkp://keys.{domain}", "hkps://keys.{domain}", "ldap://keys.{domain}", "hkp://keys.partner.de"]
URLS += ["ldap://keys.partner.de"]


def without_a_route() -> list[list[str]]:
    return [told(asyncio.run(asked(url, table(keys_partner_de="8.8.8.8 2001:4860:4860::8888")))) for url in URLS]


def without_a_name_server() -> list[list[str]]:
    return [told(asyncio.run(asked(url, Names()))) for url in URLS]


def without_descriptors() -> list[list[str]]:
    """As many as the loop itself needs, and no more."""

    async def starving(url: str) -> Outcome:
        spec = UpstreamSpec("u", template="{domain}" in url, kinds=frozenset(Kind))
        names = table(keys_partner_de="127.0.0.1")
        with ThreadPoolExecutor(2) as threads:
            upstream: Hkp | Ldap = (
                Hkp(spec, url, clock=time.time, names=names, allow_private=True)
                if url.startswith("hkp")
                else Ldap(spec, url, names=names, threads=threads, monotonic=time.monotonic, allow_private=True)
            )
            held = _all_descriptors()
            try:
                return await upstream.fetch(PARTNER, Asking(3.0, "test"))
            finally:
                for descriptor in held:
                    os.close(descriptor)
                await upstream.close()

    return [told(asyncio.run(starving(url))) for url in URLS]


def names_without_descriptors() -> list[str]:
    """glibc says of every name that it does not exist, when it cannot read how to ask."""
    import encodings.idna  # noqa: F401  getaddrinfo loads it at its first use

    async def starving(host: str) -> str:
        names = Names()
        held = _all_descriptors()
        try:
            await names.resolve(host, 80)
        except OSError as error:
            return type(error).__name__
        finally:
            for descriptor in held:
                os.close(descriptor)
        return "found"

    return [asyncio.run(starving(host)) for host in ("keys.partner.de", "localhost")]


def _all_descriptors() -> list[int]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, most))
    held = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        return held


@pytest.fixture
def no_network() -> list[str]:
    """What starts a process in a network of its own, with nothing in it."""
    words = ["unshare", "-rn"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    return words


def test_without_a_route_nothing_is_absent(no_network: list[str]) -> None:
    for url, said in zip(URLS, in_a_child(without_a_route, *no_network), strict=True):
        assert (*said[:2], "unreachable" in said[2]) == ("Failed", Fault.LOCAL, True), (url, said)


def test_without_a_name_server_nothing_is_absent(no_network: list[str]) -> None:
    for url, said in zip(URLS, in_a_child(without_a_name_server, *no_network), strict=True):
        assert (said[0], "could not be resolved" in said[2]) == ("Failed", True), (url, said)


def test_without_descriptors_nothing_is_absent() -> None:
    for url, said in zip(URLS, in_a_child(without_descriptors), strict=True):
        assert said[:2] == ["Failed", Fault.LOCAL], (url, said)


def test_without_descriptors_no_name_is_said_not_to_exist() -> None:
    assert in_a_child(names_without_descriptors) == ["OSError", "OSError"]


# After a restart


async def test_a_host_that_refuses_after_a_restart_has_failed(tmp_path: Path) -> None:
    """What it said is in the cache: it exists, whatever this process has seen of it."""
    world = World(tmp_path)
    alice = world.certificate("alice", "Alice <alice@partner.de>")
    spec = UpstreamSpec("keys", template=True)
    names = table(keys_partner_de="127.0.0.1", keys_other_de="127.0.0.1")

    def hkp(port: int) -> Any:
        return Hkp(spec, f"hkp://keys.{{domain}}:{port}", clock=time.time, names=names, allow_private=True)

    world.upstream("keys", template=True)
    async with Scripted({"alice@partner.de": key(alice.octets)}) as server:
        world.upstreams["keys"] = hkp(server.port)
        world.terms = replace(world.terms, ttl=3600, serve_stale=86400)
        await world.start()
        await world.play("get alice@partner.de -> found MISS alice")
        await world.upstreams["keys"].close()
    world.upstreams["keys"] = hkp(server.port)
    await world.play("restart")
    try:
        await world.play("get bob@partner.de -> failed")
        await world.play("pass 2h")
        await world.play("get alice@partner.de -> found STALE alice")
        await world.play("get bob@other.de -> absent")
    finally:
        await world.upstreams["keys"].close()
        await world.stop()


async def test_a_directory_that_refuses_after_a_restart_has_failed() -> None:
    async def kept() -> bool:
        return True

    async with Scripted({}) as server:
        pass
    names = table(keys_partner_de="127.0.0.1")
    spec = UpstreamSpec("u", template=True, kinds=frozenset(Kind))
    with ThreadPoolExecutor(2) as threads:
        upstream = Ldap(
            spec,
            f"ldap://keys.{{domain}}:{server.port}",
            names=names,
            threads=threads,
            monotonic=time.monotonic,
            allow_private=True,
        )
        assert isinstance(await upstream.fetch(PARTNER, Asking(3.0, "t", kept)), Failed)
        gone = await upstream.fetch(ByAddress("a", "other.de"), Asking(3.0, "t", kept))
        assert isinstance(gone, Failed)
        assert isinstance(await upstream.fetch(PARTNER, Asking(3.0, "t")), Absent)
        await upstream.close()


# Where it leads us, and what it sends


async def test_no_record_and_no_redirect_opens_a_port_of_ours(tmp_path: Path) -> None:
    """The server stands for whatever listens on this machine; who asked for it is a name server or a keyserver."""
    async with Scripted({"*": key(make(seed="inside").octets)}) as inside:
        for host in ("127.0.0.1", "localhost", "::ffff:127.0.0.1", "keys.partner.de"):

            async def lookup(name: str, port: int) -> Sequence[str]:
                return ["127.0.0.1"]

            async def services(name: str, target: str = host) -> Sequence[Service]:
                return [Service(target, inside.port)]

            for url in ("hkp://keys.partner.de", "hkps://keys.partner.de", "hkp://keys.{domain}"):
                assert not isinstance(await asked(url, Names(lookup, services)), Found), (url, host)
        for url in ("http://127.0.0.1", "http://localhost", "http://[::ffff:127.0.0.1]", "//127.0.0.1"):
            async with Scripted({"*": redirect(f"{url}:{inside.port}/x")}) as outside:
                names = table(keys_partner_de="127.0.0.1", localhost="127.0.0.1")
                outcome = await asked(f"hkp://keys.partner.de:{outside.port}", names)
                assert isinstance(outcome, Failed) and "public" in outcome.reason, url
        assert not inside.connections


HEADER = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n"
FLOODS = {
    "gzip bomb": reply(200, gzip.compress(HEADER + bytes(100 << 20)), Content_Encoding="gzip"),
    "gzip bomb in an error": reply(500, gzip.compress(bytes(60 << 20)), Content_Encoding="gzip"),
    "blocks without end": reply(200, HEADER * 400_000),
    "private blocks": reply(200, b"-----BEGIN PGP PRIVATE KEY BLOCK-----" * 400_000),
    "one long line": reply(200, HEADER + b"A" * (15 << 20)),
    "dashes": reply(200, HEADER + b"-" * (15 << 20)),
    "nothing but checksums": reply(200, HEADER + b"=AAAA\n" * (2 << 20)),
}


@pytest.mark.parametrize("before", [0, 1], ids=["fresh connection", "kept connection"])
@pytest.mark.parametrize("name", FLOODS)
async def test_floods_cost_little_and_are_no_absence(name: str, before: int) -> None:
    async with Scripted({"*": [NOT_FOUND] * before + [FLOODS[name]]}) as server:
        tracemalloc.start()
        began = time.process_time()
        outcome = await asked(f"hkp://127.0.0.1:{server.port}", table(), before + 1)
        spent, most = time.process_time() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert isinstance(outcome, Failed)
    assert (spent < 3, most < 100 << 20) == (True, True), (spent, most >> 20)


async def test_a_good_certificate_beside_damage_is_answered_and_the_damage_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    alice = world.certificate("alice", "Alice <alice@partner.de>")
    cut = armored(world.certificate("bob", "Bob <bob@partner.de>").octets)[:-60] + "\n"
    world.upstream("keys")
    async with Scripted({"*": reply(200, cut + armored(alice.octets))}) as server:
        world.upstreams["keys"] = upstream = Hkp(UpstreamSpec("keys"), server.url, clock=time.time)  # type: ignore[assignment]
        await world.start()
        try:
            answer = await world.get("alice@partner.de")
            assert world.named(answer) == ["alice"]
            assert [s.why for s in answer.steps if s.what == "damaged"] == ["an armored block without its END line"]
            await world.play("get carol@partner.de -> failed")  # it may have been the one that was cut
        finally:
            await upstream.close()
            await world.stop()
