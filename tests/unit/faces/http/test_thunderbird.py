"""What Thunderbird 153 sent, octet by octet, as tests/clients/test_thunderbird.py has it send, gets what it takes."""

from __future__ import annotations

import asyncio

import pytest

from keyserver.model import Failed, Source
from keyserver.openpgp.armor import dearmor
from keyserver.wire.wkd import hash_of
from support.http_faces import Faces, faces
from support.openpgp import Made, make
from support.resolving import Ground
from support.running import read_reply

ALICE = make(("Alice <alice@partner.example>",), seed="alice")
OLD, NEW = (make(("Bob <bob@partner.example>",), seed=seed) for seed in ("old", "new"))
EXPIRED = make(("Carol <carol@partner.example>",), seed="expired", expires=86400)
UNUSABLE = make(("Carol <carol@partner.example>",), seed="signs only", encryption=None)
CAROL = make(("Carol <carol@partner.example>",), seed="carol")

HEADERS = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:153.0) Gecko/20100101 Thunderbird/153.8.0",
    "Accept: */*",
    "Accept-Language: en-US,en;q=0.9",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Content-Type: application/x-www-form-urlencoded",
    "Connection: keep-alive",
)
DIRECTORY = (
    *HEADERS[:4],
    "Content-Type: application/octet-stream",
    "Authorization: Basic bm8tdXNlcjo=",
    f"X-OpenPGP-Padding: {'x' * 400}",
    "Connection: keep-alive",
)


def index(term: str) -> str:
    return f"/pks/lookup?search={term}&fingerprint=on&op=index&options=mr&exact=on"


async def says(face: Faces, *targets: str, host: str = "127.0.0.1", headers: tuple[str, ...] = HEADERS) -> list[bytes]:
    """The bodies of 200, and the statuses of all else, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", face.port)
    said = []
    try:
        for target in targets:
            lines = [f"GET {target} HTTP/1.1", f"Host: {host}:{face.port}", *headers, "", ""]
            writer.write("\r\n".join(lines).encode())
            status, _, body = await read_reply(reader)
            said.append(body if status == 200 else b"%d" % status)
    finally:
        writer.close()
    return said


def pubs(listed: bytes) -> list[str]:
    """The fingerprints of an index. Thunderbird goes on with one, and gives up where there are more."""
    lines = [line.split(":") for line in listed.decode().splitlines()]
    assert lines[0][:2] == ["info", "1"]
    return [line[1] for line in lines if line[0] == "pub" and len(line) >= 6]


async def held(ground: Ground, *made: Made) -> None:
    for one in made:
        await ground.put(one, Source.LOCAL, "admin")


async def test_an_index_and_then_the_key(ground: Ground) -> None:
    await held(ground, ALICE)
    async with faces(ground) as face:
        terms = ("alice@partner.example", f"0x{ALICE.fingerprint}", f"0x{ALICE.key_id}")
        for listed in await says(face, *map(index, terms)):
            assert pubs(listed) == [ALICE.fingerprint]
        target = f"/pks/lookup?search=0x{ALICE.fingerprint}&op=get&options=mr"
        for body in await says(face, target, target):
            assert dearmor(body) == (ground.clean(ALICE).octets,)


async def test_a_failure_is_no_absence(ground: Ground) -> None:
    ground.peer("peer").answers = {"bob@partner.example": Failed("away")}
    async with faces(ground) as face:
        for ask in (index, "/vks/v1/by-email/{}".format):
            assert await says(face, *map(ask, ("nobody@partner.example", "bob@partner.example"))) == [b"404", b"500"]


async def test_vks_answers_one_of_several_and_one_that_can_be_encrypted_to(ground: Ground) -> None:
    await held(ground, OLD, NEW, EXPIRED, UNUSABLE, CAROL)
    async with faces(ground) as face:
        assert len(pubs((await says(face, index("carol@partner.example")))[0])) == 3
        bob, carol, again, carols = await says(
            face,
            "/vks/v1/by-email/bob@partner.example",
            *["/vks/v1/by-email/carol@partner.example"] * 2,
            f"/vks/v1/by-fingerprint/{EXPIRED.fingerprint}",
        )
        assert dearmor(bob) in [(ground.clean(one).octets,) for one in (OLD, NEW)]
        assert dearmor(carol) == dearmor(again) == (ground.clean(CAROL).octets,)
        assert dearmor(carols) == (ground.clean(EXPIRED).octets,)


async def test_vks_answers_what_cannot_be_encrypted_to_where_that_is_all(ground: Ground) -> None:
    await held(ground, EXPIRED)
    async with faces(ground) as face:
        (carol,) = await says(face, "/vks/v1/by-email/carol@partner.example")
        assert dearmor(carol) == (ground.clean(EXPIRED).octets,)


async def test_to_refresh_a_key_it_asks_vks_for_nothing(ground: Ground) -> None:
    await held(ground, ALICE)
    async with faces(ground) as face:
        assert await says(face, "/vks/v1/by-email/") == [b"400"], "which it takes for not found"


@pytest.mark.parametrize(
    ("host", "prefix"), [("openpgpkey.partner.example", "/partner.example"), ("partner.example", "")]
)
async def test_our_web_key_directory(ground: Ground, host: str, prefix: str) -> None:
    await held(ground, ALICE)
    async with faces(ground, own_domains=("partner.example",)) as face:
        target = f"/.well-known/openpgpkey{prefix}/hu/{hash_of('alice')}?l=alice"
        (body,) = await says(face, target, host=host, headers=DIRECTORY)
        assert body == ground.clean(ALICE).octets
