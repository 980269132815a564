"""The configuration is read again while clients ask without pause: every answer follows it, and nobody is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from keyserver.wire.ldap_filter import Equal
from support.ldap_client import Client
from support.openpgp import Made, armored, make
from support.running import Service
from support.scripted import Scripted, key, slow
from support.tls import Authority

both = pytest.mark.usefixtures("both_shapes")

ADDRESSES = [f"user{number}@example.org" for number in range(40)]
ONE, TWO = ({a: make([f"User <{a}>"], seed=f"{seed} {a}") for a in ADDRESSES} for seed in ("one", "two"))


def upstream(name: str, url: str, **more: str) -> str:
    keys = {"name": f'"{name}"', "url": f'"{url}"', **more}
    return "[[upstream]]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())


def mark(made: Made) -> bytes:
    """A line that only this key's armor has."""
    return armored(made.octets).split("\n")[2].encode()


@dataclass
class Load:
    """Clients on connections of their own that ask without pause."""

    service: Service
    replies: list[tuple[str, float, float, int, bytes]] = field(default_factory=list)
    """Address, when begun and ended, status, body."""
    lost: int = 0

    async def client(self, terms: Sequence[str], connection: Any) -> None:
        reader, writer = connection
        for term in itertools.cycle(terms):
            begun = time.monotonic()
            writer.write(f"GET /pks/lookup?op=get&options=mr&search={quote(term)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                body = await reader.readexactly(int(length.partition(b":")[2]))
            except (asyncio.IncompleteReadError, ConnectionError):
                self.lost += 1
                return
            self.replies.append((term, begun, time.monotonic(), int(head.split()[1]), body))

    @contextlib.asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        parts = [ADDRESSES[start::6] for start in range(6)] + [ADDRESSES[:1], ADDRESSES[:3]]
        ports = [await asyncio.open_connection("127.0.0.1", self.service.port()) for _ in parts]
        tasks = [asyncio.ensure_future(self.client(*each)) for each in zip(parts, ports, strict=True)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for _, writer in ports:
                writer.close()


@both
async def test_under_load_every_answer_after_a_reload_follows_the_new_file(tmp_path: Path) -> None:
    quick = {address: key(made.octets) for address, made in ONE.items()}
    late = {address: slow(0.02, key(made.octets)) for address, made in TWO.items()}
    async with Scripted(quick) as first, Scripted(late) as second:
        files = [upstream("first", first.url), upstream("second", second.url)]
        marks = [{address: mark(made) for address, made in made.items()} for made in (ONE, TWO)]
        with Service(tmp_path, config=files[0]) as service:
            load = Load(service)
            reloads: list[tuple[float, float, int]] = []
            async with load.under_way():
                await asyncio.sleep(0.3)
                for number in range(1, 51):
                    service.config.write_text(files[number % 2])
                    begun = time.monotonic()
                    done = await service.api("/api/v1/reload", "POST")
                    reloads.append((begun, time.monotonic(), number % 2))
                    assert {change["key"] for change in done["changed"]} == {"upstream[first]", "upstream[second]"}
                    await asyncio.sleep(0.05)
            assert load.lost == 0
            assert {status for *_, status, _ in load.replies} == {200}
            judged = 0
            for (_, returned, which), (next_begun, _, _) in itertools.pairwise([*reloads, (time.monotonic(), 0.0, 0)]):
                for address, begun, ended, _, body in load.replies:
                    if begun > returned and ended < next_begun:
                        judged += 1
                        assert marks[which][address] in body
                        assert marks[1 - which][address] not in body
            assert judged > 1000
            assert service.stop() == 0


def answered(service: Service, address: str) -> list[str]:
    """Fingerprints that the LDAP face shows for an address; asked twice, so that the second may come from memory."""
    with Client(service.port("ldap")) as client:
        found = [client.search("dc=keyserver,dc=local", Equal("gpgMailbox", address.encode())) for _ in range(2)]
    assert found[0].dns == found[1].dns
    return [dn.split(",")[0].partition("=")[2] for dn in found[1].dns]


@both
async def test_hot_answers_of_both_faces_are_gone_everywhere(tmp_path: Path) -> None:
    (address, *_) = ADDRESSES
    made = ONE[address]
    async with Scripted({"*": key(made.octets)}) as peer:
        plain = upstream("peer", peer.url)
        without = [
            upstream("peer", peer.url, domains='["elsewhere.example"]'),
            plain + '[policy]\ninternal_domains = ["example.org"]\n',
            "",
        ]
        with Service(tmp_path, config=plain) as service:
            for other in without:
                for _ in range(3):
                    assert (await service.lookup(address))[0] == 200
                assert await asyncio.to_thread(answered, service, address) == [made.fingerprint]
                service.config.write_text(other)
                await service.api("/api/v1/reload", "POST")
                for _ in range(3):
                    assert (await service.lookup(address))[0] == 404
                assert await asyncio.to_thread(answered, service, address) == []
                service.config.write_text(plain)
                service.cli("reload")


@both
async def test_a_file_with_mistakes_changes_nothing_and_all_are_told(tmp_path: Path) -> None:
    (address, *_) = ADDRESSES
    async with Scripted({"*": key(ONE[address].octets)}) as peer:
        good = upstream("peer", peer.url)
        bad = good.replace("hkp:", "gopher:") + '[cache]\nttl = "2 parsecs"\n[limits]\nsearchs = 1\n'
        wrong = {"upstream[peer].url", "cache.ttl", "limits.searchs"}
        with Service(tmp_path, config=good) as service:
            assert (await service.lookup(address))[0] == 200
            service.config.write_text(bad)
            status, headers, body = await service.get(
                "/api/v1/reload", method="POST", face="admin", headers=bearer(service)
            )
            assert (status, headers["content-type"]) == (400, "application/problem+json")
            problem = json.loads(body)
            assert {mistake["key"] for mistake in problem["mistakes"]} == wrong
            assert "3 mistakes" in problem["detail"]
            told = service.cli("reload", code=2)
            assert all(key in told for key in wrong)
            await hang_up(service, lambda lines: all(any(key in line for line in lines) for key in wrong))
            shown = await service.api("/api/v1/settings")
            assert {mistake["key"] for mistake in shown["file"]["mistakes"]} == wrong
            assert {row["value"] for row in shown["settings"] if row["key"] == "cache.ttl"} == {"1 day"}
            assert "limits.searchs" in service.cli("settings")
            assert (await service.lookup(address))[1]["x-cache"] == "HIT"
            service.config.write_text(good + '[cache]\nttl = "2 hours"\n')
            await hang_up(service, lambda lines: any("changed: cache.ttl" in line for line in lines))
            shown = await service.api("/api/v1/settings")
            (row,) = [row for row in shown["settings"] if row["key"] == "cache.ttl"]
            assert (row["value"], row["origin"], row["where"]) == ("2 hours", "file", str(service.config))
            assert shown["file"] == {"name": str(service.config), "mistakes": [], "changes": []}
            (row,) = [row for row in shown["settings"] if row["key"] == "hkp.listen"]
            assert (row["origin"], row["restart"]) == ("command line", True)
            service.config.unlink()
            assert "cannot be read" in service.cli("reload", code=2)


@both
async def test_what_needs_a_restart_is_named_and_the_rest_takes_effect(tmp_path: Path) -> None:
    with Service(tmp_path, config="") as service:
        service.config.write_text('[cache]\nmemory = "1 MiB"\nttl = "2 hours"\n[ldap]\nbase = "dc=x"\n')
        for _ in range(2):
            told = service.cli("reload")
            assert 'needs a restart: cache.memory: "256 MiB" -> "1 MiB"' in told
            assert 'needs a restart: ldap.base: "dc=keyserver,dc=local" -> "dc=x"' in told
        assert "nothing changed" in told, "but the first time"
        shown = await service.api("/api/v1/settings")
        values = {row["key"]: row["value"] for row in shown["settings"]}
        assert (values["cache.memory"], values["cache.ttl"]) == ("256 MiB", "2 hours")
        assert {change["key"]: change["restart"] for change in shown["file"]["changes"]} == {
            "cache.memory": True,
            "ldap.base": True,
        }
        assert "needs a restart: cache.memory" in service.cli("settings", "--explain")
        assert service.stop() == 0
    assert "no service runs" in service.cli("reload", code=1)
    assert "2 hours" in service.cli("settings"), "what it would be started with"


@both
async def test_limits_and_certificates_change_where_connections_are(tmp_path: Path) -> None:
    """Connections that stand stay, whatever they were let in by."""
    authority = Authority(tmp_path / "ca")
    issued = [authority.issue(("localhost", f"{name}.test")) for name in ("one", "two")]
    one, two = (f'tls_certificate = "{each.certificate}"\ntls_key_file = "{each.key}"\n' for each in issued)
    config = f"[ldap]\n{one}[hkp]\n{one}"
    moved = f"[ldap]\n{one}[hkp]\n{two}[limits]\ntrusted = []\nconnections_per_client = 2\n"
    settings = {"hkp.listen": '["127.0.0.1:0", "tls:127.0.0.1:0"]', "ldap.listen": '["tls:127.0.0.1:0"]'}
    client = ssl.create_default_context(cafile=str(authority.ca_file))

    async def shown(face: str, number: int) -> str:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", service.port(face, number), ssl=client, server_hostname="localhost"
        )
        writer.close()
        return str(writer.get_extra_info("peercert")["subjectAltName"][1][1])

    with Service(tmp_path, config=config, settings=settings) as service:
        assert (await shown("hkp", 1), await shown("ldap", 0)) == ("one.test", "one.test")
        kept = [await asyncio.open_connection("127.0.0.1", service.port("hkp", 0)) for _ in range(4)]
        service.config.write_text(moved)
        await service.api("/api/v1/reload", "POST")
        for reader, writer in kept:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: k\r\n\r\n")
            assert (await asyncio.wait_for(reader.readuntil(b"ok\n"), 5)).startswith(b"HTTP/1.1 200")
        with pytest.raises((AssertionError, OSError, ValueError, IndexError)):
            await service.get("/healthz")
        for _, writer in kept:
            writer.close()
        async with asyncio.timeout(5):
            while True:
                with contextlib.suppress(OSError, ValueError, IndexError):
                    if (await service.get("/healthz"))[0] == 200:
                        break
        assert (await shown("hkp", 1), await shown("ldap", 0)) == ("two.test", "one.test")
        assert service.stop() == 0


async def test_processes_that_start_later_go_by_it_too(tmp_path: Path) -> None:
    """They are forked by a supervisor that knows the configuration of the start only."""
    (address, *_) = ADDRESSES
    authority = Authority(tmp_path / "ca")
    issued = [authority.issue(("localhost", f"{name}.test")) for name in ("one", "two")]
    one, two = (f'[hkp]\ntls_certificate = "{each.certificate}"\ntls_key_file = "{each.key}"\n' for each in issued)
    client = ssl.create_default_context(cafile=str(authority.ca_file))
    settings = {"server.workers": "1", "hkp.listen": '["127.0.0.1:0", "tls:127.0.0.1:0"]'}
    async with Scripted({"*": key(ONE[address].octets)}) as peer:
        with Service(tmp_path, config=one + upstream("peer", peer.url), settings=settings) as service:
            assert (await service.lookup(address))[0] == 200
            service.config.write_text(two)
            service.cli("reload")
            service.config.write_text(one + upstream("peer", peer.url))  # waits for a reload of its own
            for kind in ("front", "core"):
                (victim,) = [node for node in await nodes(service) if node["kind"] == kind]
                os.kill(victim["pid"], signal.SIGKILL)
                async with asyncio.timeout(15):
                    while not any(n["kind"] == kind and n["restarts"] for n in await nodes(service)):
                        await asyncio.sleep(0.05)
                async with asyncio.timeout(15):
                    while (status := (await looked_up(service, address))) != 404:
                        assert status in (0, 500), "its upstream is gone"
                        await asyncio.sleep(0.05)
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", service.port("hkp", 1), ssl=client, server_hostname="localhost"
                )
                assert writer.get_extra_info("peercert")["subjectAltName"][1][1] == "two.test"
                writer.close()
            assert service.stop() == 0


async def nodes(service: Service) -> list[dict[str, Any]]:
    """The processes; none while the core is not there."""
    with contextlib.suppress(OSError, ValueError, IndexError, AssertionError):
        return list((await service.api("/api/v1/nodes"))["nodes"])
    return []


async def looked_up(service: Service, address: str) -> int:
    """The status; 0 while nobody answers."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return (await service.lookup(address))[0]
    return 0


def bearer(service: Service) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.token}"}


async def hang_up(service: Service, said: Callable[[Sequence[str]], bool]) -> None:
    """SIGHUP, until the log says so."""
    assert service.process is not None
    lines = len(service.log)
    service.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(10):
        while not said(service.log[lines:]):
            await asyncio.sleep(0.02)
