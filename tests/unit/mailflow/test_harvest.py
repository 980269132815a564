"""What one mail gives, and the reason when it gives nothing: every rule of direction, every forgery."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyserver.mailflow.harvest import look
from keyserver.mailflow.values import Envelope, Mail, Rules, Seen, Way, Why
from keyserver.model import Kind
from keyserver.policy import with_subdomains
from keyserver.smime.reading import read
from support.mails import attached_key, autocrypt, crlf, head, multipart, openssl, signed, text
from support.openpgp import armored, make_certificate
from support.x509 import BEGINS, YEAR, Issued, authority, person, rsa_key

NOW = BEGINS + YEAR
CA = authority()
ALICE = person("alice@partner.example", CA)
EVE = person("eve@evil.example", CA, key=rsa_key(2048, 1))
KEY = make_certificate(["Alice <alice@partner.example>"])
HELLO = text()
RULES = Rules(internal_domains=with_subdomains(["here.example"]))
MILTER = Envelope(Way.MILTER)


def seen(mail: bytes, envelope: Envelope = MILTER, rules: Rules = RULES) -> Seen:
    return look(Mail(envelope, mail), rules, NOW)


def whys(found: Seen) -> set[Why]:
    return {remark.why for remark in found.remarks}


def fingerprints(found: Seen) -> list[str]:
    return [c.certificate.fingerprint for c in found.candidates if c.certificate is not None]


def from_alice(signer: Issued = ALICE, *options: str, content: bytes = HELLO, **more: str) -> bytes:
    return signed(content, signer, *options, sender="Alice <alice@partner.example>", **more)


# Direction


@pytest.mark.parametrize(
    ("envelope", "rules", "inbound", "rule"),
    [
        ({}, {}, True, ""),
        ({"local": "10.0.0.1"}, {"inbound": ["10.0.0.1"]}, True, "inbound_addresses"),
        ({"local": "IPv6:2001:db8::1"}, {"inbound": ["2001:db8::1"]}, True, "inbound_addresses"),
        ({"local": "10.0.0.2"}, {"inbound": ["10.0.0.1"]}, False, "inbound_addresses"),
        ({"local": "10.0.0.1", "user": "bob", "client": "10.9.9.9"},
         {"inbound": ["10.0.0.1"], "outbound": ["10.9.0.0/16"]}, True, "inbound_addresses"),
        ({"user": "bob"}, {"inbound": ["10.0.0.1"]}, False, "authenticated"),
        ({"client": "10.9.9.9"}, {"outbound": ["10.9.0.0/16"]}, False, "outbound_networks"),
        ({"client": "::ffff:10.9.9.9"}, {"outbound": ["10.9.0.0/16"]}, False, "outbound_networks"),
        ({"client": "10.8.9.9"}, {"outbound": ["10.9.0.0/16"]}, True, ""),
        ({"sender": "x@here.example"}, {}, False, "internal_domains"),
        ({"sender": "x@sub.HERE.example"}, {}, False, "internal_domains"),
        ({"sender": "x@here.example", "local": "10.0.0.1"}, {"inbound": ["10.0.0.1"]}, False, "internal_domains"),
        ({"sender": ""}, {}, True, ""),
        ({"local": "0.0.0.0", "client": "unknown"}, {"inbound": ["10.0.0.1"]}, True, ""),
    ],
)  # fmt: skip
def test_direction_and_the_rule_that_decided(
    envelope: dict[str, str], rules: dict[str, list[str]], inbound: bool, rule: str
) -> None:
    asked = replace(
        RULES,
        inbound_addresses=frozenset(ipaddress.ip_address(a) for a in rules.get("inbound", [])),
        outbound_networks=tuple(ipaddress.ip_network(n) for n in rules.get("outbound", [])),
    )
    found = seen(from_alice(), replace(MILTER, **envelope), asked)
    assert found.direction is not None
    assert (found.direction.inbound, found.direction.rule) == (inbound, rule)
    assert bool(found.candidates) is inbound
    if not inbound:
        assert found.remarks[0].text == found.direction.text


def test_our_own_domain_in_the_header_is_outbound_or_forged() -> None:
    ours = person("boss@here.example", CA)
    found = seen(signed(HELLO, ours, sender="boss@mail.here.example"))
    assert whys(found) == {Why.INTERNAL}
    assert not found.candidates


def test_faq_3_a_server_in_the_mail_flow_caches_nothing_of_outbound_mail() -> None:
    """FAQ: "my server is in the mail flow but caches nothing": only inbound mail is harvested; it says so."""
    found = seen(from_alice(), replace(MILTER, user="colleague"))
    assert not found.candidates
    assert "authenticated itself" in found.remarks[0].text


def test_faq_4_one_relay_for_both_directions_is_told_apart_by_address() -> None:
    """FAQ: the same relay delivers and sends; two addresses of ours tell the directions apart."""
    rules = replace(
        RULES,
        inbound_addresses=frozenset({ipaddress.ip_address("10.0.0.1")}),
        outbound_networks=(ipaddress.ip_network("10.5.0.0/16"),),
    )
    relay = replace(MILTER, client="10.5.0.5")
    assert seen(from_alice(), replace(relay, local="10.0.0.1"), rules).candidates
    outbound = seen(from_alice(), replace(relay, local="10.0.0.2"), rules)
    assert not outbound.candidates
    assert "10.0.0.2, which is not in mailflow.inbound_addresses" in outbound.remarks[0].text
    misjudged = seen(from_alice(), relay, replace(rules, inbound_addresses=frozenset()))
    assert "outbound_networks" in misjudged.remarks[0].text


# S/MIME


@pytest.mark.parametrize("options", [(), ("-nodetach",), ("-keyopt", "rsa_padding_mode:pss"), ("-noattr",)])
@pytest.mark.parametrize("wire", [crlf, bytes])
def test_the_signer_s_certificate(options: tuple[str, ...], wire: object) -> None:
    found = seen(wire(from_alice(ALICE, *options)))  # type: ignore[operator]
    assert fingerprints(found) == [ALICE.fingerprint]
    assert not found.remarks
    assert found.message_id == "<1@mail.example>"


def test_signed_inside_signed_and_inside_a_list_s_footer() -> None:
    inner = signed(HELLO, ALICE, "-nodetach")
    assert fingerprints(seen(from_alice(ALICE, "-nodetach", content=inner))) == [ALICE.fingerprint]
    listed = head("alice@partner.example") + multipart(signed(HELLO, ALICE), text("-- \nthe list\n"))
    assert fingerprints(seen(crlf(listed))) == [ALICE.fingerprint]


def test_a_key_inside_an_opaque_signature() -> None:
    inner = multipart(HELLO, attached_key(KEY))
    found = seen(from_alice(ALICE, "-nodetach", content=inner))
    assert [c.kind for c in found.candidates] == [Kind.X509, Kind.OPENPGP]


def test_a_split_pair_by_subject() -> None:
    sign = person("alice@partner.example", CA, usage="digital_signature")
    encrypt = person("alice@partner.example", CA, key=rsa_key(2048, 2), usage="key_encipherment")
    stranger = person("alice@partner.example", CA, key=rsa_key(2048, 3), subject=EVE.certificate.subject)
    found = seen(signed(HELLO, sign, sender="alice@partner.example", extra=[stranger, encrypt]))
    assert fingerprints(found) == [sign.fingerprint, encrypt.fingerprint]
    alone = seen(signed(HELLO, sign, sender="alice@partner.example"))
    assert fingerprints(alone) == [sign.fingerprint]
    assert "signing only" in alone.remarks[0].text


def test_chain_material_comes_along() -> None:
    middle = authority("Middle", CA)
    alice = person("alice@partner.example", middle)
    found = seen(signed(HELLO, alice, sender="alice@partner.example", extra=[middle, CA]))
    assert set(found.candidates[0].others) == {middle.der, CA.der}


# Forgeries


def test_another_s_certificate_with_one_s_own_from() -> None:
    found = seen(signed(HELLO, EVE, sender="alice@partner.example"))
    assert not found.candidates
    assert whys(found) == {Why.MISMATCH}
    assert "eve@evil.example" not in found.remarks[0].text
    assert "eve@evil.example" in found.remarks[0].detail


@pytest.mark.parametrize("options", [(), ("-noattr",)])
def test_a_signature_over_another_body(options: tuple[str, ...]) -> None:
    found = seen(from_alice(ALICE, *options).replace(b"Hello.", b"Pay me"))
    assert not found.candidates
    assert whys(found) == {Why.INVALID}


def test_a_signature_whose_first_part_s_headers_were_changed() -> None:
    assert whys(seen(from_alice().replace(b"charset=utf-8", b"charset=utf-9"))) == {Why.INVALID}


@pytest.mark.parametrize(
    "sender",
    [
        "alice@partner.example, eve@evil.example",
        "alice@partner.example <eve@evil.example>",
        "<alice@partner.example> <eve@evil.example>",
        "x: alice@partner.example;",
    ],
)
def test_from_with_two_addresses(sender: str) -> None:
    for mail in (signed(HELLO, ALICE, sender=sender), signed(HELLO, EVE, sender=sender)):
        found = seen(mail)
        assert not found.candidates
        assert whys(found) == {Why.NO_SENDER}


def test_two_from_headers() -> None:
    found = seen(b"From: eve@evil.example\n" + from_alice())
    assert whys(found) == {Why.NO_SENDER}


@pytest.mark.parametrize(
    "sender",
    [
        '"alice@partner.example" <eve@evil.example>',
        '"Alice <alice@partner.example>" <eve@evil.example>',
        "=?utf-8?Q?=3Calice=40partner.example=3E?= <eve@evil.example>",
        "(alice@partner.example) eve@evil.example",
        "eve@evil.example (<alice@partner.example>)",
    ],
)
def test_display_name_tricks_name_nobody_else(sender: str) -> None:
    assert seen(signed(HELLO, ALICE, sender=sender)).sender == "eve@evil.example"
    assert whys(seen(signed(HELLO, ALICE, sender=sender))) == {Why.MISMATCH}
    assert fingerprints(seen(signed(HELLO, EVE, sender=sender))) == [EVE.fingerprint]


def test_a_wrapped_message_is_not_its_forwarder_s() -> None:
    inner = b"Content-Type: message/rfc822\n\n" + from_alice()
    found = seen(crlf(head("alice@partner.example") + multipart(HELLO, inner)))
    assert not found.candidates
    assert whys(found) == {Why.NESTED}
    digest = head("alice@partner.example") + multipart(b"\n" + from_alice(), kind="digest")
    assert not seen(digest).candidates


def test_certificates_without_signature() -> None:
    der = openssl("crl2pkcs7", "-nocrl", "-certfile", "/dev/stdin", "-outform", "DER", stdin=ALICE.pem)
    part = attached_key(der, "application/pkcs7-mime; smime-type=certs-only")
    assert whys(seen(head("alice@partner.example") + part)) == {Why.INVALID}


def test_a_signature_beside_content_that_it_does_not_cover() -> None:
    good = signed(HELLO, ALICE)
    message = good.replace(b"multipart/signed", b"multipart/mixed")
    assert not seen(head("alice@partner.example") + message).candidates


# OpenPGP


def test_an_attached_key() -> None:
    mail = head("alice@partner.example") + multipart(HELLO, attached_key(armored(KEY).encode()), attached_key(KEY))
    (candidate,) = seen(crlf(mail)).candidates
    assert (candidate.kind, candidate.how, candidate.octets) == (Kind.OPENPGP, "attached key", KEY)


def test_a_key_in_the_text_of_any_charset_and_encoding() -> None:
    quoted = armored(KEY).replace("=", "=3D")
    for part in (
        text("see below\n\n" + armored(KEY)),
        b"Content-Type: text/plain; charset=x-no-such\nContent-Transfer-Encoding: quoted-printable\n\n"
        + quoted.encode(),
        b'Content-Type: text/html; charset="\xff"\n\n\xff<pre>\n' + armored(KEY).encode() + b"</pre>",
    ):
        (candidate,) = seen(crlf(head("alice@partner.example") + part)).candidates
        assert (candidate.how, candidate.octets) == ("key in the text", KEY)


def test_an_autocrypt_header() -> None:
    for more in ({}, {"prefer_encrypt": "mutual"}, {"_note": "x"}):
        mail = head("alice@partner.example", Autocrypt=autocrypt("alice@partner.example", KEY, **more)) + HELLO
        (candidate,) = seen(crlf(mail)).candidates
        assert (candidate.how, candidate.octets) == ("Autocrypt header", KEY)


@pytest.mark.parametrize(
    "value",
    [
        autocrypt("eve@evil.example", KEY),
        autocrypt("alice@partner.example", KEY, critical="1"),
        autocrypt("alice@partner.example", KEY) + "\nAutocrypt: " + autocrypt("alice@partner.example", KEY),
    ],
)
def test_autocrypt_headers_that_are_ignored(value: str) -> None:
    found = seen(head("alice@partner.example", Autocrypt=value) + HELLO)
    assert not found.candidates
    assert whys(found) == {Why.MISMATCH}


def test_private_keys_and_broken_keys_are_said_so() -> None:
    private = armored(KEY).replace("PUBLIC", "PRIVATE")
    mail = head("alice@partner.example") + multipart(attached_key(private.encode()))
    assert "private key" in seen(mail).remarks[0].text
    broken = text("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n")
    assert whys(seen(head("alice@partner.example") + broken)) == {Why.UNREADABLE}


def test_a_damaged_key_does_not_cost_the_whole_one_beside_it() -> None:
    cut = armored(make_certificate(["Bob <bob@partner.example>"], seed="bob"))[:-60] + "\n"
    for part in (
        text(cut + "and here it is whole:\n" + armored(KEY)),
        text(armored(KEY) + cut),
        multipart(attached_key((cut + armored(KEY)).encode())),
    ):
        found = seen(head("alice@partner.example") + part)
        assert [c.octets for c in found.candidates] == [KEY]
        assert whys(found) == {Why.UNREADABLE}


# What cannot be read


def test_encrypted_mail_is_said_to_be() -> None:
    pgp = multipart(
        b"Content-Type: application/pgp-encrypted\n\nVersion: 1\n",
        b"Content-Type: application/octet-stream\n\n-----BEGIN PGP MESSAGE-----\n",
        kind="encrypted",
    )
    inline = text("-----BEGIN PGP MESSAGE-----\n\nhQ==\n-----END PGP MESSAGE-----\n")
    for content in (pgp, inline):
        assert whys(seen(head("alice@partner.example") + content)) == {Why.ENCRYPTED}


def test_enveloped_data_is_said_to_be_encrypted(tmp_path: Path) -> None:
    (tmp_path / "alice.pem").write_bytes(ALICE.pem)
    made = openssl("cms", "-encrypt", str(tmp_path / "alice.pem"), stdin=HELLO)
    assert whys(seen(head("alice@partner.example") + made)) == {Why.ENCRYPTED}


def test_nothing_in_it() -> None:
    found = seen(head("alice@partner.example") + HELLO)
    assert (found.candidates, found.remarks) == ((), ())


def test_too_large() -> None:
    mail = from_alice() + b"x" * (16 << 20)
    assert Why.TOO_LARGE in whys(seen(mail))
    cut = look(Mail(MILTER, b"", cut=True), RULES, NOW)
    assert "larger than 16 MiB" in cut.remarks[0].text


# Authentication

AUTHRES = {"authserv_id": "mx.here.example"}


def test_an_authenticated_sender() -> None:
    rules = replace(RULES, **AUTHRES)  # type: ignore[arg-type]
    good = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=partner.example"}
    assert seen(from_alice(**good), rules=rules).authenticated
    assert not seen(from_alice(**good)).authenticated, "without authserv_id nobody is"
    assert not seen(from_alice(), rules=rules).authenticated
    forged = b"Authentication-Results: mx.here.example; dmarc=fail header.from=partner.example\n" + from_alice(**good)
    assert not seen(forged, rules=rules).authenticated


def test_require_authenticated_sender_drops_the_rest() -> None:
    rules = replace(RULES, require_authenticated_sender=True, **AUTHRES)  # type: ignore[arg-type]
    found = seen(from_alice(), rules=rules)
    assert whys(found) == {Why.UNAUTHENTICATED}
    good = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=partner.example"}
    assert seen(from_alice(**good), rules=rules).candidates


def test_an_exchange_journal_report_counts_as_what_it_wraps() -> None:
    rules = replace(RULES, **AUTHRES)  # type: ignore[arg-type]
    good = {"Authentication_Results": "mx.here.example; dmarc=pass header.from=partner.example"}
    wrapped = b"Content-Type: message/rfc822\n\n" + from_alice(**good)
    report = head("journal@here.example", X_MS_Journal_Report="") + multipart(text("Sender: x\n"), wrapped)
    found = seen(crlf(report), Envelope(Way.LMTP), rules)
    assert (found.sender, fingerprints(found)) == ("alice@partner.example", [ALICE.fingerprint])
    assert not found.authenticated, "whoever wrote the inner headers wrote this one, too"
    assert whys(seen(crlf(report), MILTER, rules)) == {Why.INTERNAL}


def test_when_a_file_s_mail_was_received() -> None:
    received = (
        b"Received: from a by b;\n Thu, 01 Feb 2024 12:00:00 +0000\nReceived: x; Thu, 01 Feb 2001 12:00:00 +0000\n"
    )
    assert seen(received + from_alice(), Envelope(Way.FILE)).dated == 1706788800
    assert seen(from_alice(), Envelope(Way.FILE)).dated is None
    assert seen(received + from_alice()).dated is None, "a mail that comes in now comes in now"
    assert seen(b"Received: x; nonsense\n" + from_alice(), Envelope(Way.FILE)).dated is None


GOOD = crlf(from_alice(extra=[CA], Autocrypt=autocrypt("alice@partner.example", KEY)))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_mutated_mail_never_raises(data: st.DataObject) -> None:
    octets = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(octets) - 1))
        if data.draw(st.booleans()):
            octets[at] = data.draw(st.integers(0, 255))
        else:
            del octets[at : at + data.draw(st.integers(1, 200))]
            octets += b" "
    found = seen(bytes(octets))
    keys = [read(c.certificate.octets).public_key() for c in found.candidates if c.certificate is not None]
    assert all(key == ALICE.key.public_key() for key in keys), "whoever signed holds the key, whatever else was changed"
