"""What mail programs send by the newer protocols, byte for byte as far as it matters, gets what they take."""

from __future__ import annotations

import pytest

from keyserver.model import Source
from keyserver.openpgp.armor import dearmor
from keyserver.wire.wkd import hash_of
from support.http_faces import faces
from support.openpgp import make
from support.resolving import Ground

FOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101"
ADDRESS = "joe.doe+x@example.org"
JOE = make((f"Joe <{ADDRESS}>",), seed="joe")
HASH = hash_of("joe.doe+x")
HU = f"/.well-known/openpgpkey/example.org/hu/{HASH}?l=joe.doe%2Bx"
DIRECT = f"/.well-known/openpgpkey/hu/{HASH}?l=joe.doe%2Bx"
FORM = "Content-Type: application/x-www-form-urlencoded"
EXTENSION = "Origin: chrome-extension://bnjglocicdkmhmoohhfkfkbbkejdhdgc"
GPG = ("Pragma: no-cache", "Cache-Control: no-cache")

SHAPES = {
    "Thunderbird VKS address": ("keys.example", f"/vks/v1/by-email/{ADDRESS}", (f"User-Agent: {FOX}", FORM)),
    "Thunderbird VKS fingerprint": ("keys.example", f"/vks/v1/by-fingerprint/{JOE.fingerprint}", (FORM,)),
    "Thunderbird VKS key ID": ("keys.example", f"/vks/v1/by-keyid/{JOE.key_id}", (FORM,)),
    "Thunderbird WKD advanced": ("openpgpkey.example.org", HU, (f"User-Agent: {FOX}", "Accept: */*")),
    "Thunderbird WKD direct": ("example.org", DIRECT, (f"User-Agent: {FOX}", "Accept: */*")),
    "FlowCrypt VKS address": ("keys.example", "/vks/v1/by-email/joe.doe%2Bx%40example.org", (EXTENSION,)),
    "FlowCrypt WKD advanced": ("openpgpkey.example.org", HU, (EXTENSION, "Accept-Encoding: gzip, deflate, br, zstd")),
    "FlowCrypt WKD direct": ("example.org", DIRECT, (EXTENSION, "Accept-Encoding: gzip, deflate, br, zstd")),
    "Mailvelope VKS address": ("keys.openpgp.org", "/vks/v1/by-email/joe.doe%2Bx%40example.org", (EXTENSION,)),
    "Mailvelope VKS fingerprint": ("keys.openpgp.org", f"/vks/v1/by-fingerprint/{JOE.fingerprint}", (EXTENSION,)),
    "Mailvelope WKD": ("openpgpkey.example.org", HU, (EXTENSION, "Sec-Fetch-Mode: cors", "Priority: u=4")),
    "OpenKeychain WKD": ("openpgpkey.example.org", HU, ("Accept-Encoding: gzip", "User-Agent: okhttp/4.9.0")),
    "sq WKD": ("openpgpkey.example.org", HU, ()),
    "openpgp.js WKD": ("example.org", DIRECT, ("accept: */*", "sec-fetch-mode: cors", "user-agent: node")),
    "gpg WKD advanced": ("openpgpkey.example.org", HU, GPG),
    "gpg WKD direct": ("example.org", DIRECT, GPG),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_it_gets_the_certificate(ground: Ground, shape: str) -> None:
    host, target, headers = SHAPES[shape]
    await ground.put(JOE, Source.LOCAL, "admin")
    async with faces(ground, own_domains=("example.org",)) as face:
        version = 0 if shape.startswith("gpg") else 1
        lines = [f"GET {target} HTTP/1.{version}", f"Host: {host}", *headers, "", ""]
        for _ in range(2):
            reply = await face.raw("\r\n".join(lines).encode())
            assert reply.status == 200
            assert reply.headers["access-control-allow-origin"] == "*"
            assert not {"transfer-encoding", "content-encoding"} & reply.headers.keys()
            (octets,) = dearmor(reply.body) if "/vks/" in target else (reply.body,)
            assert octets == ground.clean(JOE).octets


@pytest.mark.parametrize("prefix", ["/.well-known/openpgpkey/example.org", "/.well-known/openpgpkey"])
async def test_flowcrypt_asks_for_the_policy_first(ground: Ground, prefix: str) -> None:
    async with faces(ground, own_domains=("example.org",)) as face:
        reply = await face.get(f"{prefix}/policy", EXTENSION, host="example.org")
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    "target",
    [
        "/vks/v1/by-email/j%F6rg@example.org",  # Latin-1, as JavaScript's escape() writes it
        "/vks/v1/by-email/%u4F60@example.org",
        "/pks/v2/certs/by-identity/j%F6rg@example.org",
        f"/.well-known/openpgpkey/example.org/hu/{HASH}?l=%u4F60",
    ],
)
async def test_what_is_no_address_is_no_trouble_of_ours(ground: Ground, target: str) -> None:
    async with faces(ground, own_domains=("example.org",)) as face:
        assert (await face.get(target)).status in (400, 404)
