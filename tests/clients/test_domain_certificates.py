"""A whole service with a partner's gateway: each face in a view that hands its certificate out and in one that does
not, every way to a verdict, a delete and a reload."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from clients.test_ldap_service import ldapsearch
from clients.test_usable import over
from keyserver.faces.http.hashes import hash_of
from support.openpgp import make
from support.running import Service
from support.scripted import NOT_FOUND, Scripted, key, reply
from support.verdict_faces import SocketmapClient
from support.x509 import authority, person

pytestmark = pytest.mark.usefixtures("both_shapes")

DOMAIN = "partner.example"
ALICE, BOB, DOWN = f"alice@{DOMAIN}", f"bob@{DOMAIN}", f"down@{DOMAIN}"
GATEWAY = make(["Gateway <gateway@elsewhere.example>"], seed="gateway")
SMIME = person("gateway@elsewhere.example", authority())
OWN = make([f"Bob <{BOB}>"], seed="bob")
VIEW = """
[[view]]
name = "gateway"
hkp_listen = ["127.0.0.1:0"]
ldap_listen = ["127.0.0.1:0"]
domain_certificates = true
usable_only = true
"""
ROWS = "".join(
    f'[[domain_certificate]]\ndomain = "{DOMAIN}"\nfingerprint = "{one.fingerprint}"\n' for one in (GATEWAY, SMIME)
)
SETTINGS = {"verdict.listen": '"127.0.0.1:0"', "verdict.socketmap_listen": '"127.0.0.1:0"'}
EVERY, HANDS_OUT = 0, 1  # the number of a listener
HTTP = {
    "hkp": f"/pks/lookup?op=get&options=mr&search={ALICE}",
    "index": f"/pks/lookup?op=index&options=mr&search={ALICE}",
    "page": f"/pks/lookup?op=index&search={ALICE}",
    "hkp2": f"/pks/v2/certs/by-identity/{ALICE}",
    "hkp2 index": f"/pks/v2/index/{ALICE}",
    "vks": f"/vks/v1/by-email/{ALICE}",
    "rfc 4387": f"/certificates/search.cgi?uri={ALICE}",
}
NEVER = {"canonical": f"/pks/v2/canonical/{ALICE}"}
LDAP = {
    f"(gpgMailbox={ALICE})": f"gpgFingerprint: {GATEWAY.fingerprint}",
    f"(mail={ALICE})": f"uid: {SMIME.fingerprint}",
}


async def statuses(service: Service, listener: int) -> dict[str, int]:
    """Of each face: the first answer, and what memory says of it."""
    found = {}
    for face, target in (HTTP | NEVER).items():
        for _ in range(3):
            status, _, body = await over(service.port("hkp", listener), target)
            assert found.setdefault(face, status) == status, (face, body)
    for filter_, line in LDAP.items():
        for _ in range(2):
            search = ("-b", "dc=keyserver,dc=local", filter_)
            said = await asyncio.to_thread(ldapsearch, service.port("ldap", listener), *search)
            status = 200 if line in said else 404
            assert found.setdefault(filter_, status) == status
            assert status == 200 or "dn:" not in said
    return found


def expected(status: int) -> dict[str, int]:
    return dict.fromkeys([*HTTP, *LDAP], status) | dict.fromkeys(NEVER, 404)


async def words(service: Service, client: SocketmapClient, address: str) -> tuple[str, str, str]:
    """The verdict by socketmap, over HTTP, and by the API with the domain that is named."""
    (one,) = json.loads(await asyncio.to_thread(service.cli, "can-encrypt", address, "--json", code=None))["verdicts"]
    by = {certificate["by_domain"] for certificate in one["certificates"]}
    said = (await service.get(f"/verdict?address={address}", face="verdict"))[2].decode().strip()
    return (await client.ask(f"encrypt {address}")).partition(" ")[0], said, f"{one['verdict']} {''.join(by)}".strip()


async def test_faces_by_view_and_verdicts_everywhere(tmp_path: Path) -> None:
    files = {"gateway.asc": GATEWAY.armored.encode(), "gateway.pem": SMIME.pem}
    for name, octets in files.items():
        (tmp_path / name).write_bytes(octets)
    routes = {BOB: key(OWN.octets), DOWN: reply(500), "*": NOT_FOUND}
    async with Scripted(routes) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=SETTINGS, config=VIEW + ROWS) as service:
            async with SocketmapClient(service.port("socketmap")) as client:
                assert await words(service, client, ALICE) == ("NOTFOUND", "no", "no")
                assert any("it is not cached" in line and DOMAIN in line for line in service.log)
                service.cli("cache", "import", *(str(tmp_path / name) for name in files))
                yes = ("OK", "yes", f"yes {DOMAIN}")
                assert await words(service, client, ALICE) == yes, "an import is felt at once"
                assert await words(service, client, BOB) == ("OK", "yes", "yes")
                assert await words(service, client, DOWN) == ("TEMP", "unknown", "unknown")

                assert await statuses(service, EVERY) == expected(404)
                assert await statuses(service, HANDS_OUT) == expected(200)
                port = service.port("hkp", HANDS_OUT)
                _, _, body = await over(port, HTTP["rfc 4387"])
                assert body == SMIME.der
                own = await over(port, f"/pks/lookup?op=index&options=mr&search={BOB}")
                assert OWN.fingerprint.encode() in own[2]
                assert (await over(port, f"/pks/lookup?op=get&search={DOWN}"))[0] == 500
                wkd = f"/.well-known/openpgpkey/{DOMAIN}/hu/{hash_of('alice')}?l=alice"
                assert (await over(port, wkd))[0] == 404

                said = await asyncio.to_thread(service.cli, "can-encrypt", ALICE)
                assert f"by the gateway of {DOMAIN}" in " ".join(said.split())
                traced = await asyncio.to_thread(service.cli, "lookup", ALICE, "--trace", code=None)
                assert "this view does not hand out" in " ".join(traced.split())

                service.cli("cache", "block", SMIME.fingerprint)
                assert await words(service, client, ALICE) == yes, "the other kind is enough"
                service.cli("cache", "block", GATEWAY.fingerprint)
                assert await words(service, client, ALICE) == ("NOTFOUND", "no", "no")
                assert await statuses(service, HANDS_OUT) == expected(404)
                service.cli("cache", "unblock", GATEWAY.fingerprint)
                assert await words(service, client, ALICE) == yes

                service.config.write_text(VIEW.replace("domain_certificates = true\n", "") + ROWS)
                service.cli("reload")
                assert await words(service, client, ALICE) == yes
                assert await statuses(service, HANDS_OUT) == expected(404), "acts on what is there"
                service.config.write_text(VIEW)
                assert f"domain_certificate[{DOMAIN} {GATEWAY.fingerprint}]" in service.cli("reload")
                assert await words(service, client, ALICE) == ("NOTFOUND", "no", "no")
