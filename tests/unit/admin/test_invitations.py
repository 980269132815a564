"""Inviting by the API: who may be, one mail for each, limits, and what is shown of it."""

from __future__ import annotations

import asyncio
import email
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keyserver.admin.invitations import shown
from keyserver.config.sections.mail import InviteSection
from keyserver.invite.inviting import quota_of
from keyserver.model import Find, Kind, Source, Voucher
from keyserver.policy import Terms
from keyserver.smime import clean
from keyserver.store.invitations import Invitation, Stage
from support import openpgp, x509
from support.administering import NAME, TOKEN, Admin, running
from support.openpgp import CREATED
from support.relays import HANG, HANGUP, Relay

NOW = CREATED + 86400
PATH = "/api/v1/invitations"
ALICE = "alice@example.org"
SEEN = Voucher(ALICE, authenticated=True)


def settings(relay: Relay | None = None, **keys: object) -> InviteSection:
    url = relay.url if relay is not None else ""
    given = {
        "smtp": url,
        "smtp_tls": "offered",
        "sender": "keys@example.net",
        "public_url": "https://optin.example.net",
    }
    return InviteSection.model_validate(given | keys)


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with Relay() as one:
        yield one


@pytest.fixture
async def admin(tmp_path: Path, relay: Relay) -> AsyncIterator[Admin]:
    async with running(tmp_path, NOW) as one:
        one.parts.rules.invite.replace(settings(relay))
        yield one


async def mailed(admin: Admin, octets: bytes | None = None, address: str = ALICE) -> str:
    """A certificate that came by mail."""
    octets = octets or openpgp.make([f"<{address}>"]).octets
    return await admin.put(octets, Source.MAILFLOW, address.partition("@")[2], vouchers=(Voucher(address, True),))


async def refused(admin: Admin, status: int = 409, **body: str) -> str:
    answered, problem = await admin.call("POST", PATH, json={"address": ALICE} | body)
    assert answered == status, problem
    return str(problem["detail"])


async def test_an_owner_is_invited(admin: Admin, relay: Relay) -> None:
    fingerprint = await mailed(admin)
    status, made = await admin.call("POST", PATH, json={"address": " Alice@EXAMPLE.org"})
    assert status == 200, made
    listed = (await admin.call("GET", PATH))[1]
    assert listed["next"] is None
    (row,) = listed["invitations"]  # type: ignore[misc]
    assert {**made, "number": row["number"]} == row  # type: ignore[has-type]
    assert row == {  # type: ignore[has-type]
        "id": row["id"],  # type: ignore[has-type]
        "number": 1,
        "address": ALICE,
        "fingerprint": fingerprint,
        "kind": "openpgp",
        "source": "mailflow",
        "origin": "example.org",
        "made_at": NOW,
        "made_by": "admin",
        "expires_at": NOW + 14 * 86400,
        "stage": "sent",
        "changed_at": NOW,
        "note": "",
        "confirmed_at": None,
    }
    (octets,) = relay.mails
    mail = email.message_from_bytes(octets)
    assert mail["Message-ID"] == f"<{made['id']}.invitation@example.net>"
    assert mail["To"] == ALICE
    assert await admin.store.invitations.by_confirm(hashlib.sha256(b"").digest()) is None
    snapshot = await admin.store.certificate(fingerprint)
    assert not snapshot.entries[0].approved, "only its owner can do that"


async def test_an_s_mime_certificate_too(admin: Admin, relay: Relay) -> None:
    owner = x509.person(ALICE, begins=NOW - 86400)
    (certificate,) = clean(owner.der, NOW)
    begun = await admin.store.begin()
    find = Find(certificate, Source.MAILFLOW, "example.org", vouchers=(SEEN,))  # type: ignore[arg-type]
    await admin.store.put([find], [], begun, NOW)
    assert (await admin.call("POST", PATH, json={"address": ALICE}))[1]["kind"] == "x509"
    assert email.message_from_bytes(relay.mails[0]).get_content_type() == "application/pkcs7-mime"


async def test_several_that_fit_are_listed_and_nobody_is_invited(admin: Admin, relay: Relay) -> None:
    one, other = await mailed(admin), await mailed(admin)
    status, problem = await admin.call("POST", PATH, json={"address": ALICE})
    assert status == 409
    assert {c["fingerprint"] for c in problem["certificates"]} == {one, other}  # type: ignore[attr-defined]
    octets = (await admin.store.certificate(one)).entries[0].octets
    await admin.put(octets)
    status, problem = await admin.call("POST", PATH, json={"address": ALICE, "fingerprint": one})
    assert status == 409
    assert [c["source"] for c in problem["choices"]] == ["keyserver", "mailflow"]  # type: ignore[attr-defined]
    assert not relay.mails
    body = {"address": ALICE, "fingerprint": one, "upstream": NAME}
    assert (await admin.call("POST", PATH, json=body))[1]["source"] == "keyserver"


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"expires": 3600}, "it is expired"),
        ({"revoked": 2}, "it is revoked"),
        ({"encryption": None}, "no key for encryption"),
        ({"subkeys_revoked": 0, "revoked_at": CREATED + 60}, "no key for encryption"),
        ({"encryption": "x25519-native"}, "version 4, algorithm 25"),
        ({"version": 6}, "version 6"),
    ],
)
async def test_what_cannot_be_used_is_refused(admin: Admin, relay: Relay, made: dict[str, object], why: str) -> None:
    fingerprint = await mailed(admin, openpgp.make([f"<{ALICE}>"], **made).octets)  # type: ignore[arg-type]
    assert why in await refused(admin, fingerprint=fingerprint)
    assert not relay.commands
    assert (await admin.call("GET", PATH))[1]["invitations"] == [], "what cannot be sent is not on record"


async def test_a_revocation_known_from_elsewhere_counts(admin: Admin) -> None:
    made = openpgp.make([f"<{ALICE}>"], seed="alice")
    fingerprint = await mailed(admin, made.octets)
    revoked = openpgp.make([f"<{ALICE}>"], seed="alice", revoked=2, revoked_at=CREATED + 60)
    assert await admin.put(revoked.octets) == fingerprint
    assert "it is revoked" in await refused(admin, fingerprint=fingerprint, source="mailflow")


async def test_who_is_not_to_be_asked(admin: Admin, relay: Relay) -> None:
    assert ALICE in await refused(admin, 404)
    fingerprint = await mailed(admin)
    await admin.call("POST", f"/api/v1/cache/{fingerprint}/block")
    assert "blocked" in await refused(admin, fingerprint=fingerprint)
    await admin.call("POST", f"/api/v1/cache/{fingerprint}/unblock")
    await admin.call("POST", f"/api/v1/cache/{fingerprint}/approve", json={"address": ALICE})
    assert "is approved for" in await refused(admin)
    assert not relay.commands


@pytest.mark.parametrize("domain", ["example.org", "mail.example.org"])
async def test_internal_domains_and_what_is_below_them_are_never_invited(
    admin: Admin, relay: Relay, domain: str
) -> None:
    address = f"alice@{domain}"
    await admin.put(openpgp.make([f"<{address}>"]).octets, Source.LOCAL, "administrator")
    rules = admin.parts.rules.lookups()
    terms = Terms(internal_domains=("example.org",), upstreams=rules.terms.upstreams)
    admin.parts.rules.lookups.replace(type(rules)(terms=terms, upstreams=rules.upstreams))
    assert "internal" in await refused(admin, address=address)
    assert not relay.commands


async def test_nobody_is_invited_without_a_relay(admin: Admin) -> None:
    await mailed(admin)
    admin.parts.rules.invite.replace(settings())
    assert "invite.smtp names no relay" in await refused(admin)


async def test_an_address_is_asked_once_a_day(admin: Admin, relay: Relay) -> None:
    await mailed(admin)
    assert (await admin.call("POST", PATH, json={"address": ALICE}))[0] == 200
    admin.clock.pass_(86399)
    assert "within the last day" in await refused(admin)
    admin.clock.pass_(1)
    assert (await admin.call("POST", PATH, json={"address": ALICE}))[0] == 200
    rows = (await admin.call("GET", PATH))[1]["invitations"]
    assert [row["stage"] for row in rows] == ["sent", "replaced"]  # type: ignore[attr-defined]
    assert len(relay.mails) == 2


async def test_a_domain_is_not_flooded(admin: Admin, relay: Relay) -> None:
    for n in range(6):
        await mailed(admin, address=f"u{n}@example.org")
        status, said = await admin.call("POST", PATH, json={"address": f"u{n}@example.org"})
        if n < 5:
            admin.parts.rules.invite.replace(settings(relay, per_hour=20))
            assert status == 200, said
    assert status == 409
    assert "one domain" in str(said["detail"])


def test_the_quota() -> None:
    assert quota_of(settings(per_hour=60)).per_domain == 15
    assert quota_of(settings(per_hour=8)).per_domain == 5
    assert (quota_of(settings(per_hour=8)).per_hour, quota_of(settings(per_hour=8)).per_address) == (8, 1)


async def test_a_relay_that_refuses_leaves_it_failed_and_counts_for_nothing(admin: Admin, relay: Relay) -> None:
    await mailed(admin)
    async with Relay(RCPT="550 5.1.1 <alice@example.org> unknown") as refusing:
        admin.parts.rules.invite.replace(settings(refusing))
        assert "550 5.1.1 <alice@example.org> unknown" in await refused(admin)
    (row,) = (await admin.call("GET", PATH))[1]["invitations"]  # type: ignore[misc]
    assert row["stage"] == "failed"  # type: ignore[has-type]
    assert "550 5.1.1" in row["note"]  # type: ignore[has-type]
    admin.parts.rules.invite.replace(settings(relay))
    assert (await admin.call("POST", PATH, json={"address": ALICE}))[0] == 200


async def test_a_relay_that_does_not_say_leaves_it_open(admin: Admin) -> None:
    """The owner may have it: the link works, and another mail would be one too many."""
    await mailed(admin)
    async with Relay(taken=HANGUP) as silent:
        admin.parts.rules.invite.replace(settings(silent))
        assert "has not said whether" in await refused(admin)
        assert "within the last day" in await refused(admin)
    (row,) = (await admin.call("GET", PATH))[1]["invitations"]  # type: ignore[misc]
    assert row["stage"] == "prepared"  # type: ignore[has-type]


async def test_who_leaves_while_it_is_sent_leaves_it_on_record(admin: Admin) -> None:
    await mailed(admin)
    async with Relay(MAIL=HANG) as slow:
        admin.parts.rules.invite.replace(settings(slow))
        asking = asyncio.ensure_future(admin.parts.operations.invitations.invite(ALICE))
        while not slow.commands:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    (row,) = (await admin.call("GET", PATH))[1]["invitations"]  # type: ignore[misc]
    assert row["stage"] == "prepared"  # type: ignore[has-type]


async def test_acts_and_counts(admin: Admin) -> None:
    fingerprint = await mailed(admin)
    await admin.call("POST", PATH, json={"address": ALICE})
    await refused(admin)
    acts = (await admin.call("GET", "/api/v1/audit?act=invite"))[1]["acts"]
    assert [(act["certificate"], act["facts"]["sent"]) for act in acts] == [  # type: ignore[attr-defined]
        (fingerprint, "no"),
        (fingerprint, "yes"),
    ]
    assert ALICE not in str(acts)
    exposition = admin.parts.observer.exposition().decode()
    assert 'keyserver_invitations_total{stage="prepared"} 1.0' in exposition
    assert 'keyserver_invitations_total{stage="sent"} 1.0' in exposition


async def test_pages_of_the_list(admin: Admin, relay: Relay) -> None:
    for n in range(5):
        await mailed(admin, address=f"u{n}@d{n}.example")
        assert (await admin.call("POST", PATH, json={"address": f"u{n}@d{n}.example"}))[0] == 200
    seen: list[str] = []
    cursor = ""
    while cursor is not None:
        page = (await admin.call("GET", f"{PATH}?limit=2{f'&cursor={cursor}' if cursor else ''}"))[1]
        seen += [row["address"] for row in page["invitations"]]  # type: ignore[attr-defined]
        cursor = page["next"]  # type: ignore[assignment]
    assert seen == [f"u{n}@d{n}.example" for n in (4, 3, 2, 1, 0)]
    one = (await admin.call("GET", f"{PATH}?address=U3%40d3.example"))[1]["invitations"]
    assert [row["address"] for row in one] == ["u3@d3.example"]  # type: ignore[attr-defined]


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "cursor=x", "cursor=-1", "address=nobody", "other=1"])
async def test_wrong_lists(admin: Admin, query: str) -> None:
    assert (await admin.call("GET", f"{PATH}?{query}"))[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"address": ""},
        {"address": "nobody"},
        {"address": "a@example.org\r\nRCPT TO:<b@example.org>"},
        {"address": ALICE, "source": "nowhere"},
        {"address": ALICE, "to": "x"},
        {"address": 1},
        [ALICE],
    ],
)
async def test_wrong_requests(admin: Admin, relay: Relay, body: object) -> None:
    assert (await admin.call("POST", PATH, json=body))[0] == 400
    assert not relay.commands


async def test_viewers_look_and_do_not_invite(tmp_path: Path, relay: Relay) -> None:
    async with running(tmp_path, NOW, viewer_identities=False) as admin:
        admin.parts.rules.invite.replace(settings(relay))
        await mailed(admin)
        await admin.call("POST", PATH, json={"address": ALICE})
        bearer = {"Authorization": f"Bearer {await admin.viewer()}"}
        assert (await admin.call("POST", PATH, bearer, json={"address": ALICE}))[0] == 403
        status, page = await admin.call("GET", PATH, bearer)
        assert status == 200
        assert ALICE not in str(page)
        assert "@example.org" in str(page)
    assert TOKEN not in str(page)


def test_what_nobody_has_confirmed_in_time_is_shown_as_expired() -> None:
    made = Invitation("0" * 32, ALICE, "AB" * 20, Kind.OPENPGP, Source.LOCAL, "x", NOW, "admin", NOW + 10)
    for stage in Stage:
        was = Invitation(*(getattr(made, name) for name in Invitation.__slots__[:9]), stage=stage)
        over = stage in (Stage.PREPARED, Stage.SENT, Stage.BOUNCED)
        assert shown(was, NOW + 9).stage == stage.value
        assert shown(was, NOW + 10).stage == ("expired" if over else stage.value)
