"""Sections of mail: what inbound mail shows, and what owners are asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from keyserver.config.fields import Certificates, Networks, OneListener, PlainListener, PrivateKey, Switch
from keyserver.config.kinds import Address, Choice, Duration, File, Many, Text, Whole, read_address
from keyserver.config.section import Restart, Section, key

Addresses = Annotated[tuple[Address, ...], Many('IP addresses such as "192.0.2.25"', read_address)]
_HOST_AND_PORT = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_LOOPBACK = r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?"
_PAGES = rf"(?:(?:https://{_HOST_AND_PORT}|http://{_LOOPBACK})/?)?"
_RELAY = rf"(?:smtps?://{_HOST_AND_PORT}/?)?"


class MailflowSection(Section):
    """Inbound mail is read for keys and certificates, never changed or delayed."""

    milter_listen: PlainListener = key("", 'milter listener, e.g. "127.0.0.1:8891"', restart=Restart.ALWAYS)
    lmtp_listen: PlainListener = key(
        "", 'LMTP listener, e.g. "127.0.0.1:8892": a sink, mail is discarded once read', restart=Restart.ALWAYS
    )
    inbound_addresses: Addresses = key(
        [], "addresses of our mail server whose connections are inbound (empty: judged by the rest)"
    )
    outbound_networks: Networks = key([], "clients in these networks send outbound mail")
    authserv_id: Annotated[str, Text("the name in our own Authentication-Results header", r"\S*", 255)] = key(
        "", "our own Authentication-Results; with it, dmarc=pass counts as an authenticated sender"
    )
    require_authenticated_sender: Switch = key(False, "harvest only mail whose sender is authenticated")
    allowed_clients: Networks = key(
        [], "who may speak to a milter or LMTP listener that is not loopback or a Unix socket"
    )
    hold_changed: Switch = key(
        True, "an address that shows another certificate than before: the new one is held until approved"
    )


class InviteSection(Section):
    """Owners of cached certificates are asked to opt in. Their mail is sent by administrators, or by `automatic`."""

    listen: OneListener = key("", "where owners confirm and withdraw", restart=Restart.ALWAYS)
    public_url: Annotated[
        str, Text("a URL such as https://optin.example.org, without a path (http only for this machine)", _PAGES)
    ] = key("", "under which owners reach that listener; the links in their mail begin with it")
    smtp: Annotated[str, Text('a URL such as "smtp://relay.example:587" or "smtps://relay.example"', _RELAY)] = key(
        "", "relay for invitations: smtp (port 25; StartTLS, see smtp_tls) or smtps (465); empty: nobody is invited"
    )
    smtp_user: Annotated[str, Text("a user name", most=255)] = key("", "who we are there; only said over TLS")
    smtp_password_file: Annotated[Path | None, File("a file with the password")] = key("", "the password to it")
    smtp_tls: Annotated[str, Choice(("required", "offered"))] = key(
        "required", "TLS to the relay, always with a certificate that is good; offered: without where it has none"
    )
    smtp_ca_file: Annotated[Path | None, File("a PEM file with certificate authorities")] = key(
        "", "only these may have signed the relay's TLS certificate; empty: the system's"
    )
    sender: Annotated[str, Text("an address such as keys@example.org, in ASCII", r"[!-~]*", 320)] = key(
        "", "the address that invitations come from; what bounces returns there"
    )
    expires: Annotated[int, Duration("1h", "365d")] = key("14 days", "how long an invitation can be confirmed")
    per_hour: Annotated[int, Whole(0, 1_000_000)] = key(
        60, "invitations at most; to one domain a quarter of that, but at least 5, and to one address one a day"
    )
    automatic: Switch = key(False, "invite the owner of what is cached anew and may be approved, by itself")
    trailer_listen: PlainListener = key(
        "", "a milter that adds a line about this to outbound plain-text mail", restart=Restart.ALWAYS
    )
    tls_certificate: Certificates = key("", 'certificate for a "tls:" listener', restart=Restart.SWITCHED)
    tls_key_file: PrivateKey = key("", "private key to it", restart=Restart.SWITCHED)
