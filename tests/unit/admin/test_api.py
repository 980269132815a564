"""The admin API over the real store, resolver and OpenPGP layer; only the one upstream is scripted."""

import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest

from keyserver import openpgp
from keyserver.model import (
    Certificate,
    Failed,
    Find,
    Found,
    Kind,
    Raw,
    Record,
    Source,
    State,
    Voucher,
)
from keyserver.query import parse
from support.administering import NAME, TOKEN, Admin, running
from support.openpgp import make

HELD = Voucher("alice@example.org", held=True)
HELD_BOB = Voucher("bob@example.net", held=True)


@dataclass(frozen=True)
class Made:
    home: Path
    exported: dict[str, bytes]
    fingerprint: dict[str, str]
    now: int


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """Certificates of alice, a second alice, and bob, by gpg; and alice's secret key, which nobody may import."""
    home = tmp_path_factory.mktemp("admin-gpg")
    home.chmod(0o700)

    def gpg(*arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(home), "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
        return subprocess.run([*command, *arguments], capture_output=True, check=True, timeout=30).stdout

    owners = {
        "alice": "Alice <alice@example.org>",
        "alice2": "Other Alice <alice@example.org>",
        "bob": "Bob <bob@example.net>",
    }
    for user_id in owners.values():
        gpg("--quick-gen-key", user_id, "ed25519", "sign", "never")
    listing = gpg("--with-colons", "--list-keys").decode()
    prints = re.findall(r"^fpr:+([0-9A-F]{40}):\nuid:[^\n]*", listing, re.MULTILINE)
    created = max(int(t) for t in re.findall(r"^pub:(?:[^:]*:){4}(\d+):", listing, re.MULTILINE))
    fingerprint = dict(zip(owners, prints, strict=True))
    older = gpg("--export", fingerprint["alice"])
    gpg("--quick-add-key", fingerprint["alice"], "cv25519", "encr", "never")
    exported = {name: gpg("--export", fpr) for name, fpr in fingerprint.items()}
    exported["older"] = older
    exported["secret"] = gpg("--export-secret-keys", fingerprint["alice"])
    yield Made(home, exported, fingerprint, created + 60)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=30)


@pytest.fixture
async def admin(made: Made, tmp_path: Path) -> AsyncIterator[Admin]:
    async with running(tmp_path, made.now) as one:
        yield one


# ---- the token


@pytest.mark.parametrize(
    "path",
    ["/metrics", "/api/v1/cache", "/api/v1/upstreams", "/api/v1/lookup?q=a@b.org", "/api/v1/nothing", "/", "/other"],
)
async def test_nobody_gets_anywhere_without_the_token(admin: Admin, path: str) -> None:
    right = f"Bearer {TOKEN}"
    for value in (None, "", "Bearer", "Bearer ", f"Basic {right[7:]}", right[:-1], right + "x", "Bearer \xff\xfe"):
        headers = {} if value is None else {"Authorization": value}
        async with admin.session.get(admin.url + path, headers=headers) as reply:
            assert reply.status == 401
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")
            assert (await reply.json(content_type="application/problem+json"))["title"] == "Unauthorized"
            assert "Access-Control-Allow-Origin" not in reply.headers
    async with admin.session.get(
        admin.url + path, headers={"Authorization": right.replace("Bearer", "bearer")}
    ) as reply:
        assert reply.status == (404 if path in ("/api/v1/nothing", "/other") else 200)


async def test_metrics(admin: Admin) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with admin.session.get(admin.url + "/metrics", headers=headers) as reply:
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert await reply.text() == "# HELP lookups x\n"


# ---- listing and showing


async def test_list_by_what_is_asked_and_page_by_page(admin: Admin, made: Made) -> None:
    await admin.put(made.exported["alice"])
    await admin.put(made.exported["alice"], Source.MAILFLOW, "example.org", vouchers=(HELD,))
    await admin.put(made.exported["bob"], Source.LOCAL, "administrator")
    seen = []
    cursor = ""
    for _ in range(4):
        status, page = await admin.call("GET", f"/api/v1/cache?limit=1&cursor={quote(cursor)}")
        assert status == 200
        seen += page["entries"]
        if page["next"] is None:
            break
        cursor = str(page["next"])
    assert len(seen) == 3
    by_source = {row["source"]: row for row in seen}
    row = by_source["keyserver"]
    assert row["fingerprint"] == made.fingerprint["alice"]
    assert row["kind"] == "openpgp"
    assert row["identities"] == ["Alice <alice@example.org>"]
    assert (row["origin"], row["cached_at"], row["expires_at"]) == (NAME, made.now, made.now + 86400)
    assert (row["approved"], row["status"]) == (False, "fresh")
    assert by_source["mailflow"]["status"] == "held"
    assert by_source["mailflow"]["expires_at"] == made.now + 180 * 86400
    assert by_source["local"]["expires_at"] is None

    async def count(query: str) -> int:
        status, page = await admin.call("GET", f"/api/v1/cache?{query}")
        assert status == 200
        return len(page["entries"])  # type: ignore[arg-type]

    assert await count("source=mailflow") == 1
    assert await count(f"upstream={quote(NAME)}") == 1
    assert await count("domain=EXAMPLE.net") == 1
    assert await count("q=ALICE") == 2
    assert await count("q=nobody&source=") == 0
    admin.clock.now += 86400
    assert [r["status"] for r in (await admin.call("GET", "/api/v1/cache?source=keyserver"))[1]["entries"]] == [
        "expired"
    ]


async def test_list_by_every_filter_and_in_every_order(admin: Admin, made: Made) -> None:
    """Three entries: Alice's of an upstream and held of mail, Bob's local one; each query, and what it shows."""
    now = made.now
    await admin.put(made.exported["alice"])
    admin.clock.now += 10
    await admin.put(made.exported["alice"], Source.MAILFLOW, "example.org", vouchers=(HELD,))
    admin.clock.now += 10
    await admin.put(made.exported["bob"], Source.LOCAL, "administrator")
    date = quote(datetime.fromtimestamp(now + 10, UTC).isoformat())
    for query, right in {
        "": "LMK",
        "order=asc": "KML",
        "sort=expires": "KML",
        "sort=expires&order=desc": "LMK",
        "sort=address": "KML",
        "sort=address&order=desc": "LMK",
        "sort=source": "KLM",
        "sort=source&order=desc": "MLK",
        "kind=openpgp": "LMK",
        "kind=x509": "",
        "not_kind=openpgp": "",
        "not_source=local": "MK",
        f"not_upstream={quote(NAME)}": "LM",
        "not_domain=example.net": "MK",
        "not_q=alice": "L",
        "q=al": "MK",
        f"q={made.fingerprint['bob'][:9].lower()}": "L",
        f"q={made.fingerprint['bob'][-16:]}": "L",
        f"q={made.fingerprint['bob'][1:9]}": "",
        "status=fresh": "LK",
        "status=held": "M",
        "not_status=held": "LK",
        "status=blocked": "",
        "held=1": "M",
        "held=0": "LK",
        "approved=1": "",
        f"from={now + 10}": "LM",
        f"from={date}": "LM",
        f"to={date}": "K",
        f"from={now + 10}&to={now + 20}": "M",
        f"expires_before={now + 86401}": "K",
        f"expires_after={now + 86401}": "LM",
        f"source=keyserver&expires_before={now + 86400}": "",
        "domain=example.org&not_source=keyserver&held=1&q=alice": "M",
    }.items():
        status, page = await admin.call("GET", f"/api/v1/cache?{query}")
        assert status == 200, page
        rows = page["entries"]
        assert "".join(row["source"][0].upper() for row in rows) == right, query  # type: ignore[attr-defined]
        assert (page["next"], page["count"], page["count_exact"]) == (None, len(right), True), query
        assert page["as_of"] == now + 20


async def test_a_listing_goes_on_at_its_own_instant_and_for_itself_only(admin: Admin, made: Made) -> None:
    for name in ("alice", "bob", "alice2"):
        await admin.put(made.exported[name])
    status, first = await admin.call("GET", "/api/v1/cache?status=fresh&limit=1")
    admin.clock.now += 86400
    assert (status, first["count"], first["count_exact"]) == (200, 3, True)
    cursor = quote(str(first["next"]))
    status, second = await admin.call("GET", f"/api/v1/cache?status=fresh&limit=5&cursor={cursor}")
    assert (status, second["next"], second["as_of"]) == (200, None, made.now)
    assert [row["status"] for row in second["entries"]] == ["expired"] * 2, "words are of now"  # type: ignore[attr-defined]
    for other in ("status=expired", "", "status=fresh&sort=expires", "status=fresh&order=asc", "status=fresh&q=alice"):
        status, body = await admin.call("GET", f"/api/v1/cache?{other}&cursor={cursor}")
        assert status == 400
        assert "another listing" in str(body["detail"])


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("source=elsewhere", "keyserver, mailflow, local"),
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("limit=many", "whole number"),
        ("limit=%D9%A1", "whole number"),
        ("domain=a..b", "domain"),
        ("colour=red", "unknown parameter"),
        ("source=local&source=local", "twice"),
        ("kind=pgp", "openpgp, x509"),
        ("status=good", "fresh, stale, expired, held, blocked"),
        ("not_status=good", "fresh, stale, expired, held, blocked"),
        ("not_source=elsewhere", "keyserver, mailflow, local"),
        ("held=yes", "0 and 1"),
        ("approved=2", "0 and 1"),
        ("from=yesterday", "2026-11-28T08:00Z"),
        ("to=-1", "Unix seconds"),
        ("expires_before=99999999999999999999999", "Unix seconds"),
        ("expires_after=2026-13-01", "Unix seconds"),
        ("sort=colour", "cached, expires, address, source"),
        ("sort=fingerprint", "cached, expires, address, source"),
        ("order=down", "asc, desc"),
        ("q=" + "x" * 513, "512"),
        ("cursor=AB:keyserver:one", "cursor is"),
        ("cursor=%00", "cursor is"),
        ("cursor=%ED%A0%80", "cursor is"),
        ("cursor=WzFd", "cursor is"),
    ],
)
async def test_bad_parameters_say_what_is_accepted(admin: Admin, query: str, says: str) -> None:
    status, body = await admin.call("GET", f"/api/v1/cache?{query}")
    assert status == 400
    assert says in str(body["detail"])


async def test_show_by_fingerprint_key_id_and_address(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"])
    await admin.put(made.exported["alice"], Source.LOCAL, "administrator")
    for term in (fingerprint, fingerprint.lower(), "0x" + fingerprint, fingerprint[-16:], "Alice@Example.org"):
        status, shown = await admin.call("GET", f"/api/v1/cache/{term}")
        assert status == 200
        assert shown["fingerprint"] == fingerprint
    assert shown["validity"] == "valid"
    assert shown["can_encrypt"] is True
    assert shown["blocked"] is False
    assert shown["user_ids"][0]["address"] == "alice@example.org"  # type: ignore[index]
    assert len(shown["subkeys"]) == 1  # type: ignore[arg-type]
    assert {e["source"] for e in shown["entries"]} == {"keyserver", "local"}  # type: ignore[union-attr, index]
    status, shown = await admin.call("GET", f"/api/v1/cache/{fingerprint}?source=local")
    assert [e["source"] for e in shown["entries"]] == ["local"]  # type: ignore[union-attr, index]


async def test_an_ambiguous_address_lists_what_it_fits(admin: Admin, made: Made) -> None:
    await admin.put(made.exported["alice"])
    await admin.put(made.exported["alice2"])
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/approve"), ("POST", "/block"), ("POST", "/keep")):
        status, body = await admin.call(method, f"/api/v1/cache/alice@example.org{path}")
        assert status == 409
        listed = {c["fingerprint"]: c["identities"] for c in body["certificates"]}  # type: ignore[union-attr, index]
        assert listed.keys() == {made.fingerprint["alice"], made.fingerprint["alice2"]}
        assert ["Other Alice <alice@example.org>"] in listed.values()
    assert len((await admin.call("GET", "/api/v1/cache"))[1]["entries"]) == 2  # type: ignore[arg-type]


async def test_unknown_and_unusable_ids(admin: Admin) -> None:
    for path in ("A" * 40, "A" * 16, "nobody@example.org"):
        assert (await admin.call("GET", f"/api/v1/cache/{path}"))[0] == 404
        assert (await admin.call("POST", f"/api/v1/cache/{path}/approve"))[0] == 404
    assert (await admin.call("DELETE", f"/api/v1/cache/{'A' * 40}"))[0] == 404
    for path in ("some%20text", "0x12345678", "0x123", "%00", "%FF"):
        assert (await admin.call("GET", f"/api/v1/cache/{path}"))[0] == 400
    assert (await admin.call("PUT", f"/api/v1/cache/{'A' * 40}"))[0] == 405


# ---- changes


async def test_delete_one_source_then_all(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"])
    await admin.put(made.exported["alice"], Source.LOCAL, "administrator")
    assert await admin.state(fingerprint) is State.FOUND
    status, done = await admin.call("DELETE", f"/api/v1/cache/{fingerprint}?source=keyserver&origin={quote(NAME)}")
    assert (status, done["fingerprint"], done["deleted"]) == (200, fingerprint, 1)
    assert done["undo_until"] == admin.clock.now + 600
    assert (await admin.call("DELETE", f"/api/v1/cache/{fingerprint}?source=mailflow"))[0] == 404
    assert await admin.state(fingerprint) is State.FOUND
    assert (await admin.call("DELETE", "/api/v1/cache/alice@example.org"))[1]["deleted"] == 1
    assert await admin.state(fingerprint) is State.ABSENT
    assert admin.upstream.asked == [fingerprint]


async def test_a_delete_is_undone_once(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"])
    done = (await admin.call("DELETE", f"/api/v1/cache/{fingerprint}"))[1]
    admin.clock.now += 60
    assert await admin.state(fingerprint) is State.ABSENT
    waiting = {"id": done["undo"], "at": admin.clock.now - 60, "until": done["undo_until"], "entries": 1}
    assert await admin.call("GET", "/api/v1/undo") == (200, {"undos": [waiting]})
    path = f"/api/v1/undo/{done['undo']}"
    assert await admin.call("POST", path) == (200, {"undo": done["undo"], "restored": 1, "deleted": 1})
    assert await admin.state(fingerprint) is State.FOUND
    shown = (await admin.call("GET", f"/api/v1/cache/{fingerprint}"))[1]
    assert shown["entries"][0]["cached_at"] == admin.clock.now - 60  # type: ignore[index]
    assert (await admin.call("POST", path))[0] == 404
    assert await admin.call("GET", "/api/v1/undo") == (200, {"undos": []})


async def test_deletes_of_one_act_are_undone_together(admin: Admin, made: Made) -> None:
    alice, bob = [await admin.put(made.exported[name]) for name in ("alice", "bob")]
    act = (await admin.call("DELETE", f"/api/v1/cache/{alice}"))[1]["undo"]
    assert (await admin.call("DELETE", f"/api/v1/cache/{bob}?undo={act}"))[1]["undo"] == act
    assert await admin.call("POST", f"/api/v1/undo/{act}") == (200, {"undo": act, "restored": 2, "deleted": 2})


async def test_what_matches_is_deleted_and_undone(admin: Admin, made: Made) -> None:
    for name in ("alice", "bob"):
        await admin.put(made.exported[name])
    status, done = await admin.call("DELETE", "/api/v1/cache?domain=example.org&q=alice")
    assert (status, done["deleted"], set(done)) == (200, 1, {"deleted", "undo", "undo_until", "more"})
    assert (await admin.call("POST", f"/api/v1/undo/{done['undo']}"))[1]["restored"] == 1
    gone = {"deleted": 2, "undo": None, "undo_until": None, "more": False}
    assert await admin.call("DELETE", "/api/v1/cache?source=keyserver&undo=0") == (200, gone)
    assert await admin.call("GET", "/api/v1/undo") == (200, {"undos": []})
    assert (await admin.call("DELETE", "/api/v1/cache"))[0] == 400
    assert (await admin.call("DELETE", "/api/v1/cache?source=keyserver&undo=later"))[0] == 400


async def test_what_any_filter_shows_is_deleted_as_one_act(admin: Admin, made: Made) -> None:
    alice, bob = [await admin.put(made.exported[name]) for name in ("alice", "bob")]
    first = (await admin.call("DELETE", "/api/v1/cache?status=fresh&not_q=bob@example.net"))[1]
    assert first["deleted"] == 1
    undo = first["undo"]
    second = (await admin.call("DELETE", f"/api/v1/cache?from=2001-01-01&undo={undo}"))[1]
    assert (second["deleted"], second["undo"], second["more"]) == (1, undo, False)
    assert (await admin.call("POST", f"/api/v1/undo/{undo}"))[1] == {"undo": undo, "restored": 2, "deleted": 2}
    assert [await admin.state(one) for one in (alice, bob)] == [State.FOUND, State.FOUND]


async def test_an_act_for_all_that_match(admin: Admin, made: Made) -> None:
    alice = await admin.put(made.exported["alice"])
    bob = await admin.put(made.exported["bob"], Source.MAILFLOW, "example.net", vouchers=(HELD_BOB,))
    assert await admin.call("POST", "/api/v1/cache/approve?held=1") == (200, {"done": 1, "failed": 0, "more": False})
    assert (await admin.call("GET", f"/api/v1/cache/{bob}"))[1]["entries"][0]["approved"] is True  # type: ignore[index]
    assert (await admin.call("POST", "/api/v1/cache/keep?domain=example.org"))[1]["done"] == 1
    shown = (await admin.call("GET", f"/api/v1/cache/{alice}"))[1]["entries"]
    assert "local" in [one["source"] for one in shown]  # type: ignore[index]
    assert (await admin.call("POST", "/api/v1/cache/block?domain=example.net"))[1]["done"] == 1
    assert (await admin.call("GET", f"/api/v1/cache/{bob}"))[1]["blocked"] is True
    admin.upstream.says = Failed("it is down")
    assert (await admin.call("POST", "/api/v1/cache/refresh?q=alice"))[1] == {"done": 0, "failed": 1, "more": False}
    for path in ("keep", "keep?status=", "block?unheard=of", "refresh?status=green"):
        assert (await admin.call("POST", f"/api/v1/cache/{path}"))[0] == 400, path
    acts = (await admin.call("GET", f"/api/v1/audit?certificate={bob.lower()}"))[1]["acts"]
    assert [act["act"] for act in acts] == ["block", "approve"]  # type: ignore[index]
    assert (await admin.call("GET", "/api/v1/audit?certificate=bob"))[0] == 400


async def test_what_has_expired_in_this_second_is_not_restored(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"])
    admin.clock.now += 86400 - 599
    for seconds, restored in ((598, 1), (1, 0)):
        act = (await admin.call("DELETE", f"/api/v1/cache/{fingerprint}"))[1]["undo"]
        admin.clock.now += seconds
        assert (await admin.call("POST", f"/api/v1/undo/{act}"))[1]["restored"] == restored


async def test_ten_minutes_are_ten_minutes(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"], Source.LOCAL, "administrator")
    act = (await admin.call("DELETE", f"/api/v1/cache/{fingerprint}"))[1]["undo"]
    admin.clock.now += 600
    assert await admin.call("GET", "/api/v1/undo") == (200, {"undos": []})
    assert (await admin.call("POST", f"/api/v1/undo/{act}"))[0] == 404


async def test_a_paused_upstream_is_not_asked(admin: Admin, made: Made) -> None:
    fingerprint, path = made.fingerprint["alice"], f"/api/v1/upstreams/{quote(NAME)}"
    admin.upstream.otherwise = Found((Raw(Kind.OPENPGP, made.exported["alice"]),))
    paused = {"upstream": NAME, "paused_at": admin.clock.now}
    assert await admin.call("POST", f"{path}/pause") == (200, paused)
    admin.clock.now += 5
    assert await admin.call("POST", f"{path}/pause") == (200, paused)
    (row,) = (await admin.call("GET", "/api/v1/upstreams"))[1]["upstreams"]  # type: ignore[attr-defined]
    assert (row["state"], row["paused_at"]) == ("paused", admin.clock.now - 5)
    assert await admin.state(fingerprint) is State.FAILED
    assert admin.upstream.asked == []
    tested = (await admin.call("POST", f"{path}/test", json={"query": fingerprint}))[1]
    assert (tested["outcome"], admin.upstream.asked) == ("found", [fingerprint])
    for _ in range(2):
        assert await admin.call("POST", f"{path}/resume") == (200, {"upstream": NAME, "paused_at": None})
    assert await admin.state(fingerprint) is State.FOUND
    for act in ("pause", "resume"):
        assert (await admin.call("POST", f"/api/v1/upstreams/nobody/{act}"))[0] == 404


async def test_who_was_told_what(admin: Admin) -> None:
    assert await admin.call("GET", "/api/v1/upstreams/told") == (200, {"upstreams": []})
    since = admin.clock.now
    for term in ("alice@example.org", "bob@example.org", "alice@example.org", "A" * 40):
        await admin.state(term)  # the second time from the cache
        admin.clock.now += 1
    await admin.call("POST", f"/api/v1/upstreams/{quote(NAME)}/test", json={"query": "carol@example.net"})
    (told,) = (await admin.call("GET", "/api/v1/upstreams/told"))[1]["upstreams"]  # type: ignore[attr-defined]
    assert (told["upstream"], told["since"], told["questions"]) == (NAME, since, 4)
    assert (told["addresses"], told["fingerprints"]) == ({"count": 3, "error": 0.0}, {"count": 1, "error": 0.0})
    assert [(d["domain"], d["addresses"]["count"]) for d in told["domains"]] == [("example.org", 2), ("example.net", 1)]


async def test_deleting_what_is_still_being_searched_keeps_it_out(admin: Admin, made: Made) -> None:
    fingerprint = made.fingerprint["alice"]
    begun = await admin.store.begin()
    assert (await admin.call("DELETE", f"/api/v1/cache/{fingerprint}"))[0] == 404
    (certificate,) = openpgp.clean(made.exported["alice"], made.now)
    assert isinstance(certificate, Certificate)
    await admin.store.put([Find(certificate, Source.KEYSERVER, NAME)], [], begun, made.now)
    assert (await admin.call("GET", f"/api/v1/cache/{fingerprint}"))[0] == 404


async def test_approve_lets_a_held_entry_answer(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"], Source.MAILFLOW, "example.org", vouchers=(HELD,))
    assert await admin.state(fingerprint) is State.ABSENT
    assert await admin.call("POST", f"/api/v1/cache/{fingerprint}/approve") == (
        200,
        {"fingerprint": fingerprint, "source": "mailflow", "origin": "example.org", "address": "alice@example.org"},
    )
    assert await admin.state(fingerprint) is State.FOUND


async def test_approve_lists_what_fits_and_chooses_nothing(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"], Source.MAILFLOW, "example.org", vouchers=(HELD,))
    await admin.put(made.exported["alice"])
    path = f"/api/v1/cache/{fingerprint}/approve"
    status, body = await admin.call("POST", path)
    assert status == 409
    assert [(c["source"], c["address"]) for c in body["choices"]] == [  # type: ignore[attr-defined]
        ("keyserver", "alice@example.org"),
        ("mailflow", "alice@example.org"),
    ]
    assert not any(e.approved for e in (await admin.store.certificate(fingerprint)).entries)
    assert (await admin.call("POST", path, json={"upstream": "nobody"}))[0] == 404
    assert (await admin.call("POST", path, json={"address": "bob@example.org"}))[0] == 404
    assert (await admin.call("POST", path, json={"address": "no address"}))[0] == 400
    assert (await admin.call("POST", path, json={"source": "mailflow"}))[0] == 200
    by_source = {e.source: e.approved for e in (await admin.store.certificate(fingerprint)).entries}
    assert by_source == {Source.MAILFLOW: True, Source.KEYSERVER: False}
    assert (await admin.call("POST", path, json={"upstream": NAME}))[0] == 200


async def test_approve_chooses_among_certificates_by_what_is_given(admin: Admin) -> None:
    """Two certificates name the address; one is an upstream's, the other mail's. What no approval changes is none."""
    claim = make(["M <m@attacker.example>", "Alice <alice@example.org>"], seed="approve m")
    theirs = make(["Alice <alice@example.org>"], seed="approve alice")
    await admin.put(claim.octets, Source.MAILFLOW, "attacker.example", vouchers=(Voucher("m@attacker.example"),))
    await admin.put(theirs.octets)
    path = "/api/v1/cache/alice%40example.org/approve"
    status, body = await admin.call("POST", path)
    assert status == 409
    listed = {c["fingerprint"] for c in body["certificates"]}  # type: ignore[attr-defined]
    assert listed == {claim.fingerprint, theirs.fingerprint}
    for fingerprint in listed:
        assert not any(e.approved for e in (await admin.store.certificate(fingerprint)).entries), "none is chosen"
    status, body = await admin.call("POST", path, json={"source": "mailflow"})
    assert (status, body["fingerprint"], body["address"]) == (200, claim.fingerprint, "alice@example.org")
    status, body = await admin.call("POST", f"{path}?upstream={quote(NAME)}")
    assert (status, body["fingerprint"]) == (200, theirs.fingerprint)
    assert (await admin.call("POST", f"{path}?upstreams=x"))[0] == 400
    await admin.put(claim.octets, origin="gone")
    status, body = await admin.call("POST", f"/api/v1/cache/{claim.fingerprint}/approve", json={"upstream": "gone"})
    assert status == 409 and "no upstream any more" in str(body["detail"])
    status, body = await admin.call("POST", "/api/v1/cache/m%40attacker.example/approve")
    assert (status, body["source"]) == (200, "mailflow"), "an approval of the other entry would change nothing"


async def test_keep_makes_it_local_for_good(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"])
    assert await admin.call("POST", f"/api/v1/cache/{fingerprint}/keep") == (
        200,
        {"fingerprint": fingerprint, "kept": True},
    )
    admin.clock.now += 5000 * 86400
    assert await admin.state(fingerprint) is State.FOUND
    assert admin.upstream.asked == []


async def test_block_and_unblock_by_fingerprint_and_address(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"], Source.LOCAL, "administrator")
    status, body = await admin.call("POST", "/api/v1/cache/alice@example.org/block", json={"reason": "lost"})
    assert (status, body) == (200, {"fingerprint": fingerprint, "blocked": True})
    assert await admin.state(fingerprint) is State.ABSENT
    assert (await admin.call("POST", f"/api/v1/cache/{fingerprint}/keep"))[0] == 409
    assert (await admin.call("GET", f"/api/v1/cache/{fingerprint}"))[1]["blocked"] is True
    assert [r["status"] for r in (await admin.call("GET", "/api/v1/cache"))[1]["entries"]] == ["blocked"]  # type: ignore[union-attr, index]
    assert (await admin.call("POST", "/api/v1/cache/alice@example.org/unblock"))[0] == 200
    assert (await admin.call("POST", f"/api/v1/cache/{fingerprint}/unblock"))[0] == 404
    assert await admin.state(fingerprint) is State.FOUND
    assert (await admin.call("POST", f"/api/v1/cache/{'B' * 40}/block"))[0] == 200
    assert "blocked" in str((await admin.call("GET", f"/api/v1/cache/{'B' * 40}"))[1]["detail"])
    assert (await admin.call("POST", f"/api/v1/cache/{'B' * 40}/block", json={"because": 1}))[0] == 400


async def test_refresh_asks_again_and_brings_news(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"], Source.LOCAL, "administrator")
    admin.upstream.answers[fingerprint] = Found((Raw(Kind.OPENPGP, made.exported["alice"]),))
    status, body = await admin.call("POST", "/api/v1/cache/alice@example.org/refresh")
    assert status == 200
    assert body["fingerprint"] == fingerprint
    assert body["outcomes"] == {NAME: "found"}
    assert body["steps"]
    assert admin.upstream.asked == [fingerprint, "alice@example.org"]
    assert {e["source"] for e in (await admin.call("GET", f"/api/v1/cache/{fingerprint}"))[1]["entries"]} == {  # type: ignore[union-attr, index]
        "local",
        "keyserver",
    }
    assert (await admin.call("POST", f"/api/v1/cache/{'C' * 40}/refresh"))[0] == 404


# ---- purge


async def test_purge_each_way(admin: Admin, made: Made) -> None:
    async def fill() -> None:
        await admin.put(made.exported["alice"])
        await admin.put(made.exported["alice2"], Source.MAILFLOW, "example.org")
        await admin.put(made.exported["bob"], Source.LOCAL, "administrator")

    async def purge(**what: object) -> object:
        status, body = await admin.call("POST", "/api/v1/cache/purge", json=what)
        assert status == 200, body
        return body["purged"]

    await fill()
    assert await purge(expired=True) == 0
    admin.clock.now += 86401
    assert await purge(expired=True) == 1
    assert await purge(source="mailflow") == 1
    await fill()
    assert await purge(upstream=NAME) == 1
    assert await purge(domain="example.net") == 1
    assert await purge(domain="example.net", all=False) == 0
    assert await purge(all=True) == 1
    assert (await admin.call("GET", "/api/v1/cache"))[1]["entries"] == []


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b"{", b"\xff", b'{"all": false}', b'{"all": 1}', b'{"all": true, "expired": true}',
        b'{"source": "everything"}', b'{"source": ""}', b'{"source": null}', b'{"domain": "-"}', b'{"what": true}',
        b"[" * 50_000, b'{"all": "' + b"x" * 70_000 + b'"}',
    ],
)  # fmt: skip
async def test_a_purge_that_is_not_exactly_one_thing_does_nothing(admin: Admin, made: Made, body: bytes) -> None:
    await admin.put(made.exported["alice"])
    status, _ = await admin.call("POST", "/api/v1/cache/purge", data=body)
    assert status in (400, 413)
    assert len((await admin.call("GET", "/api/v1/cache"))[1]["entries"]) == 1  # type: ignore[arg-type]


# ---- import and export


async def test_import_then_export_then_gpg(admin: Admin, made: Made, tmp_path: Path) -> None:
    parts = [made.exported["alice"], made.exported["bob"]]
    keyring = b"".join(openpgp.armor(p) for p in parts) + openpgp.armor(made.exported["secret"])

    async def dripped() -> AsyncIterator[bytes]:
        for at in range(0, len(keyring), 100):
            yield keyring[at : at + 100]

    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/pgp-keys"}
    url = admin.url + "/api/v1/cache/import"
    async with admin.session.post(url, data=dripped(), headers=headers) as reply:
        report = await reply.json()
    assert (report["read"], report["new"], report["refused"]) == (3, 2, 1)
    assert "secret" in report["problems"][0]
    headers["Content-Type"] = "application/octet-stream"
    async with admin.session.post(url, data=b"".join(parts), headers=headers) as reply:
        assert (await reply.json())["same"] == 2
    assert await admin.state(made.fingerprint["alice"]) is State.FOUND
    assert await admin.state("bob@example.net") is State.FOUND  # local: a hit by itself
    assert admin.upstream.asked == []
    async with admin.session.get(admin.url + "/api/v1/cache/export?domain=example.org", headers=headers) as reply:
        assert reply.content_type == "application/pgp-keys"
        alone = await reply.read()
    assert alone.count(b"BEGIN PGP") == 1
    async with admin.session.get(admin.url + "/api/v1/cache/export", headers=headers) as reply:
        exported = await reply.read()
    assert b"PRIVATE" not in exported
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    listing = subprocess.run(
        ["gpg", "--homedir", str(home), "--with-colons", "--show-keys"], input=exported, capture_output=True, timeout=30
    ).stdout.decode()
    prints = re.findall(r"^pub:.*\nfpr:+([0-9A-F]{40}):", listing, re.MULTILINE)
    assert sorted(prints) == sorted([made.fingerprint["alice"], made.fingerprint["bob"]])


async def test_an_older_keyring_takes_nothing_away(admin: Admin, made: Made) -> None:
    await admin.put(made.exported["alice"], Source.LOCAL, "administrator")
    older = made.exported["older"]
    assert len(older) < len(made.exported["alice"])
    headers = {"Content-Type": "application/octet-stream"}
    headers["Authorization"] = f"Bearer {TOKEN}"
    async with admin.session.post(admin.url + "/api/v1/cache/import", data=older, headers=headers) as reply:
        assert reply.status == 200
    shown = (await admin.call("GET", f"/api/v1/cache/{made.fingerprint['alice']}"))[1]
    assert len(shown["subkeys"]) == 1  # type: ignore[arg-type]


async def test_import_of_another_type_and_of_garbage(admin: Admin) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain"}
    async with admin.session.post(admin.url + "/api/v1/cache/import", data=b"x", headers=headers) as reply:
        assert reply.status == 415
    headers["Content-Type"] = "application/octet-stream"
    for garbage in (b"hello", b"", b"\x1f\x8b" + bytes(1000)):
        async with admin.session.post(admin.url + "/api/v1/cache/import", data=garbage, headers=headers) as reply:
            report = await reply.json()
            assert (reply.status, report["new"]) == (200, 0)
            assert report["refused"] == (1 if garbage else 0)


async def test_an_export_of_nothing_is_empty(admin: Admin) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with admin.session.get(admin.url + "/api/v1/cache/export", headers=headers) as reply:
        assert (reply.status, await reply.read()) == (200, b"")


# ---- upstreams and lookups


async def test_upstreams_and_a_live_test_that_keeps_nothing(admin: Admin, made: Made) -> None:
    fingerprint = made.fingerprint["alice"]
    admin.upstream.answers[fingerprint] = Found((Raw(Kind.OPENPGP, made.exported["alice"]),))
    admin.upstream.answers["bob@example.net"] = Failed("it is on fire")
    path = f"/api/v1/upstreams/{quote(NAME)}/test"
    status, body = await admin.call("POST", path, json={"query": fingerprint.lower()})
    assert (status, body["outcome"], body["certificates"]) == (200, "found", [fingerprint])
    assert isinstance(body["milliseconds"], float)
    assert (await admin.call("POST", path, json={"query": "bob@example.net"}))[1]["reason"] == "it is on fire"
    assert (await admin.call("GET", "/api/v1/cache"))[1]["entries"] == []
    status, body = await admin.call("POST", "/api/v1/upstreams/nobody/test", json={"query": fingerprint})
    assert status == 404
    assert NAME in str(body["detail"])
    for wrong in ({}, {"query": 5}, {"query": ""}, {"query": "0x1"}):
        assert (await admin.call("POST", path, json=wrong))[0] == 400
    (shown,) = (await admin.call("GET", "/api/v1/upstreams"))[1]["upstreams"]  # type: ignore[misc]
    assert shown["name"] == NAME
    assert (shown["found"], shown["failed"]) == (1, 1)
    assert shown["last_error"] == "it is on fire"
    assert {"state", "priority", "absent", "p50", "p99"} <= shown.keys()


async def test_lookup_step_by_step(admin: Admin, made: Made) -> None:
    admin.upstream.answers["alice@example.org"] = Found((Raw(Kind.OPENPGP, made.exported["alice"]),))
    status, body = await admin.call("GET", "/api/v1/lookup?q=Alice%40example.org&trace=1")
    assert status == 200
    assert (body["query"], body["state"], body["how"]) == ("alice@example.org", "found", "MISS")
    assert body["certificates"][0]["user_ids"] == ["Alice <alice@example.org>"]  # type: ignore[index]
    assert body["certificates"][0]["entries"][0]["origin"] == NAME  # type: ignore[index]
    assert NAME in {step["who"] for step in body["steps"]}  # type: ignore[union-attr, index]
    status, body = await admin.call("GET", "/api/v1/lookup?q=alice@example.org")
    assert (body["how"], body["steps"]) == ("HIT", [])
    for query in ("", "q=", "q=0x1", "q=some+text", "q=a@b.org&trace=yes"):
        assert (await admin.call("GET", f"/api/v1/lookup?{query}"))[0] == 400


async def test_a_store_in_trouble_is_503_and_says_why(admin: Admin, made: Made) -> None:
    await admin.put(made.exported["alice"])
    await admin.store.close()
    status, body = await admin.call("GET", "/api/v1/cache")
    assert status == 503, json.dumps(body)


async def test_a_record_is_forgotten_with_its_certificate(admin: Admin, made: Made) -> None:
    """After a delete the next lookup asks again, though the upstream's word was fresh (cache rule 7)."""
    admin.upstream.answers["alice@example.org"] = Found((Raw(Kind.OPENPGP, made.exported["alice"]),))
    assert await admin.state("alice@example.org") is State.FOUND
    shelf = await admin.store.look(parse("alice@example.org").name)
    assert shelf.records == (Record(parse("alice@example.org").name, NAME, True, made.now),)
    await admin.call("DELETE", "/api/v1/cache/alice@example.org")
    assert await admin.state("alice@example.org") is State.FOUND
    assert admin.upstream.asked == ["alice@example.org"] * 2


# ---- what a lookup comes to


async def verdict(admin: Admin, term: str) -> object:
    return (await admin.call("GET", f"/api/v1/lookup?q={quote(term)}"))[1]["verdict"]


async def test_a_lookups_verdict(admin: Admin, made: Made) -> None:
    """Usable, known but not usable, absent, or unknown."""
    assert await verdict(admin, "bob@example.net") == "absent"
    admin.upstream.answers["bob@example.net"] = Failed("no route")
    admin.clock.now += 86400
    assert await verdict(admin, "bob@example.net") == "unknown"
    await admin.put(made.exported["bob"], Source.LOCAL, "administrator")
    assert await verdict(admin, "bob@example.net") == "unusable", "it can only sign"
    await admin.put(made.exported["alice"], Source.LOCAL, "administrator")
    assert await verdict(admin, "alice@example.org") == "usable"


@pytest.mark.parametrize("held", [True, False])
async def test_what_policy_keeps_back_is_known_but_not_usable(admin: Admin, made: Made, held: bool) -> None:
    voucher = replace(HELD, held=held, authenticated=True)
    fingerprint = await admin.put(made.exported["alice"], Source.MAILFLOW, "example.org", vouchers=(voucher,))
    assert await verdict(admin, fingerprint) == "unusable"
    admin.clock.now += 181 * 86400
    assert await verdict(admin, fingerprint) == "absent", "it has expired, and nobody else has it"


async def test_what_is_blocked_is_absent(admin: Admin, made: Made) -> None:
    fingerprint = await admin.put(made.exported["alice"], Source.LOCAL, "administrator")
    assert (await admin.call("POST", f"/api/v1/cache/{fingerprint}/block"))[0] == 200
    assert await verdict(admin, fingerprint) == "absent"
