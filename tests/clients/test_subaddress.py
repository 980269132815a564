"""A subaddress on every face: alice@'s certificate for alice+tag@, a stranger's beside it, mail not at all."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from clients.test_ldap_service import ldapsearch
from support.openpgp import make
from support.running import Service
from support.scripted import NOT_FOUND, Scripted, key, reply
from support.x509 import authority, person

pytestmark = pytest.mark.usefixtures("both_shapes")

ALICE, TAGGED = "alice@example.org", "alice+tag@example.org"
BASE = ("-b", "dc=keyserver,dc=local")
SETTINGS = {"policy.subaddress": '"+"', "policy.subaddress_domains": '["example.org"]'}


async def test_every_face_answers_and_forgets_with_either_address(tmp_path: Path) -> None:
    alice, tagged = make([f"Alice <{ALICE}>"], seed="alice"), make([f"Alice <{TAGGED}>"], seed="tagged")
    x509 = person(ALICE, authority())
    (tmp_path / "alice.pem").write_bytes(x509.pem)
    (tmp_path / "tagged.asc").write_text(tagged.armored)
    async with Scripted({ALICE: key(alice.octets), "*": NOT_FOUND}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=SETTINGS) as service:
            await asyncio.to_thread(service.cli, "cache", "import", str(tmp_path / "alice.pem"))
            for target in (
                "/pks/lookup?op=get&options=mr&search=alice%2Btag%40example.org",
                "/pks/lookup?op=get&options=mr&search=alice+tag%40example.org",
                "/pks/v2/certs/by-identity/alice+tag@example.org",
                "/vks/v1/by-email/alice%2Btag%40example.org",
                "/certificates/search.cgi?uri=alice%2Btag@example.org",
            ):
                assert [(await service.get(target))[0] for _ in range(3)] == [200] * 3, target
            assert (upstream.asked(TAGGED), upstream.asked(ALICE)) == (1, 1)
            for filter_, expected in (
                (f"(gpgMailbox={TAGGED})", f"gpgFingerprint: {alice.fingerprint}"),
                (f"(mail={TAGGED})", f"uid: {x509.fingerprint}"),
            ):
                for _ in range(3):
                    said = await asyncio.to_thread(ldapsearch, service.port("ldap"), *BASE, filter_)
                    assert expected in said
                    assert said.index(ALICE) < said.index(f": {TAGGED}")
            traced = await asyncio.to_thread(service.cli, "lookup", TAGGED, "--trace", code=None)
            assert "what stands before the + is asked for" in traced
            assert (await service.get("/pks/lookup?op=get&search=alice%2Btag@elsewhere.example"))[0] == 404
            # its own certificate takes the place of the other, in memory too
            await asyncio.to_thread(service.cli, "cache", "import", str(tmp_path / "tagged.asc"))
            assert (await service.lookup(TAGGED))[1]["x-key-source"] == "local"
            await asyncio.to_thread(service.cli, "cache", "delete", tagged.fingerprint)
            await asyncio.to_thread(service.cli, "cache", "block", alice.fingerprint)
            assert (await service.lookup(TAGGED))[0] == 404


async def test_what_fails_is_no_absence(tmp_path: Path) -> None:
    alice = make([f"Alice <{ALICE}>"], seed="alice")
    async with Scripted({ALICE: key(alice.octets), TAGGED: reply(500)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=SETTINGS) as service:
            assert (await service.lookup(TAGGED))[0] == 500
            assert upstream.asked(ALICE) == 0
            upstream.routes |= {TAGGED: NOT_FOUND, ALICE: reply(500)}
            assert (await service.lookup(TAGGED))[0] == 500
            assert upstream.asked(ALICE) == 1


async def test_off_by_default(tmp_path: Path) -> None:
    alice = make([f"Alice <{ALICE}>"], seed="alice")
    async with Scripted({ALICE: key(alice.octets), "*": NOT_FOUND}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url]) as service:
            assert (await service.lookup(TAGGED))[0] == 404
            assert upstream.asked(ALICE) == 0
