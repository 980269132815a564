"""`POST /api/v1/can-encrypt`: lists as people have them, in order or as they come, within bounds."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from keyserver.admin.api import encrypting, streams
from keyserver.admin.encrypting import QUESTIONS
from keyserver.admin.recipients import from_csv, pasted
from keyserver.model import Failed, Found, Kind, Raw
from keyserver.verdict.asking import AT_ONCE, MOST, NO_ADDRESS
from support.administering import TOKEN, Admin, running
from support.openpgp import CREATED, make

NOW = CREATED + 86400
PATH = "/api/v1/can-encrypt"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
ALICE, BOB, CAROL = "alice@example.org", "bob@example.net", "carol@example.com"
EXPORTED = make([f"Alice <{ALICE}>"])


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    """The upstream has alice, does not know bob, and fails for carol."""
    async with running(tmp_path, NOW) as one:
        one.upstream.answers[ALICE] = Found((Raw(Kind.OPENPGP, EXPORTED.octets),))
        one.upstream.answers[CAROL] = Failed("it timed out")
        yield one


async def words(admin: Admin, path: str = PATH, **body: Any) -> list[tuple[object, object]]:
    status, answer = await admin.call("POST", path, **body)
    assert status == 200, answer
    return [(one["address"], one["verdict"]) for one in answer["verdicts"]]  # type: ignore[attr-defined]


async def csv(admin: Admin, octets: bytes) -> list[tuple[object, object]]:
    return await words(admin, data=octets, headers={"Content-Type": "text/csv"})


async def test_one_verdict_for_each_in_the_order_given(admin: Admin) -> None:
    status, answer = await admin.call("POST", PATH, json=[CAROL, BOB, "Alice@EXAMPLE.org", ALICE, "nobody"])
    assert status == 200
    assert answer["summary"] == {"addresses": 4, "yes": 1, "no": 2, "reject": 0, "unknown": 1}
    carol, bob, alice, nobody = answer["verdicts"]  # type: ignore[misc]
    assert [one["address"] for one in (carol, bob, alice, nobody)] == [CAROL, BOB, ALICE, "nobody"]  # type: ignore[has-type]
    assert [one["verdict"] for one in (carol, bob, alice, nobody)] == ["unknown", "no", "yes", "no"]  # type: ignore[has-type]
    assert carol["missing"] == ["partner directory"]  # type: ignore[has-type]
    assert bob["certificates"] == []  # type: ignore[has-type]
    assert bob["reason"] == "nobody has a certificate for it"  # type: ignore[has-type]
    assert nobody["reason"] == NO_ADDRESS  # type: ignore[has-type]
    assert alice["certificates"] == [  # type: ignore[has-type]
        {
            "kind": "openpgp",
            "fingerprint": EXPORTED.fingerprint,
            "source": "keyserver",
            "origin": "partner directory",
            "since": NOW,
            "expires": None,
            "chained": False,
            "approved": False,
            "by_domain": "",
        }
    ]
    assert admin.upstream.asked.count(ALICE) == 1


async def test_lines_come_as_they_are_ready(admin: Admin) -> None:
    await admin.call("POST", PATH, json=[BOB])
    admin.upstream.open.clear()
    headers = {**BEARER, "Accept": "application/x-ndjson"}
    async with admin.session.post(admin.url + PATH, json=[ALICE, BOB, ALICE], headers=headers) as reply:
        assert reply.headers["Content-Type"] == "application/x-ndjson"
        first = json.loads(await asyncio.wait_for(reply.content.readline(), 4))
        assert (first["address"], first["verdict"]) == (BOB, "no")
        admin.upstream.open.set()
        (rest,) = (await reply.text()).splitlines()
        assert json.loads(rest)["verdict"] == "yes"


async def test_so_many_at_once_and_no_more(admin: Admin) -> None:
    admin.upstream.delay = 0.05
    many = [f"u{n}@d{n % 7}.example" for n in range(3 * AT_ONCE)]
    assert await words(admin, json=many, path=f"{PATH}?kind=openpgp") == [(one, "no") for one in many]
    assert AT_ONCE // 2 <= admin.upstream.most_at_once <= AT_ONCE


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_nobody_works_on_when_the_client_has_left(admin: Admin, accept: str) -> None:
    admin.upstream.open.clear()
    many = [f"u{n}@example.net" for n in range(4 * AT_ONCE)]
    asking = asyncio.ensure_future(
        admin.session.post(admin.url + PATH, json=many, headers={**BEARER, "Accept": accept})
    )
    async with asyncio.timeout(8):
        while not admin.upstream.at_once:
            await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(max(encrypting.LOOK, streams.ASKED) + 1)
    asked = len(admin.upstream.asked)
    admin.upstream.open.set()
    await asyncio.sleep(1)
    assert len(admin.upstream.asked) == asked < len(many)


@pytest.mark.parametrize("accept", ["application/json", "application/x-ndjson"])
async def test_only_so_many_questions_at_once(admin: Admin, accept: str) -> None:
    admin.upstream.open.clear()
    headers = {**BEARER, "Accept": accept}
    asking = [asyncio.ensure_future(words(admin, json=[f"u{n}@example.net"])) for n in range(QUESTIONS)]
    async with asyncio.timeout(8):
        while admin.upstream.at_once < QUESTIONS:
            await asyncio.sleep(0.01)
    async with admin.session.post(admin.url + PATH, json=[ALICE], headers=headers) as reply:
        assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
        assert (await reply.json())["detail"].startswith(f"{QUESTIONS} questions")
    admin.upstream.open.set()
    assert await asyncio.gather(*asking) == [[(f"u{n}@example.net", "no")] for n in range(QUESTIONS)]
    assert await words(admin, json=[ALICE]) == [(ALICE, "yes")]


async def test_kinds(admin: Admin) -> None:
    assert await words(admin, json=[ALICE], path=f"{PATH}?policy=encrypt&kind=openpgp") == [(ALICE, "yes")]
    assert await words(admin, json=[ALICE], path=f"{PATH}?kind=smime") == [(ALICE, "no")]
    assert await words(admin, json=[ALICE], path=f"{PATH}?kind=both") == [(ALICE, "no")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a@x.example\r\nb@x.example\r\n", ["a@x.example", "b@x.example"]),
        ("a@x.example,Alice\nb@x.example,Bob", ["a@x.example", "b@x.example"]),
        ("Name,E-Mail\nAlice,a@x.example\n\n,\nBob,b@x.example\n", ["a@x.example", "b@x.example"]),
        ("\ufeffmail;name\na@x.example;Alice\n", ["a@x.example"]),
        ('name;ADDRESS\n"Alice; née B";a@x.example\n"C\nD";c@x.example', ["a@x.example", "c@x.example"]),
        ('"a@x.example","say ""hi"""\n', ["a@x.example"]),
        ("email\ta\na@x.example\t1\n", ["a@x.example"]),
        ("name,mail\nalone\nb,b@x.example\n", ["b@x.example"]),
        ("", []),
    ],
)
def test_shapes_of_csv(text: str, expected: list[str]) -> None:
    assert from_csv(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a@x.example, b@x.example;c@x.example\nd@x.example",
            ["a@x.example", "b@x.example", "c@x.example", "d@x.example"],
        ),
        ("Alice <a@x.example>\n\n  B, b@x.example ", ["Alice <a@x.example>", "b@x.example"]),
        ("nobody here\na@x.example", ["nobody here", "a@x.example"]),
        ("name;email\nAlice;a@x.example", ["a@x.example"]),
        (" \n", []),
    ],
)
def test_what_is_pasted(text: str, expected: list[str]) -> None:
    assert pasted(text) == expected


async def test_csv_is_read(admin: Admin) -> None:
    assert await csv(admin, f"name;mail\nA;{ALICE}\nB;{BOB}\n".encode("utf-8-sig")) == [(ALICE, "yes"), (BOB, "no")]


@pytest.mark.parametrize(
    ("path", "options", "status", "detail"),
    [
        (PATH, {"json": []}, 400, "0 addresses are given"),
        (PATH, {"json": [" "]}, 400, "0 addresses are given"),
        (PATH, {"json": {"address": ALICE}}, 400, "must be a JSON list"),
        (PATH, {"json": [ALICE, 1]}, 400, "must be a JSON list"),
        (PATH, {"data": b"{", "headers": {"Content-Type": "application/json"}}, 400, "not JSON"),
        (PATH, {"data": b"\xff\xfe", "headers": {"Content-Type": "text/csv"}}, 400, "not UTF-8"),
        (PATH, {"data": b"a@b.example", "headers": {"Content-Type": "text/plain"}}, 415, "text/csv"),
        (PATH, {"json": [f"u{n}@x.example" for n in range(MOST + 1)]}, 400, f"1 to {MOST}"),
        (f"{PATH}?policy=other", {"json": [ALICE]}, 404, "no policy is named 'other'; there are: encrypt"),
        (f"{PATH}?kind=pgp", {"json": [ALICE]}, 400, "accepted are openpgp, smime, either, both"),
        (f"{PATH}?kinds=both", {"json": [ALICE]}, 400, "unknown parameter"),
    ],
)
async def test_bad_input(admin: Admin, path: str, options: dict[str, Any], status: int, detail: str) -> None:
    found, problem = await admin.call("POST", path, **options)
    assert found == status
    assert detail in str(problem["detail"])
    assert admin.upstream.asked == []


async def test_too_large(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encrypting, "MAX_LIST", 1000)
    status, problem = await admin.call("POST", PATH, json=["x" * 2000])
    assert (status, problem["detail"]) == (400, "the list has more than 1000 octets")


async def test_asking_is_no_act(admin: Admin) -> None:
    await words(admin, json=[ALICE, BOB])
    _, audit = await admin.call("GET", "/api/v1/audit")
    assert not any(audit.values())
