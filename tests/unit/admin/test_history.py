"""What administrators are told of the past, and that an address is forgotten: API, pages, masking."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from keyserver.model import Failed, Kind, Raw, Source, State, Voucher
from keyserver.model import Found as Finds
from keyserver.store.invitations import Invitation, Quota
from support.administering import NAME, Admin, running
from support.hostile_text import NASTY, harmless
from support.openpgp import Made, make

NOW = 1_800_000_000
ALICE = "alice@example.org"


@pytest.fixture
async def admin(tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW) as one:
        await one.parts.upkeep.begin()
        yield one


def says(admin: Admin, *made: Made) -> None:
    admin.upstream.answers[ALICE] = Finds(tuple(Raw(Kind.OPENPGP, m.octets) for m in made))


async def then(admin: Admin, at: object, term: str = ALICE, **more: str) -> dict[str, Any]:
    extra = "".join(f"&{name}={value}" for name, value in more.items())
    status, body = await admin.call("GET", f"/api/v1/lookup?q={quote(term)}&at={quote(str(at))}{extra}")
    assert status == 200, body
    return body


async def test_why_did_this_go_out_in_clear_on_tuesday(admin: Admin) -> None:
    """Absent at first, then its upstream failed, then found, then deleted: each time says what was answered then."""
    made = make([f"Alice <{ALICE}>"])
    wanted = [("absent", "absent")]
    assert await admin.state(ALICE) is State.ABSENT
    times = [admin.clock.now]
    admin.clock.pass_(3600)
    admin.upstream.answers[ALICE] = Failed("no answer")
    assert await admin.state(ALICE) is State.FAILED
    await admin.resolver.keep_failures()
    times.append(admin.clock.now)
    wanted.append(("failed", "unknown"))
    admin.clock.pass_(3600)
    says(admin, made)
    assert await admin.state(ALICE) is State.FOUND
    times.append(admin.clock.now)
    wanted.append(("found", "usable"))
    admin.clock.pass_(3600)
    await admin.call("DELETE", f"/api/v1/cache/{made.fingerprint}")
    times.append(admin.clock.now)
    wanted.append(("not on record", "unknown"))
    admin.clock.pass_(3600)
    answers = [await then(admin, at) for at in times]
    assert [(answer["state"], answer["verdict"]) for answer in answers] == wanted
    failed, found, gone = answers[1:]
    assert NAME in failed["reason"]
    assert [(w["upstream"], w["word"]) for w in failed["later"]] == [(NAME, "found")]
    assert [c["fingerprint"] for c in found["certificates"]] == [made.fingerprint]
    assert (gone["certificates"], gone["cached"]) == ([], [])
    assert not failed["steps"]
    assert {s["who"] for s in (await then(admin, times[1], trace="1"))["steps"]} >= {"cache", NAME, "answer"}

    page = (await admin.call("GET", f"/api/v1/history?q={quote(ALICE)}"))[1]
    assert [(e["what"], e["who"]) for e in page["events"]] == [("deleted", "admin"), ("first seen", "")]
    assert [(w["kind"], w["word"]) for w in page["words"]] == [
        ("openpgp", "found"),
        ("openpgp", "failed"),
        ("openpgp", "absent"),
    ]
    by_key = (await admin.call("GET", f"/api/v1/history?q={made.fingerprint}"))[1]
    assert by_key["events"] == page["events"]


async def test_what_cannot_be_known_is_said(admin: Admin) -> None:
    await admin.state(ALICE)
    admin.clock.pass_(7200)
    assert (await then(admin, admin.clock.now + 1))["reason"] == "this time has not come yet"
    before = await then(admin, NOW - 86400)
    assert (before["state"], before["reason"]) == ("unknown", "the history does not go back so far")
    assert 0 < before["known_since"] <= NOW
    asked = await then(admin, NOW + 3600)
    assert asked["state"] == "not on record"
    assert [w["word"] for w in asked["said"]] == ["absent"]


@pytest.mark.parametrize("at", ["gestern", "-5", "2026-13-01", "1" * 30])
async def test_a_time_that_is_none_is_refused(admin: Admin, at: str) -> None:
    status, body = await admin.call("GET", f"/api/v1/lookup?q={quote(ALICE)}&at={at}")
    assert status == 400
    assert str(body["detail"]).startswith(f"at is {at!r}")


async def test_times_are_read_with_their_offset(admin: Admin) -> None:
    await admin.state(ALICE)
    admin.clock.pass_(60)
    for at in ("2027-01-15T08:00:00Z", "2027-01-15T10:00:00+02:00", str(NOW)):
        assert (await then(admin, at))["at"] == NOW


@pytest.mark.parametrize("term", ["Alice", "ABCD", ""])
async def test_the_history_knows_no_other_terms(admin: Admin, term: str) -> None:
    status, _ = await admin.call("GET", f"/api/v1/lookup?q={term}&at={NOW}")
    assert status == 400
    if term:
        assert (await admin.call("GET", f"/api/v1/history?q={term}"))[0] == 400


async def test_pages_of_events_go_on_where_the_one_before_ended(admin: Admin) -> None:
    fingerprint = await admin.put(make([f"Alice <{ALICE}>"]).octets)
    for _ in range(6):
        for act in ("block", "unblock"):
            admin.clock.pass_(60)
            await admin.call("POST", f"/api/v1/cache/{fingerprint}/{act}")
    whole = (await admin.call("GET", f"/api/v1/history?q={fingerprint}"))[1]
    assert [e["what"] for e in whole["events"]][-1] == "first seen"
    assert {e["who"] for e in whole["events"]} == {"admin", ""}
    events: list[Any] = []
    cursor: Any = ""
    while cursor is not None:
        page = (await admin.call("GET", f"/api/v1/history?q={fingerprint}&limit=5&cursor={cursor}"))[1]
        events += page["events"]
        cursor = page["next"]
    assert events == whole["events"]
    for wrong in ("limit=0", "limit=1001", "cursor=x"):
        assert (await admin.call("GET", f"/api/v1/history?{wrong}"))[0] == 400


async def test_other_settings_are_an_event_that_names_them(admin: Admin) -> None:
    rules = admin.parts.rules.lookups()

    admin.clock.pass_(60)
    admin.parts.rules.lookups.replace(replace(rules, terms=replace(rules.terms, ttl=60), subaddress="+"))
    await admin.parts.upkeep.note_settings()
    await admin.parts.upkeep.note_settings()
    events = (await admin.call("GET", "/api/v1/history"))[1]["events"]
    assert [e["what"] for e in events] == ["settings"]
    assert events[0]["text"] == "other settings came into force; changed: subaddress, ttl"


async def invited(admin: Admin, fingerprint: str) -> None:
    one = Invitation("0" * 32, ALICE, fingerprint, Kind.OPENPGP, Source.KEYSERVER, NAME, NOW, "ops", NOW + 86400)
    assert await admin.store.invitations.prepare(one, b"c" * 32, b"w" * 32, Quota(9, 9, 9)) is None


def holding(file: Path, text: str) -> set[str]:
    """Tables in which a text stands."""
    with closing(sqlite3.connect(file)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables.remove("trigram")  # an index of what stands elsewhere
        return {t for t in tables if any(text in str(row) for row in db.execute(f"SELECT * FROM {t}"))}


async def test_an_address_is_forgotten_wherever_it_was_written(admin: Admin, tmp_path: Path) -> None:
    made, other = make([f"Alice <{ALICE}>"]), make(["Bob <bob@example.org>"])
    says(admin, made)
    assert await admin.state(ALICE) is State.FOUND
    await admin.put(other.octets)
    await invited(admin, made.fingerprint)
    admin.parts.observer.identities = True
    admin.parts.operations.acts.note("approve", made.fingerprint, address=ALICE)
    await admin.parts.operations.acts.written()
    admin.clock.pass_(60)
    status, kept = await admin.call("POST", "/api/v1/history/forget", json={"address": ALICE})
    assert status == 200
    assert [one["fingerprint"] for one in kept["cached"]] == [made.fingerprint]  # type: ignore[attr-defined]
    assert (kept["invitations"], kept["acts"], kept["deleted"]) == (1, 1, 0)
    assert (await admin.call("GET", f"/api/v1/history?q={quote(ALICE)}"))[1]["words"] == []

    status, done = await admin.call("POST", "/api/v1/history/forget", json={"address": ALICE, "with_cache": True})
    assert (status, done["cached"], done["deleted"]) == (200, [], 1)
    assert (await admin.call("GET", f"/api/v1/history?q={quote(ALICE)}"))[1]["events"] == []
    acts = (await admin.call("GET", "/api/v1/audit?act=forget"))[1]
    assert acts["acts"]
    assert ALICE not in str(await admin.call("GET", "/api/v1/audit"))
    # What tells nodes and searches of a delete names it for an hour, as docs/operating.md says.
    assert holding(tmp_path / "cache.db", ALICE) <= {"change", "deletion"}
    assert (await admin.call("GET", f"/api/v1/cache/{other.fingerprint}"))[0] == 200


@pytest.mark.parametrize("body", [{}, {"address": ""}, {"address": "AB" * 20}, {"address": "no address"}])
async def test_nothing_else_can_be_forgotten(admin: Admin, body: dict[str, str]) -> None:
    assert (await admin.call("POST", "/api/v1/history/forget", json=body))[0] == 400


# --- pages


async def test_the_page_answers_for_a_time(admin: Admin) -> None:
    made = make([f"Alice <{ALICE}>", *NASTY])
    says(admin, made)
    await admin.state(ALICE)
    admin.clock.pass_(3 * 3600)
    status, page, _ = await admin.open(f"/history?q={quote(ALICE)}&at=2027-01-15T08:00:00")
    assert status == 200
    assert harmless(page)
    for shown in (
        "Found",
        "Answered then",
        f"/cache/{made.fingerprint}",
        "first seen",
        "What upstreams said",
        "3 h ago",
    ):
        assert shown in page
    assert 'type="datetime-local"' in page
    assert "not come yet" in (await admin.open(f"/history?q={quote(ALICE)}&at=2030-01-01T00:00"))[1]
    assert (await admin.open("/history?at=soon"))[0] == 400
    assert "Nothing is on record of it" in (await admin.open("/history?q=nobody@example.org"))[1]


async def test_a_certificates_page_shows_its_last_events(admin: Admin) -> None:
    fingerprint = await admin.put(make([f"Alice <{ALICE}>"]).octets)
    page = (await admin.open(f"/cache/{fingerprint}"))[1]
    assert "came for the first time" in page
    assert f"/history?q={fingerprint}" in page


async def test_viewers_who_see_no_identities_see_none_here(tmp_path: Path) -> None:
    async with running(tmp_path, NOW, viewer_identities=False) as admin:
        await admin.parts.upkeep.begin()
        vouchers = (Voucher(ALICE, authenticated=True, held=True, seen_at=NOW),)
        await admin.put(make([f"Alice <{ALICE}>"]).octets, Source.MAILFLOW, "example.org", vouchers=vouchers)
        token = await admin.viewer()
        for path in (f"/history?q={quote(ALICE)}&at={NOW}", "/history", f"/api/v1/history?q={quote(ALICE)}"):
            status, text, _ = await admin.open(path, token)
            assert status == 200
            assert "held" in text
            assert not re.search(r"\balice@", text), path
        assert (await admin.open(f"/api/v1/lookup?q={quote(ALICE)}&at={NOW}", token))[0] == 403
