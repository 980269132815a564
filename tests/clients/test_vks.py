"""A verifying keyserver behind the service: gpg gets what only it has, and its limits are kept whatever the load."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from support.openpgp import make
from support.running import Gpg, Service
from support.scripted import NOT_FOUND, Scripted, key
from support.tls import Authority
from support.vks import Vks

ALICE, WORK = "Alice <alice@example.org>", "Alice <alice@work.example>"


def config(public: Scripted, vks: Vks, authority: Authority) -> str:
    return f"""
[[upstream]]
name = "public"
url = "{public.url}"
[[upstream]]
name = "verifying"
url = "{vks.url}"
tls_ca_file = "{authority.ca_file}"
"""


async def test_gpg_finds_what_only_it_has_and_finds_it_again_without_it(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with Scripted({"*": NOT_FOUND}) as public, Vks(authority) as vks:
        alice = vks.add([ALICE, WORK], verified=[ALICE], seed="alice")
        with Service(tmp_path, config=config(public, vks, authority)) as service:
            server = ("--keyserver", f"hkp://127.0.0.1:{service.port()}")
            locate = (*server, "--auto-key-locate", "clear,keyserver", "--locate-external-keys", "alice@example.org")
            for home in ("first", "again"):
                with Gpg(tmp_path / home) as gpg:
                    listed = (await asyncio.to_thread(gpg.run, *locate)).stdout
                    assert "alice@example.org" in listed
                    assert "work.example" not in listed, "its owner has not shown that it is hers"
                    await asyncio.to_thread(gpg.run, *server, "--recv-keys", alice.fingerprint)
                    assert gpg.fingerprints() == {alice.fingerprint}
                if home == "first":
                    assert vks.asked("by-email") == ["alice@example.org"]
                    await vks.stop()
                    await public.stop()
            shown = await asyncio.to_thread(service.cli, "cache", "show", alice.fingerprint)
            assert "verifying, by vks" in shown
        assert vks.statuses == [200]


async def test_a_flood_of_addresses_sends_it_one_question_and_fails_nobody(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with Scripted({"*": NOT_FOUND}) as public, Vks(authority) as vks:
        with Service(tmp_path, config=config(public, vks, authority)) as service:
            gate = asyncio.Semaphore(32)

            async def lookup(number: int) -> int:
                async with gate:
                    return (await service.lookup(f"user{number}@example.org"))[0]

            assert set(await asyncio.gather(*map(lookup, range(200)))) == {404}
            assert len(vks.asked("by-email")) == 1
            assert set(vks.statuses) <= {404}, "429 is never seen"
            assert len(public.requests) == 200
            trace = await asyncio.to_thread(service.cli, "lookup", "user200@example.org", "--trace", code=None)
            assert "verifying" in trace
            steps = (await service.api("/api/v1/lookup?q=user201@example.org&trace=1"))["steps"]
            assert any(step["who"].endswith("verifying") and "1/min" in step["why"] for step in steps), steps
            assert len(vks.asked("by-email")) == 1


async def test_fingerprints_go_no_faster_than_five_a_second(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with Scripted({"*": NOT_FOUND}) as public, Vks(authority) as vks:
        made = [make([f"User {n} <user{n}@example.org>"], seed=f"user {n}") for n in range(12)]
        with Service(tmp_path, config=config(public, vks, authority)) as service:
            began = time.monotonic()
            answers = await asyncio.gather(*(service.lookup(one.fingerprint) for one in made))
            assert {status for status, _, _ in answers} == {404}
        assert 5 < len(vks.by_name_at) <= 12
        assert all(at - began >= number // 5 for number, at in enumerate(sorted(vks.by_name_at)))


async def test_a_certificate_without_user_ids_brings_a_revocation_and_is_no_find(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    alice = make([ALICE], seed="alice")
    async with Scripted({"*": NOT_FOUND}) as public, Vks(authority) as vks:
        vks.add([ALICE], verified=[], seed="alice", revoked=0)
        with Service(tmp_path, config=config(public, vks, authority)) as service:
            assert (await service.lookup(alice.fingerprint))[0] == 404, "nobody can use it"
            public.routes = {alice.fingerprint: key(alice.octets), "alice@example.org": key(alice.octets)}
            assert (await service.lookup("alice@example.org"))[0] == 200
            await asyncio.to_thread(service.cli, "cache", "refresh", alice.fingerprint)
            with Gpg(tmp_path / "g") as gpg:
                server = f"hkp://127.0.0.1:{service.port()}"
                await asyncio.to_thread(gpg.run, "--keyserver", server, "--recv-keys", alice.fingerprint)
                listed = (await asyncio.to_thread(gpg.run, "--list-keys", "--with-colons")).stdout
            assert "pub:r:" in listed
