"""The owner's word from end to end: a real Postfix carries the invitation, a real gpg or openssl reads it."""

from __future__ import annotations

import email
import http.client
import json
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.mails import attached_key, crlf, head, multipart, openssl, signed, text
from support.ports import free_port
from support.postfix import INBOUND, Postfix
from support.running import Gpg, Service
from support.tls import Authority
from support.x509 import Issued, authority, person, rsa_key

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: Postfix needs root")

CA = authority()
SENDER = "keys@here.example"
PEOPLE = ("alice", "carol", "dora", "erin", "fred", "gina", "hugo")
LINK = re.compile(r"https://optin\.here\.example/(confirm|withdraw)/([A-Za-z0-9_-]{43})")


@dataclass
class World:
    """A service, the mail server that it sends by, and the owners' key rings."""

    service: Service
    postfix: Postfix
    gpg: Gpg
    issued: Authority
    folder: Path

    def mail_key(self, address: str) -> str:
        """A mail with a new key of this sender's, which nobody authenticates, is harvested. Its fingerprint."""
        fingerprint = self.key(address)
        mail = crlf(head(address) + multipart(text(), attached_key(self.exported(address))))
        self.harvest(mail)
        return fingerprint

    def key(self, address: str) -> str:
        before = self.gpg.fingerprints()
        self.gpg.run("--passphrase", "", "--quick-generate-key", f"<{address}>", "future-default")
        (made,) = self.gpg.fingerprints() - before
        return made

    def exported(self, address: str) -> bytes:
        return self.gpg.run("--armor", "--export", address).stdout.encode()

    def harvest(self, mail: bytes) -> None:
        (self.folder / "mail.eml").write_bytes(mail)
        self.service.cli("harvest", str(self.folder / "mail.eml"))

    def received(self, address: str) -> bytes:
        (mail,) = self.postfix.wait(1, address.partition("@")[0])
        return mail

    def links(self, address: str, decrypt: Callable[[bytes], str] | None = None) -> tuple[str, str]:
        """The paths of both links, out of the one mail that this owner has received; nothing of them is plain."""
        mail = self.received(address)
        plain = (decrypt or self.by_gpg)(mail)
        found = {kind: f"/{kind}/{token}" for kind, token in LINK.findall(plain)}
        assert found.keys() == {"confirm", "withdraw"}, plain
        for path in found.values():
            assert path.rpartition("/")[2].encode() not in mail
        return found["confirm"], found["withdraw"]

    def by_gpg(self, mail: bytes) -> str:
        parts = email.message_from_bytes(mail).get_payload()
        assert isinstance(parts, list)
        (self.folder / "mail.asc").write_bytes(parts[1].get_payload(decode=True))  # type: ignore[union-attr, arg-type]
        return self.gpg.run("--decrypt", str(self.folder / "mail.asc")).stdout

    def ask(self, method: str, path: str) -> tuple[int, str]:
        """A browser, or a program that follows links: status and page."""
        context = ssl.create_default_context(cafile=str(self.issued.ca_file))
        connection = http.client.HTTPSConnection("127.0.0.1", self.service.port("invite"), context=context, timeout=20)
        try:
            connection.request(method, path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()
        finally:
            connection.close()

    def look_up(self, address: str) -> int:
        """What encryption clients get in the default view."""
        connection = http.client.HTTPConnection("127.0.0.1", self.service.port("hkp"), timeout=20)
        connection.request("GET", f"/pks/lookup?op=get&options=mr&search={address}")
        status = connection.getresponse().status
        connection.close()
        return status

    def invitations(self, address: str) -> list[dict[str, Any]]:
        said = json.loads(self.service.cli("invitations", "--address", address, "--json"))
        return list(said["invitations"])

    def stage(self, address: str) -> str:
        return str(self.invitations(address)[0]["stage"])

    def come_to(self, address: str, stage: str) -> dict[str, Any]:
        until = time.monotonic() + 30
        while not (found := self.invitations(address)) or found[0]["stage"] != stage:
            assert time.monotonic() < until, (found, self.postfix.log.read_text()[-3000:], self.service.log[-20:])
            time.sleep(0.2)
        return found[0]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("owners")
    issued = Authority(folder / "tls")
    relay, pages = issued.issue(), issued.issue()
    for name, file in (("chain.pem", pages.certificate), ("key.pem", pages.key)):
        (folder / name).write_bytes(file.read_bytes())
    (folder / "ca.pem").write_bytes(CA.pem)
    lmtp = free_port()
    settings = {
        "smtpd_tls_cert_file": str(relay.certificate),
        "smtpd_tls_key_file": str(relay.key),
        "smtpd_tls_security_level": "may",
        "smtpd_reject_unlisted_recipient": "no",
        "virtual_mailbox_domains": "here.example partner.example",
        "virtual_mailbox_maps": "inline:{" + ", ".join(f"{one}@partner.example={one}/" for one in PEOPLE) + "}",
        "transport_maps": "inline:{{gone.example=error:5.1.1 nobody of this name},"
        f" {{{SENDER}=lmtp:inet:127.0.0.1:{lmtp}}}}}",
    }
    with Postfix(free_port(), lmtp, settings=settings) as postfix, Gpg(folder / "gpg") as gpg:
        options = {
            "invite.listen": '"tls:127.0.0.1:0"',
            "invite.tls_certificate": f'"{folder / "chain.pem"}"',
            "invite.tls_key_file": f'"{folder / "key.pem"}"',
            "invite.public_url": '"https://optin.here.example"',
            "invite.smtp": f'"smtp://127.0.0.1:{postfix.ports["plain"][1]}"',
            "invite.smtp_ca_file": f'"{issued.ca_file}"',
            "invite.sender": f'"{SENDER}"',
            "invite.automatic": "true",
            "mailflow.milter_listen": f'"127.0.0.1:{postfix.milter}"',
            "mailflow.lmtp_listen": f'"127.0.0.1:{lmtp}"',
            "mailflow.inbound_addresses": f'["{INBOUND}"]',
            "mailflow.authserv_id": '"mx.here.example"',
            "policy.internal_domains": '["here.example"]',
            "smime.trust_anchors": f'"{folder / "ca.pem"}"',
        }
        with Service(folder, settings=options) as running:
            yield World(running, postfix, gpg, issued, folder)


@pytest.fixture(autouse=True)
def nothing_delivered(world: World) -> None:
    world.postfix.empty()


def by_openssl(world: World, owner: Issued) -> Callable[[bytes], str]:
    def decrypt(mail: bytes) -> str:
        for name, octets in (("owner.pem", owner.pem), ("owner.key", owner.key_pem), ("mail.eml", mail)):
            (world.folder / name).write_bytes(octets)
        keys = ("-recip", str(world.folder / "owner.pem"), "-inkey", str(world.folder / "owner.key"))
        return openssl("cms", "-decrypt", "-in", str(world.folder / "mail.eml"), *keys).decode()

    return decrypt


def test_a_gpg_owner_confirms_and_withdraws(world: World) -> None:
    address = "alice@partner.example"
    fingerprint = world.mail_key(address)
    assert world.look_up(address) == 404
    assert f"invited {address} about {fingerprint}" in world.service.cli("invite", address)
    assert b"STARTTLS" not in world.received(address)
    assert "with ESMTPS" in world.received(address).decode(), "over TLS"
    confirm, withdraw = world.links(address)

    for _ in range(3):  # a mail scanner follows every link
        for path in (confirm, withdraw):
            for method in ("GET", "HEAD"):
                assert world.ask(method, path)[0] == 200
    assert (world.stage(address), world.look_up(address)) == ("sent", 404)

    status, page = world.ask("POST", confirm)
    assert status == 200
    assert withdraw in page
    assert world.look_up(address) == 200
    row = json.loads(world.service.cli("cache", "show", fingerprint, "--json"))
    assert [entry["approved"] for entry in row["entries"]] == [True]
    (kept,) = world.invitations(address)
    assert (kept["stage"], kept["fingerprint"]) == ("confirmed", fingerprint)
    assert abs(kept["confirmed_at"] - time.time()) < 60

    assert world.ask("POST", confirm)[0] == 410, "it works once"
    assert world.ask("GET", withdraw)[0] == 200
    assert world.look_up(address) == 200
    assert world.ask("POST", withdraw)[0] == 200
    assert world.look_up(address) == 404
    assert "not cached" in world.service.cli("cache", "show", fingerprint, code=None)
    assert world.stage(address) == "withdrawn"
    assert world.invitations(address)[0]["confirmed_at"] == kept["confirmed_at"], "on record for good"
    assert world.ask("POST", withdraw)[0] == 410
    assert world.ask("POST", confirm)[0] == 410
    acts = json.loads(world.service.cli("audit", "--json"))["acts"]
    assert [act["act"] for act in acts if act["who"] == "the owner"] == ["withdraw consent", "consent"]
    written = "\n".join(world.service.log)
    assert not any(secret.rpartition("/")[2] in written for secret in (confirm, withdraw))
    assert address not in written, "log.identities is off"


def test_an_smime_owner_confirms(world: World) -> None:
    address = "carol@partner.example"
    owner = person(address, authority("Nobody's CA"), key=rsa_key(2048, 3))
    world.harvest(crlf(signed(text(), owner, sender=address)))
    store = f"/certificates/search.cgi?uri={address}"

    def stored() -> int:
        connection = http.client.HTTPConnection("127.0.0.1", world.service.port("hkp"), timeout=20)
        connection.request("GET", store)
        status = connection.getresponse().status
        connection.close()
        return status

    assert stored() == 404
    world.service.cli("invite", address)
    confirm, withdraw = world.links(address, by_openssl(world, owner))
    assert world.ask("GET", confirm)[0] == 200
    assert stored() == 404
    assert world.ask("POST", confirm)[0] == 200
    assert stored() == 200
    assert world.ask("POST", withdraw)[0] == 200
    assert stored() == 404


def test_a_key_that_is_revoked_meanwhile_is_not_confirmed(world: World) -> None:
    address = "dora@partner.example"
    fingerprint = world.mail_key(address)
    world.service.cli("invite", address)
    confirm, _ = world.links(address)
    revocation = world.gpg.home / "openpgp-revocs.d" / f"{fingerprint}.rev"
    (world.folder / "revocation.asc").write_text(revocation.read_text().replace(":-----BEGIN", "-----BEGIN"))
    world.gpg.run("--import", str(world.folder / "revocation.asc"))
    world.harvest(crlf(head(address) + multipart(text(), attached_key(world.exported(address)))))
    for method in ("GET", "POST"):
        status, page = world.ask(method, confirm)
        assert status == 410
        assert "revoked" in page
    assert world.stage(address) == "sent"


def test_what_was_deleted_or_blocked_is_not_confirmed(world: World) -> None:
    address = "erin@partner.example"
    fingerprint = world.mail_key(address)
    world.service.cli("invite", address)
    confirm, _ = world.links(address)
    world.service.cli("cache", "block", fingerprint)
    assert world.ask("POST", confirm)[0] == 410
    world.service.cli("cache", "unblock", fingerprint)
    world.service.cli("cache", "delete", fingerprint)
    status, page = world.ask("POST", confirm)
    assert status == 410
    assert "not known here any more" in page
    assert world.look_up(address) == 404


def test_an_invitation_that_comes_back_is_shown_as_such(world: World) -> None:
    address = "ghost@gone.example"
    world.mail_key(address)
    world.service.cli("invite", address)
    row = world.come_to(address, "bounced")
    assert row["note"].startswith("5.1.1 ")
    assert "nobody of this name" in row["note"]


def test_new_certificates_of_authenticated_senders_are_invited_by_themselves(world: World) -> None:
    passed = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=partner.example"}
    address, other = "fred@partner.example", "gina@partner.example"
    for one in (address, other):
        world.key(one)
    for sender, proof in ((other, {}), (address, passed), (address, passed)):
        mail = crlf(head(sender, **proof) + multipart(text(), attached_key(world.exported(sender))))
        world.postfix.send("inbound", mail, sender, address)
    row = world.come_to(address, "sent")
    assert row["made_by"] == "automatic"
    mails = world.postfix.wait(4, "fred")
    invitation = next(mail for mail in mails if b".invitation@here.example>" in mail)
    assert LINK.search(world.by_gpg(invitation))
    assert (len(world.invitations(address)), world.invitations(other)) == (1, [])
    assert world.look_up(address) == 404, "invited is not approved"


def test_nobody_internal_is_invited(world: World) -> None:
    world.key("bob@here.example")
    (world.folder / "bob.asc").write_bytes(world.exported("bob@here.example"))
    world.service.cli("cache", "import", str(world.folder / "bob.asc"))
    assert "nobody there is invited" in world.service.cli("invite", "bob@here.example", code=1)
    assert world.invitations("bob@here.example") == []


def test_its_listener_shows_nothing_else_and_takes_no_more_than_a_button_sends(world: World) -> None:
    for path in ("/pks/lookup?op=stats", "/healthz", "/readyz", "/metrics", "/api/v1/cache", "/confirm/x", "/sign-in"):
        status, page = world.ask("GET", path)
        assert status == 404, path
        assert "Nothing found" in page
    assert "keys@here.example" in world.ask("GET", "/")[1]
    context = ssl.create_default_context(cafile=str(world.issued.ca_file))
    with (
        socket.create_connection(("127.0.0.1", world.service.port("invite")), 20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped,
    ):
        wrapped.sendall(b"POST /confirm/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 1000)
        assert wrapped.recv(12) == b"HTTP/1.1 404"
        wrapped.settimeout(20)
        try:
            while wrapped.recv(65536):
                pass
        except OSError:
            pass


def test_another_tls_certificate_is_read_by_a_reload(world: World) -> None:
    def served() -> str:
        return ssl.get_server_certificate(("127.0.0.1", world.service.port("invite")))

    before, after = served(), world.issued.issue()
    for name, file in (("chain.pem", after.certificate), ("key.pem", after.key)):
        (world.folder / name).write_bytes(file.read_bytes())
    world.service.cli("reload")
    assert served() != before
    assert world.ask("GET", "/")[0] == 200


def test_a_consent_survives_a_restart(world: World) -> None:
    address = "hugo@partner.example"
    world.mail_key(address)
    world.service.cli("invite", address)
    confirm, _ = world.links(address)
    assert world.ask("POST", confirm)[0] == 200
    world.service.stop()
    world.service.start()
    assert world.look_up(address) == 200
    assert world.ask("POST", confirm)[0] == 410
