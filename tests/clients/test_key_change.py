"""A certificate is replaced at a keyserver and in a company directory: what faces say, and what lets it through."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from pathlib import Path

import pytest

from support.directory import Slapd, base_entry, person
from support.openpgp import CREATED, make
from support.running import Service
from support.scripted import Scripted, key
from support.x509 import person as certificate_of

pytestmark = pytest.mark.usefixtures("both_shapes")

BOB = "bob@partner.example"
OLD = make([f"Bob <{BOB}>"], seed="old")
NEW = make([f"Bob <{BOB}>"], seed="new", created=CREATED + 1000)
PEOPLE = (certificate_of(BOB), certificate_of(BOB))
BASE = "ou=people,dc=example,dc=org"


async def told(service: Service) -> set[str]:
    """Fingerprints that HKP and LDAP name, which are the same."""
    _, _, index = await service.get(f"/pks/lookup?op=index&options=mr&search={BOB}")
    by_hkp = {line.split(":")[1] for line in index.decode().splitlines() if line.startswith("pub:")}
    ask = ("-b", "dc=keyserver,dc=local", f"(gpgMailbox={BOB})", "gpgFingerprint")
    done = await asyncio.to_thread(
        subprocess.run,
        ["ldapsearch", "-x", "-LLL", "-H", f"ldap://127.0.0.1:{service.port('ldap')}", *ask],
        capture_output=True,
        text=True,
        timeout=30,
    )
    by_ldap = {line.split()[1] for line in done.stdout.splitlines() if line.startswith("gpgFingerprint:")}
    assert by_hkp == by_ldap
    return by_hkp


async def cli(service: Service, *words: str, code: int | None = 0) -> str:
    return await asyncio.to_thread(lambda: service.cli(*words, code=code))


async def test_at_a_keyserver(tmp_path: Path) -> None:
    async with Scripted({BOB: key(OLD.octets)}) as upstream:
        settings = {"policy.on_change": '"hold"', "cache.ttl": '"1h"'}
        with Service(tmp_path, upstreams=[upstream.url], settings=settings) as service:
            assert await told(service) == {OLD.fingerprint}
            upstream.routes[BOB] = key(NEW.octets)
            await cli(service, "cache", "refresh", BOB)
            assert await told(service) == {OLD.fingerprint}
            trace = await cli(service, "lookup", BOB, "--trace")
            assert f"held {NEW.fingerprint}" in " ".join(trace.split())
            assert NEW.fingerprint in await cli(service, "cache", "list", "--held")
            await cli(service, "cache", "approve", NEW.fingerprint, "--address", BOB)
            assert await told(service) == {NEW.fingerprint}
            assert NEW.fingerprint not in await cli(service, "cache", "list", "--held", code=None)
            service.stop()
            service.start()
            assert await told(service) == {NEW.fingerprint}


@pytest.mark.parametrize("on_change", ["report", "hold"])
async def test_in_a_directory(on_change: str, tmp_path: Path) -> None:
    old, new = PEOPLE
    mine = person(BASE, BOB, **{"userCertificate;binary": old.der})
    entries = [base_entry("dc=example,dc=org"), base_entry(BASE), mine]
    with Slapd(tmp_path / "slapd", entries=entries, password="s3cret") as directory:
        settings = {"policy.on_change": f'"{on_change}"', "smime.trust_anchors": '"none"'}
        with Service(tmp_path, upstreams=[f"{directory.url}/{BASE}"], settings=settings) as service:
            where = f"/certificates/search.cgi?uri={BOB}"
            assert (await service.get(where))[2] == old.der
            ldif = f"dn: {mine[0]}\nchangetype: modify\nreplace: userCertificate;binary\nuserCertificate;binary:: "
            bind = ["ldapmodify", "-x", "-H", directory.url, "-D", directory.admin, "-w", directory.password]
            text = ldif + base64.b64encode(new.der).decode() + "\n"
            await asyncio.to_thread(subprocess.run, bind, input=text, text=True, check=True, capture_output=True)
            await cli(service, "cache", "refresh", BOB)
            got = (await service.get(where))[2]
            if on_change == "hold":
                assert got == old.der
                await cli(service, "cache", "approve", new.fingerprint, "--address", BOB)
                assert (await service.get(where))[2] == new.der
            else:
                assert new.der in got
