"""`/can-encrypt`: with and without a script, hostile recipients, the export, and searching for the noes again."""

import csv
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.model import Failed, Found, Kind, Raw, Source
from support.administering import Admin, running
from support.hostile_text import NASTY, harmless
from support.openpgp import CREATED, make

NOW = CREATED + 86400
HTMX = {"HX-Request": "true"}
PATH = "/can-encrypt"
ALICE, BOB, CAROL = "alice@example.org", "bob@example.net", "carol@example.com"
EXPORTED = make([f"Alice <{ALICE}>"])
BOBS = make([f"Bob <{BOB}>"])


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    """The upstream has alice, does not know bob, and fails for carol."""
    async with running(tmp_path, NOW) as one:
        one.upstream.answers[ALICE] = Found((Raw(Kind.OPENPGP, EXPORTED.octets),))
        one.upstream.answers[CAROL] = Failed("it timed out")
        yield one


async def post(admin: Admin, path: str = PATH, headers: dict[str, str] | None = None, **fields: str) -> tuple[int, str]:
    status, text, _ = await admin.open(path, method="POST", headers=headers, data=fields)
    return status, text


def rows(page: str) -> list[tuple[str, str]]:
    """Addresses and verdicts in the order of the table."""
    found = re.findall(
        r"<tr><td data-name=\"Address\">.*?<bdi>(.*?)</bdi>.*?<b class=\"\w+\">(\w+)</b>", page, re.DOTALL
    )
    return [(address, verdict) for address, verdict in found]


async def test_a_form_that_works_without_a_script(admin: Admin) -> None:
    status, page, _ = await admin.open(PATH)
    assert status == 200
    assert '<form method="post" action="/can-encrypt"' in page
    assert 'href="/can-encrypt" aria-current="page"' in page
    status, page = await post(admin, addresses=f"{CAROL}\r\n{BOB}, {ALICE}", policy="encrypt")
    assert status == 200
    assert rows(page) == [(CAROL, "unknown"), (BOB, "no"), (ALICE, "yes")]
    assert "<b>1 yes, 1 no, 1 unknown</b> <span>3 asked</span>" in page
    assert f'href="/cache/{EXPORTED.fingerprint}"' in page
    assert "no word from partner directory" in page
    assert "nobody has a certificate for it" in page


async def test_a_gateway_of_the_domain_is_said_to_be_one(tmp_path: Path) -> None:
    gateway = make(["Gateway <gateway@elsewhere.example>"], seed="gateway")
    rows_ = [{"domain": "example.net", "fingerprint": gateway.fingerprint}]
    async with running(tmp_path, NOW, gateways=rows_) as admin:
        _, page = await post(admin, addresses=BOB)
        assert rows(page) == [(BOB, "no")]
        assert f"{gateway.fingerprint}: it is not cached; import it" in page
        await admin.put(gateway.octets, Source.LOCAL, "admin")
        _, page = await post(admin, addresses=f"{BOB}\n{ALICE}")
        assert rows(page) == [(BOB, "yes"), (ALICE, "no")]
        assert "by the gateway of example.net, local: admin" in page
        status, text = await post(admin, f"{PATH}/export", addresses=BOB)
        (line,) = csv.DictReader(io.StringIO(text))
        assert "by the gateway of example.net" in line["reason"]
        status, answer = await admin.call("POST", "/api/v1/can-encrypt", json=[BOB])
        assert (status, answer["verdicts"][0]["certificates"][0]["by_domain"]) == (200, "example.net")  # type: ignore[index]
        status, page, _ = await admin.open("/settings?q=domain_certificate")
        assert f"domain_certificate[example.net {gateway.fingerprint}]" in page


async def test_verdicts_as_they_come(admin: Admin) -> None:
    status, text = await post(admin, headers=HTMX, addresses=f"{ALICE}\n{BOB}")
    assert status == 200
    events = text.strip().split("\n\n")
    assert all(event.startswith("data: ") for event in events)
    frame, *middle, acts = events
    assert 'id="result" hx-swap-oob="true"' in frame
    assert rows(frame) == []
    assert sorted(rows("".join(middle))) == [(ALICE, "yes"), (BOB, "no")]
    assert "1 yes, 1 no, 0 unknown" in middle[-1]
    assert "Search for the 1 no again" in acts


async def test_the_noes_are_searched_again(admin: Admin) -> None:
    await post(admin, addresses=f"{ALICE}\n{BOB}")
    admin.upstream.answers[BOB] = Found((Raw(Kind.OPENPGP, BOBS.octets),))
    _, page = await post(admin, addresses=f"{ALICE}\n{BOB}")
    assert rows(page) == [(ALICE, "yes"), (BOB, "no")]
    asked = admin.upstream.asked.count(ALICE)
    _, page = await post(admin, addresses=f"{ALICE}\n{BOB}\nnobody", do="again")
    assert rows(page) == [(ALICE, "yes"), (BOB, "yes"), ("nobody", "no")]
    assert admin.upstream.asked.count(ALICE) == asked
    _, page = await post(admin, addresses=BOB)
    assert rows(page) == [(BOB, "yes")]


async def test_the_export_is_safe_in_spreadsheets(admin: Admin) -> None:
    status, text, headers = await admin.open(
        f"{PATH}/export", method="POST", data={"addresses": f"{ALICE}\n=cmd@example.net"}
    )
    assert (status, headers["Content-Type"].split(";")[0]) == (200, "text/csv")
    head, alice, evil = csv.reader(io.StringIO(text))
    assert head == ["address", "verdict", "kind", "fingerprint", "source", "origin", "reason"]
    assert alice[:5] == [ALICE, "yes", "openpgp", EXPORTED.fingerprint, "keyserver"]
    assert evil[:2] == ["'=cmd@example.net", "no"]


@pytest.mark.parametrize("text", NASTY)
async def test_hostile_recipients(admin: Admin, text: str) -> None:
    for headers in ({}, HTMX):
        status, page = await post(admin, headers=headers, addresses=text)
        assert (status, harmless(page)) == (200, True)
        status, page = await post(admin, headers=headers, addresses=f"address\n{text}")
        assert (status, harmless(page)) == (200, True)


async def test_hostile_certificates(admin: Admin) -> None:
    admin.upstream.otherwise = Found((Raw(Kind.OPENPGP, make([*NASTY]).octets),))
    _, page = await post(admin, addresses="evil@example.org")
    assert rows(page) == [("evil@example.org", "yes")]
    assert harmless(page)


@pytest.mark.parametrize(
    ("fields", "status", "why"),
    [
        ({"addresses": "\n"}, 400, "0 addresses are given"),
        ({"addresses": ALICE, "policy": "<b>"}, 404, "no policy is named"),
        ({"addresses": ALICE, "kind": "pgp"}, 400, "accepted are openpgp"),
        ({"addresses": ALICE, "do": "delete"}, 400, "accepted are ask and again"),
    ],
)
async def test_what_cannot_be_asked(admin: Admin, fields: dict[str, str], status: int, why: str) -> None:
    for path in (PATH, f"{PATH}/export"):
        found, page = await post(admin, path, **fields)
        assert (found, why in page) == (status, True)
        assert "<b>'" not in page
    _, text = await post(admin, headers=HTMX, **fields)
    assert why in text
    assert admin.upstream.asked == []


async def test_very_many(admin: Admin) -> None:
    many = [f"user-number-{n}@a-rather-long-name.example" for n in range(1000)]
    status, page = await post(admin, addresses="\r\n".join(many), kind="openpgp")
    assert status == 200
    assert rows(page) == [(address, "no") for address in many]


async def test_viewers_ask_nobody(admin: Admin) -> None:
    reader = await admin.viewer()
    status, page, _ = await admin.open(PATH, reader)
    assert status == 200
    assert "needs the role operator" in page
    assert "<textarea" not in page
    for path in (PATH, f"{PATH}/export"):
        assert (await admin.open(path, reader, "POST", data={"addresses": ALICE}))[0] == 403
    assert admin.upstream.asked == []
