"""What administrators are told of what is going to fail: API and page, what is masked, what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.model import Kind
from keyserver.store.recipients import DAY, Encryptable, Looked
from keyserver.store.upstreams import FAILED, PACE_DAYS, pace_bucket
from support.administering import Admin, running
from support.hostile_text import NASTY, harmless
from support.openpgp import Made, make

NOW = 1_800_000_000
ALICE, BOB, CAROL = "alice@example.org", "bob@partner.example", "carol@partner.example"
TODAY = NOW // DAY


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW) as one:
        yield one


async def known(admin: Admin) -> Made:
    """Alice's ends in ten days, Bob's was lost yesterday, nothing is known of Carol; one upstream became slower."""
    made = make([f"Alice <{ALICE}>", *NASTY])
    await admin.put(made.octets)
    note = admin.store.recipients.note
    yes = Looked(Encryptable.YES, NOW - 2 * DAY, Kind.OPENPGP, made.fingerprint, NOW + 10 * DAY, "it expires")
    await note({ALICE: yes, BOB: yes})
    await note({BOB: Looked(Encryptable.NO, NOW - DAY, reason="it is revoked")})
    await note({CAROL: Looked(Encryptable.UNKNOWN, NOW)})
    await admin.store.upstreams.add_pace({(TODAY - 10, "slow <b>", pace_bucket(0.1)): 60})
    await admin.store.upstreams.add_pace({(TODAY, "slow <b>", pace_bucket(0.9)): 60, (TODAY, "slow <b>", FAILED): 60})
    return made


async def test_the_report_of_the_api(admin: Admin) -> None:
    made = await known(admin)
    status, report = await admin.call("GET", "/api/v1/outlook")
    assert status == 200
    assert (report["at"], report["days"], report["known"]) == (NOW, 30, True)
    assert report["ending"] == [
        {
            "fingerprint": made.fingerprint,
            "kind": "openpgp",
            "until": NOW + 10 * DAY,
            "cause": "it expires",
            "domain": "example.org",
            "identities": [ALICE],
            "recipients": 1,
        }
    ]
    [lost] = report["no_longer"]  # type: ignore[misc]
    assert (lost["domain"], lost["since"], lost["reason"]) == ("partner.example", NOW - DAY, "it is revoked")  # type: ignore[has-type]
    assert [tuple(row.values()) for row in report["partners"]] == [  # type: ignore[attr-defined]
        ("partner.example", 2, 0, 1, 1, 0.0),
        ("example.org", 1, 1, 0, 0, 1.0),
    ]
    [slow] = report["upstreams"]  # type: ignore[misc]
    assert (slow["slower"], slow["failing"], slow["failed"]) == (True, True, 0.5)  # type: ignore[has-type]
    assert report["lists"] == []


async def test_it_looks_so_far_ahead_and_back_as_is_asked(admin: Admin) -> None:
    await known(admin)
    near = (await admin.call("GET", "/api/v1/outlook?days=9"))[1]
    assert (near["days"], near["ending"]) == (9, [])
    assert len((await admin.call("GET", "/api/v1/outlook?days=10"))[1]["ending"]) == 1  # type: ignore[arg-type]
    admin.clock.pass_(11 * DAY)
    ended = (await admin.call("GET", "/api/v1/outlook"))[1]
    assert ended["ending"] == []
    [first, _] = ended["no_longer"]  # type: ignore[misc]
    assert (first["since"], first["identities"], first["reason"]) == (NOW + 10 * DAY, [ALICE], "it is expired")  # type: ignore[has-type]
    admin.clock.pass_((PACE_DAYS - 10) * DAY)
    later = (await admin.call("GET", "/api/v1/outlook?days=30"))[1]
    assert (later["known"], later["partners"], later["no_longer"], later["upstreams"]) == (False, [], [], [])
    assert (await admin.call("GET", "/api/v1/outlook?days=60"))[1]["known"]


@pytest.mark.parametrize("days", ["0", "401", "-1", "x", "1000000000"])
async def test_other_spans_are_refused(admin: Admin, days: str) -> None:
    assert (await admin.call("GET", f"/api/v1/outlook?days={days}"))[0] == 400
    status, page, _ = await admin.open(f"/outlook?days={days}")
    assert status == 400
    assert "accepted" in page


async def test_the_page(admin: Admin) -> None:
    made = await known(admin)
    status, page, _ = await admin.open("/outlook")
    assert status == 200
    assert harmless(page)
    for shown in (
        ALICE,
        f"/cache/{made.fingerprint}",
        "it expires",
        "in 10 d",
        "somebody at",
        "it is revoked",
        "slow &lt;b&gt;",
        "fails more often",
        "None is stale",
        'aria-current="page">Outlook',
        "keyserver outlook --days 30",
    ):
        assert shown in page, shown
    assert "No recipient was asked for" not in page


async def test_a_page_of_nothing_says_so(admin: Admin) -> None:
    page = (await admin.open("/outlook?days=7"))[1]
    for shown in ("No recipient was asked for", "Nothing that is in use ends", "still can", "None has become slower"):
        assert shown in page


async def test_viewers_who_see_no_identities_see_none_here(tmp_path: Path) -> None:
    async with running(tmp_path, NOW, viewer_identities=False) as admin:
        await known(admin)
        token = await admin.viewer()
        for path in ("/outlook", "/api/v1/outlook"):
            status, text, _ = await admin.open(path, token)
            assert status == 200
            assert "example.org" in text
            assert not re.search(r"\balice@", text), path
        shown = json.loads((await admin.open("/api/v1/outlook", token))[1])
        assert re.fullmatch(r"#?[0-9a-f]+@example.org", shown["ending"][0]["identities"][0])
