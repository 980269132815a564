"""The product's main job end to end: real service, real gpg, scripted upstreams that come and go."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.openpgp import make
from support.running import Gpg, Service
from support.scripted import Scripted, key, reply, slow

pytestmark = pytest.mark.usefixtures("both_shapes")


NOT_FOUND = reply(404, "Not found")


@pytest.fixture
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    with Gpg(tmp_path_factory.mktemp("g")) as found:
        yield found


async def test_gpg_gets_a_key_and_gets_it_again_with_every_upstream_unplugged(tmp_path: Path, gpg: Gpg) -> None:
    alice = make(["Alice <alice@example.org>"])
    async with Scripted({alice.fingerprint: key(alice.octets), "alice@example.org": key(alice.octets)}) as upstream:
        service = Service(tmp_path, upstreams=[upstream.url]).start()
        server = f"hkp://127.0.0.1:{service.port()}"
        recv = ("--keyserver", server, "--recv-keys", alice.fingerprint)
        await asyncio.to_thread(gpg.run, *recv)
        assert gpg.fingerprints() == {alice.fingerprint}
        assert (await service.lookup("alice@example.org"))[1]["x-cache"] == "MISS"
        assert upstream.asked(alice.fingerprint) == 1
    try:
        for how in ("upstream off", "restarted", "killed"):
            if how == "restarted":
                assert service.stop() == 0
                service.start()
            if how == "killed":
                service.kill()
                service.start()
            for term in (f"0x{alice.fingerprint}", f"0x{alice.key_id}", "alice@example.org"):
                status, headers, body = await service.lookup(term)
                assert (status, headers["x-cache"]) == (200, "HIT"), (how, term)
                assert body.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")
        with Gpg(tmp_path / "again") as again:
            server = f"hkp://127.0.0.1:{service.port()}"
            await asyncio.to_thread(again.run, "--keyserver", server, "--recv-keys", alice.fingerprint)
            assert again.fingerprints() == {alice.fingerprint}
            located = await asyncio.to_thread(
                again.run, "--keyserver", server, "--auto-key-locate", "clear,keyserver",
                "--locate-external-keys", "alice@example.org",
            )  # fmt: skip
            assert "alice@example.org" in located.stdout
            found = await asyncio.to_thread(
                again.run, "--keyserver", server, "--search-keys", "alice@example.org", check=False
            )
            assert alice.key_id in found.stdout + found.stderr
    finally:
        service.kill()


async def test_fifty_clients_make_one_upstream_request(tmp_path: Path) -> None:
    alice = make(["Alice <alice@example.org>"])
    async with Scripted({alice.fingerprint: slow(0.3, key(alice.octets))}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            answers = await asyncio.gather(*(service.lookup(alice.fingerprint) for _ in range(50)))
            assert {status for status, _, _ in answers} == {200}
            assert len({body for _, _, body in answers}) == 1
            assert upstream.asked(alice.fingerprint) == 1
            assert (await service.lookup(alice.fingerprint))[1]["x-cache"] == "HIT"


async def test_a_wrong_answer_is_not_cached_and_a_down_upstream_is_no_absence(tmp_path: Path) -> None:
    alice, mallory = make(["Alice <alice@example.org>"]), make(["Mallory <mallory@example.org>"])
    routes = {alice.fingerprint: key(mallory.octets), "alice@example.org": key(mallory.octets), "*": reply(500, "down")}
    async with Scripted(routes) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            for term in (alice.fingerprint, "alice@example.org"):
                assert (await service.lookup(term))[0] == 404
            assert (await service.lookup("other@example.org"))[0] == 500
            assert (await service.lookup(mallory.fingerprint))[0] == 500, "kept under nothing"
            assert (await service.api("/api/v1/cache"))["entries"] == []


async def test_an_address_without_a_key_is_searched_once(tmp_path: Path) -> None:
    async with Scripted({"*": NOT_FOUND}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            first, second = await service.lookup("nobody@example.org"), await service.lookup("NoBody@Example.ORG")
            assert (first[0], second[0]) == (404, 404)
            assert (first[1]["x-cache"], second[1]["x-cache"]) == ("MISS", "HIT")
            assert upstream.asked("nobody@example.org") == 1


async def test_a_strangers_certificate_does_not_answer_for_the_partner(tmp_path: Path) -> None:
    ceo, stranger = make(["Ceo <ceo@partner.example>"]), make(["Ceo <ceo@partner.example>"])
    async with (
        Scripted({stranger.fingerprint: key(stranger.octets), "*": NOT_FOUND}) as public,
        Scripted({"ceo@partner.example": key(ceo.octets), "*": NOT_FOUND}) as partner,
    ):
        config = f"""
[[upstream]]
name = "public"
url = "{public.url}"
[[upstream]]
name = "partner"
url = "{partner.url}"
priority = 5
domains = ["partner.example"]
"""
        with Service(tmp_path, config=config) as service:
            assert (await service.lookup(stranger.fingerprint))[0] == 200
            status, _, body = await service.lookup("ceo@partner.example")
            assert status == 200
            shown = subprocess.run(
                ["gpg", "--show-keys", "--with-colons"], input=body, capture_output=True
            ).stdout.decode()
            assert ceo.fingerprint in shown
            assert stranger.fingerprint not in shown
            assert partner.asked("ceo@partner.example") == 1
            assert public.asked("ceo@partner.example") == 0


async def test_a_delete_is_seen_by_the_next_request_on_a_hot_connection(tmp_path: Path) -> None:
    alice = make(["Alice <alice@example.org>"])
    async with Scripted({alice.fingerprint: [key(alice.octets), NOT_FOUND]}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.port())
            request = (
                f"GET /pks/lookup?op=get&options=mr&search=0x{alice.fingerprint} HTTP/1.1\r\nHost: t\r\n\r\n".encode()
            )

            async def ask() -> int:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                await reader.readexactly(length)
                return int(head.split()[1])

            assert [await ask() for _ in range(5)] == [200] * 5
            bearer = {"Authorization": f"Bearer {service.token}"}
            for _ in range(50):
                metrics = (await service.get("/metrics", face="admin", headers=bearer))[2]
                if b'keyserver_hot_answers_total{face="hkp"}' in metrics:
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError("it was not served hot")
            await asyncio.to_thread(service.cli, "cache", "delete", alice.fingerprint)
            assert [await ask() for _ in range(3)] == [404] * 3
            await asyncio.to_thread(service.cli, "cache", "undo")
            assert [await ask() for _ in range(3)] == [200] * 3
            assert upstream.asked(alice.fingerprint) == 2
            writer.close()


async def test_gpg_is_served_from_memory(tmp_path: Path, gpg: Gpg) -> None:
    alice = make(["Alice <alice@example.org>"])
    async with Scripted({alice.fingerprint: key(alice.octets)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            server = f"hkp://127.0.0.1:{service.port()}"
            for _ in range(5):
                await asyncio.to_thread(gpg.run, "--keyserver", server, "--recv-keys", alice.fingerprint)
            for _ in range(50):
                bearer = {"Authorization": f"Bearer {service.token}"}
                metrics = (await service.get("/metrics", face="admin", headers=bearer))[2].decode()
                found = [line for line in metrics.splitlines() if line.startswith("keyserver_hot_answers_total")]
                if found and float(found[0].split()[-1]) >= 3:
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError(f"a miss, a hit that fills memory, then three from memory; got {found}")


async def test_one_clear_line_when_a_port_is_taken(tmp_path: Path) -> None:
    with Service(tmp_path) as first:
        second = Service(tmp_path / "..", settings={"hkp.listen": f'["127.0.0.1:{first.port()}"]'})
        second.settings["cache.database"] = f'"sqlite:///{tmp_path / "other" / "other.db"}"'
        with pytest.raises(AssertionError) as caught:
            second.start()
        assert second.process is not None
        assert second.process.returncode == 3
        assert "in use" in str(caught.value)
        assert "hkp" in str(caught.value)
        assert len([line for line in second.log if line]) == 1


async def test_sigterm_drains(tmp_path: Path) -> None:
    alice = make(["Alice <alice@example.org>"])
    async with Scripted({alice.fingerprint: slow(0.5, key(alice.octets))}) as upstream:
        service = Service(tmp_path, upstreams=[upstream.url]).start()
        asked = asyncio.ensure_future(service.lookup(alice.fingerprint))
        while not upstream.asked(alice.fingerprint):
            await asyncio.sleep(0.01)
        code = await asyncio.to_thread(service.stop)
        assert code == 0
        assert (await asked)[0] == 200


async def test_logs_hold_no_identities(tmp_path: Path) -> None:
    alice = make(["Alice <alice@example.org>"])
    async with Scripted({"*": NOT_FOUND, "alice@example.org": key(alice.octets)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            await service.lookup("alice@example.org")
            await service.lookup(alice.fingerprint)
            await service.lookup("nobody@example.org")
            token = service.token
            service.stop()
        log = "\n".join(service.log)
        assert log.count("lookup") >= 3
        for word in ("alice", "nobody", alice.fingerprint, alice.key_id, token):
            assert word.lower() not in log.lower()
