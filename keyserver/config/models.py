"""The one declaration of every configuration key: type, bounds, default and meaning.

Reading, `keyserver check`, the environment's names and docs/configuration.md all come from here.
Durations are whole seconds and sizes octets once read; a listener or file that is not set is None.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import PrivateAttr

from keyserver.config.database import ACCEPTED, SQLITE
from keyserver.config.kinds import (
    Address,
    Anchors,
    Choice,
    Duration,
    File,
    Flag,
    Listen,
    Listeners,
    Many,
    Network,
    Often,
    One,
    Size,
    Tables,
    Text,
    Whole,
    Workers,
    read_address,
    read_attribute,
    read_domain,
    read_domain_pattern,
    read_fingerprint,
    read_host,
    read_kind,
    read_minimum,
    read_network,
)
from keyserver.config.listener import Listener, Listening
from keyserver.config.outlook import OutlookSection
from keyserver.config.section import Restart, Section, key, required
from keyserver.config.sources import Sources
from keyserver.config.webhook import WEBHOOK, read_webhook
from keyserver.model import Rate

Switch = Annotated[bool, Flag()]
ListenerList = Annotated[tuple[Listener, ...], Listeners()]
_MAP_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_MAP_VALUE = r"(?:[!-z|~]|\{kind\}|\{domain\})(?:(?:[ -z|~]|\{kind\}|\{domain\})*(?:[!-z|~]|\{kind\}|\{domain\}))?"

_REJECT_VALUE = r"(?:[!-z|~]|\{text\})(?:(?:[ -z|~]|\{text\})*(?:[!-z|~]|\{text\}))?"

PlainListener = Annotated[Listener | None, Listen(plain=True)]
OneListener = Annotated[Listener | None, Listen()]
Domains = Annotated[tuple[str, ...], Many("domains such as example.org", read_domain)]
DomainPatterns = Annotated[
    tuple[str, ...], Many("domains such as example.org, or *.example.org for what lies below it", read_domain_pattern)
]
Networks = Annotated[tuple[Network, ...], Many('networks such as "10.0.0.0/8" or "fc00::/7"', read_network)]
Addresses = Annotated[tuple[Address, ...], Many('IP addresses such as "192.0.2.25"', read_address)]
Minimum = Annotated[tuple[str, ...], Many('"chained" and "approved"', read_minimum)]
Attributes = Annotated[tuple[str, ...], Many("LDAP attribute names", read_attribute)]
Certificates = Annotated[Path | None, File("a PEM file with a certificate chain")]
PrivateKey = Annotated[Path | None, File("a PEM file with the certificate's unencrypted private key")]
Title = Annotated[str, Text("a name of 1 to 64 printable characters, no slash", r"[^/]*[^/\s][^/]*", 64)]
Ttl = Annotated[int, Duration("1h", "999d")]

_BASE = r"(?:[A-Za-z0-9.-]+=[^,=+<>;\"\\]+(?:,\s*[A-Za-z0-9.-]+=[^,=+<>;\"\\]+)*)?"


_ORIGIN = r"(?:https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?/?)?"
_HOST_AND_PORT = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
_LOOPBACK = r"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?"
_PAGES = rf"(?:(?:https://{_HOST_AND_PORT}|http://{_LOOPBACK})/?)?"
_RELAY = rf"(?:smtps?://{_HOST_AND_PORT}/?)?"


class ServerSection(Section):
    """The process, and what it keeps for itself."""

    workers: Annotated[int | str, Workers()] = key(
        0,
        'front processes beside one core; 0: one process for all; "auto": processors less one',
        restart=Restart.ALWAYS,
    )
    state_dir: Annotated[str, Text('a directory that only we may write to; "" for the database\'s own')] = key(
        "",
        "where token, secret, lock and command socket are; empty: beside an SQLite database, else var",
        restart=Restart.ALWAYS,
    )
    node: Annotated[str, Text("a host name", r"[A-Za-z0-9.-]*", 253)] = key(
        "", "this machine's name in a cluster; empty: the host's name", restart=Restart.ALWAYS
    )
    max_detached: Annotated[int, Duration("0", "1h")] = key(
        "60s",
        "how long answers in memory are still given without PostgreSQL; 0 where a block must hold at once",
    )


class HkpSection(Section):
    """The HTTP face: HKP, and the other HTTP protocols beside it."""

    listen: ListenerList = key(["127.0.0.1:11371"], "where it listens", restart=Restart.ALWAYS)
    tls_certificate: Certificates = key("", 'certificate for "tls:" listeners', restart=Restart.SWITCHED)
    tls_key_file: PrivateKey = key("", 'private key for "tls:" listeners', restart=Restart.SWITCHED)
    explain: Switch = key(True, "send X-Cache, X-Key-Source, X-Key-Usable headers (they tell strangers what is cached)")


class LdapSection(Section):
    """The LDAP face."""

    listen: ListenerList = key(["127.0.0.1:1389"], "where it listens", restart=Restart.ALWAYS)
    base: Annotated[str, Text("a distinguished name such as dc=keyserver,dc=local", _BASE)] = key(
        "dc=keyserver,dc=local", "the DN below which certificates stand", restart=Restart.ALWAYS
    )
    bind_dn: Annotated[str, Text("a distinguished name such as cn=gateway,dc=example,dc=org, or nothing")] = key(
        "",
        "clients that must bind: this name and password succeed over TLS or from loopback; others get 49",
        restart=Restart.ALWAYS,
    )
    bind_password_file: Annotated[Path | None, File("a file with the password")] = key(
        "", "the password to it", restart=Restart.ALWAYS
    )
    tls_certificate: Certificates = key(
        "", 'set: StartTLS is offered, and "tls:" listeners work', restart=Restart.SWITCHED
    )
    tls_key_file: PrivateKey = key("", "private key to it", restart=Restart.SWITCHED)


class AdminSection(Section):
    """Administration: API, metrics, web page. Loopback unless you say otherwise."""

    listen: OneListener = key("127.0.0.1:8371", "where it listens", restart=Restart.ALWAYS)
    tls_certificate: Certificates = key("", 'certificate for a "tls:" listener', restart=Restart.SWITCHED)
    tls_key_file: PrivateKey = key("", 'private key for a "tls:" listener', restart=Restart.SWITCHED)
    token_file: Annotated[Path | None, File("a file with the bearer token", exists=False)] = key(
        "",
        "file with the bearer token; empty: made on first start in the state directory, mode 0600",
        restart=Restart.ALWAYS,
    )
    hosts: Annotated[tuple[str, ...], Many("host names and IP addresses", read_host)] = key(
        [], "names under which the listener is reached, beside localhost and its own addresses", restart=Restart.ALWAYS
    )
    public_url: Annotated[str, Text("a URL such as https://keys.example.org, without a path", _ORIGIN)] = key(
        "",
        "where browsers find the page, when a proxy stands between; with https the proxy has the TLS",
        restart=Restart.ALWAYS,
    )
    viewer_identities: Switch = key(
        True, "may viewers see addresses and names? false: hashes and domains", restart=Restart.ALWAYS
    )


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


class CacheSection(Section):
    """The key cache and the time limits of a lookup."""

    database: Annotated[str, Text(ACCEPTED)] = key(
        "sqlite:///var/keyserver.db",
        "where the cache lives. Three slashes: below the working directory, four: absolute; the file's mode is 0600. "
        "Or an existing, empty PostgreSQL database",
        restart=Restart.ALWAYS,
    )
    ttl: Ttl = key("1 day", "how long a keyserver-sourced entry may answer (mailflow-sourced: 180 days, fixed)")
    database_password_file: Annotated[Path | None, File("a file with the password")] = key(
        "", "PostgreSQL; the URL itself holds no password", restart=Restart.ALWAYS
    )
    memory: Annotated[int, Size("0", "1 TiB")] = key(
        "256 MiB",
        "memory for rendered hot answers, all faces and views together; the least recently used leaves",
        restart=Restart.ALWAYS,
    )
    max_size: Annotated[int, Size("1 KiB", "1024 TiB")] = key(
        "10 GiB", "size of the database above which new finds are answered but not cached, and /readyz says so"
    )
    negative_ttl: Annotated[int, Duration("1s", "1d")] = key(
        "15 minutes", "how long an upstream's word that it has nothing is believed"
    )
    deadline: Annotated[int, Duration("1s", "5m")] = key(
        "5s", "a lookup answers by then; the search may go on behind it, so that a retry hits"
    )
    serve_stale: Annotated[int, Duration("0", "30d")] = key(
        "0", "how long past its ttl an entry may answer while every upstream fails"
    )
    prefetch: Switch = key(True, "what was asked for within its ttl is searched again shortly before it expires")
    purge_interval: Annotated[int, Duration("1s", "1d")] = key("15 minutes", "how often expired entries are removed")

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(self.database.removeprefix(SQLITE)) if self.database.startswith(SQLITE) else None


class PolicySection(Section):
    """What may be asked and answered."""

    internal_domains: Domains = key(
        [],
        "our own domains, with all below them: never told to an upstream that does not list them; "
        "mail from them is never harvested",
    )
    answer_mailflow: Switch = key(False, "may mailflow-sourced entries be handed to encryption clients?")
    subaddress: Annotated[str, Text('"+", or "" for none', r"[+]?")] = key(
        "", "after a finished absence of alice+tag@, alice@ is asked for, in subaddress_domains"
    )
    subaddress_domains: Domains = key([], "whose mail servers deliver alice+tag@ to alice@")
    domain_authority: Switch = key(
        False,
        "for an address without a certificate, that of domain-confidentiality-authority@ its domain (RFC 3183) counts, "
        "from upstreams that list the domain",
    )
    revocation_interval: Annotated[int, Duration("1h", "30d")] = key(
        "1 day",
        "how often local and mailflow OpenPGP certificates are asked about again, for revocations and renewals alone",
    )
    on_change: Annotated[str, Choice(("report", "hold"))] = key(
        "report",
        "another certificate than before would answer for an address: it does, and the history says so; or hold: it "
        "waits for approval, and the one before it answers on",
    )
    text_search: Annotated[str, Choice(("off", "cache", "upstream"))] = key(
        "off", "free-text searches: refused, answered from what is cached, or asked of upstreams too"
    )
    max_certificate_size: Annotated[int, Size("1 KiB", "16 MiB")] = key("1 MiB", "of a certificate, after cleaning")


class LimitsSection(Section):
    """What one client may use, and all of them together."""

    connections_per_client: Annotated[int, Whole(1, 100_000)] = key(
        64, "connections per listener and client address; nobody holds more than half of a listener's connections"
    )
    misses_per_minute: Annotated[int, Whole(1, 1_000_000)] = key(
        600, "searches that one client network (/24, /64) may start; hits are never limited"
    )
    proxies: Networks = key(
        [],
        "networks of our proxies, which say who their clients are; a Unix socket's peer is one where any are named. "
        "`proxy:` listeners take connections from them only",
    )
    proxy_header: Annotated[str, Text("the name of a header", r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", 64)] = key(
        "x-forwarded-for", "the one header that they set: x-forwarded-for, forwarded (RFC 7239), x-real-ip or another"
    )
    trusted: Networks = key(
        ["127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"],
        "left alone by the two limits above: our own gateways",
    )
    searches: Annotated[int, Whole(1, 100_000)] = key(1000, "searches under way at once")


class CrlSection(Section):
    """Revocation lists of authorities: certificates on one are not used. A URL in a certificate is never followed."""

    issuer_file: Annotated[Path | None, File("a PEM or DER file with the certificate of one authority")] = required(
        "who signs the list; certificates that its key has signed are looked up in it"
    )
    url: Annotated[str, Text("a URL such as http://host/ca.crl or ldap://host/dn", r"\S+", 2000)] = required(
        "where the list is: http, https, ldap or ldaps (the attribute certificateRevocationList;binary of the entry, "
        "another one behind `?`)"
    )
    stale: Annotated[str, Choice(("ignore", "fatal"))] = key(
        "ignore", "no list yet, or its end (nextUpdate) is over; fatal: then no certificate of the authority is used"
    )

    @property
    def name(self) -> str:
        """What tells it from others."""
        return self.url


class SmimeSection(Section):
    """How X.509 certificates are judged."""

    trust_anchors: Annotated[str, Anchors()] = key("system", "which roots a chain may end in")
    require_chain: Switch = key(
        False, "true: a certificate without a good chain is not answered unless approved or local"
    )
    crl: Annotated[tuple[CrlSection, ...], Tables()] = key([], "revocation lists; never a URL from a certificate")


class LogSection(Section):
    """What is logged, and how."""

    level: Annotated[str, Choice(("debug", "info", "warning", "error"))] = key("info", "the least that is logged")
    format: Annotated[str, Choice(("auto", "text", "json"))] = key("auto", "auto: text on a terminal, else json")
    identities: Switch = key(False, "true: addresses and key IDs in clear; false: keyed hashes")


class UpstreamSection(Section):
    """One keyserver or directory that is asked. There may be any number of these tables."""

    name: Title = required("its name, in answers, logs and `cache list --upstream`; each only once")
    url: Annotated[str, Text("a URL such as hkps://host, ldap://host/base or wkd:", r"\S.*", 2000)] = required(
        "where it is: hkp (port 11371), hkps, ldap (389), ldaps (636), vks or certs (443); {domain} at the end "
        "of the host is the domain of the address asked for; `wkd:` and `dane:` ask that domain itself"
    )
    priority: Annotated[int | None, Whole(0, 1000, optional=True)] = key(
        "", "lower is asked first; equal ones at the same time. Empty: 10, for wkd 5"
    )
    domains: DomainPatterns = key([], "only addresses of these domains are told and believed; empty: any")
    timeout: Annotated[int, Duration("1s", "5m")] = key("2s", "how long one question may take")
    required: Annotated[bool | None, Flag(optional=True)] = key(
        "",
        "false: when it fails and the others have spoken, the query has not failed. Empty: true, for vks "
        "and dane false",
    )
    rate: Annotated[Rate | None, Often()] = key(
        "",
        'how often it is asked at most, such as "60/min". Empty: no limit; vks: addresses 1/min, the rest 5/s',
    )
    on_change: Annotated[str, Choice(("", "report", "hold"))] = key("", "overrides policy.on_change")
    hkp_version: Annotated[str, Choice(("1", "2", "auto"))] = key(
        "1", "hkp, hkps: the version that is spoken; auto: 2 where the server shows that it speaks it, else 1"
    )
    resolver: Annotated[
        str, Text('a loopback address such as "127.0.0.1", or "tls:ADDRESS#NAME" such as "tls:9.9.9.9#dns.quad9.net"')
    ] = key(
        "",
        "dane: the name server that is asked, and believed when it says that it has checked DNSSEC. Empty: "
        "the system's, where that is on this machine",
    )
    ttl: Annotated[int | None, Duration("1h", "999d", optional=True)] = key("", "overrides cache.ttl")
    proxy: Annotated[str, Text('an HTTP proxy such as "http://proxy.example.org:3128"; "" for none')] = key(
        "", "HTTP proxy for this upstream (hkp, hkps, vks, certs)"
    )
    tls_ca_file: Annotated[Path | None, File("a PEM file with certificate authorities")] = key(
        "", "only these may have signed its TLS certificate; empty: the system's"
    )
    allow_private: Switch = key(
        False,
        "may its {domain} host, its SRV records and its redirects lead to an address that is not global? "
        "(always allowed for addresses and names written here in full)",
    )
    starttls: Switch = key(False, "ldap: go over to TLS before anything is asked")
    bind_dn: Annotated[str, Text("a distinguished name, or nothing for anonymous")] = key(
        "", "LDAP: who we are; only with TLS"
    )
    bind_password_file: Annotated[Path | None, File("a file with the password")] = key("", "LDAP: the password to it")
    filter: Annotated[str, Text('an LDAP filter with {address} in it, such as "(mail={address})"; "" to find out')] = (
        key("", "LDAP: how an address is searched; empty: found out")
    )
    attributes: Attributes = key([], "LDAP: where certificates stand; empty: found out")

    @property
    def scheme(self) -> str:
        """The URL's scheme, lower case."""
        return self.url.partition(":")[0].lower()

    @property
    def template(self) -> bool:
        """Is its host made of the domain asked for?"""
        return "{domain}" in self.url


class ViewSection(Section):
    """Further listeners over the same cache, with a policy of their own. Any number of these tables."""

    name: Title = required("its name, in logs; each only once")
    hkp_listen: ListenerList = key([], "its HTTP listeners", restart=Restart.ALWAYS)
    ldap_listen: ListenerList = key([], "its LDAP listeners", restart=Restart.ALWAYS)
    answer_mailflow: Switch = key(False, "may mailflow-sourced entries be handed out here?")
    usable_only: Switch = key(False, "only what can be encrypted to now")
    wkd_relay: Switch = key(
        False,
        "WKD for other domains too: what is local, came by WKD, or from an upstream that lists the domain",
    )
    domain_certificates: Switch = key(
        False, "answer with the certificate of the domain's gateway where an address has none"
    )
    on_change: Annotated[str, Choice(("", "report", "hold"))] = key("", "overrides policy.on_change")


class VerdictPolicySection(Section):
    """A named question: can mail to this address be encrypted? Without any table there is one, `encrypt`."""

    name: Annotated[str, Text("a name of letters, digits, dot, hyphen and underscore", _MAP_NAME, 64)] = required(
        "its name, also that of its socketmap; each only once"
    )
    kind: Annotated[str, Choice(("openpgp", "smime", "either", "both"))] = key(
        "either", "which certificates there must be"
    )
    view: Title = key("default", "the view whose policy says what may be used")
    minimum: Minimum = key([], "what a certificate must be beside usable: chained (S/MIME only), approved (or local)")
    valid_for: Annotated[int, Duration("0", "365d")] = key("0", "at least so long it must still be valid")
    yes: Annotated[str, Text("printable ASCII, in braces only {kind} and {domain}", _MAP_VALUE, 500)] = key(
        "smtp:[gateway.example]:10025",
        "what the socketmap returns for yes; {domain} is the recipient's domain as an A-label, {kind} what there is: "
        "openpgp, smime or both",
    )
    reject: Annotated[str, Text("printable ASCII, in braces only {text}", _REJECT_VALUE, 500)] = key(
        "error:5.7.1 {text}",
        "what the socketmap returns where a [[domain]] must be encrypted to and cannot; {text} is what that says",
    )
    unknown: Annotated[str, Choice(("tempfail", "notfound"))] = key(
        "tempfail", "what the socketmap returns for unknown: mail waits, or goes as if there were no certificate"
    )


class VerdictSection(Section):
    """Mail servers ask whether a recipient can be encrypted to."""

    listen: OneListener = key("", "HTTP, `GET /verdict?address=…&policy=…`", restart=Restart.ALWAYS)
    socketmap_listen: PlainListener = key("", "Postfix socketmap", restart=Restart.ALWAYS)
    allowed_clients: Networks = key([], "who may ask either, beside this machine")
    tls_certificate: Certificates = key("", 'certificate for a "tls:" listener', restart=Restart.SWITCHED)
    tls_key_file: PrivateKey = key("", "private key to it", restart=Restart.SWITCHED)
    policy: Annotated[tuple[VerdictPolicySection, ...], Tables()] = key([], "named questions")

    @property
    def policies(self) -> tuple[VerdictPolicySection, ...]:
        """The named questions; where the file has none, the one that there always is."""
        return self.policy or (VerdictPolicySection(name="encrypt"),)


class DomainCertificateSection(Section):
    """A partner whose gateway decrypts for all of a domain. Rows of the most specific domain count, one each kind."""

    domain: Annotated[str, One("a domain such as partner.example, or *.partner.example", read_domain_pattern)] = (
        required("whose addresses, where they have no certificate of their own; *. means all below, without itself")
    )
    fingerprint: Annotated[str, One("a fingerprint of 40 or 64 hex digits", read_fingerprint)] = required(
        "the gateway's certificate (X.509: its SHA-256), which must be a local entry: import it"
    )

    @property
    def name(self) -> str:
        """Which one it is."""
        return f"{self.domain} {self.fingerprint}"


class DomainSection(Section):
    """Rules for recipients of one domain. Any number of these tables; the most specific holds."""

    name: Annotated[
        str, One("a domain such as partner.example, or *.partner.example for what lies below it", read_domain_pattern)
    ] = required("the domain; each only once")
    upstreams: Annotated[tuple[str, ...], Many("names of upstreams", str)] = key(
        [],
        "only these are told its addresses and believed about them; of mail only what is approved. Empty: any",
    )
    kinds: Annotated[tuple[str, ...], Many('"openpgp" and "smime"', read_kind)] = key(
        [], "which certificates count: openpgp, smime. Empty: both"
    )
    require_chain: Switch = key(
        False, "true: an X.509 certificate without a good chain is not answered unless approved or local"
    )
    pinned: Annotated[tuple[str, ...], Many("fingerprints of 40 or 64 hex digits", read_fingerprint)] = key(
        [], "fingerprints: nothing else answers its addresses, whoever brings it"
    )
    on_change: Annotated[str, Choice(("", "report", "hold"))] = key("", "overrides policy.on_change")
    ttl: Annotated[int | None, Duration("1h", "999d", optional=True)] = key(
        "", "overrides cache.ttl and those of upstreams, for its addresses"
    )
    must_encrypt: Switch = key(False, 'the verdict "no" is "reject"')
    reject_text: Annotated[str, Text("printable ASCII", r"[ -~]*", 200)] = key(
        "", "what whoever sends the mail is told then; empty: a sentence of ours"
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


class HistorySection(Section):
    """What changed in the cache and when, and what upstreams said: what was answered at an earlier time comes of it."""

    keep: Annotated[int, Duration("0", "3650d")] = key(
        "400 days", "how far back; 0: none is written, and what there is goes"
    )
    max_size: Annotated[int, Size("1 KiB", "1024 TiB")] = key(
        "1 GiB", "of the history in the database, about; above it the oldest goes first"
    )


class EventsSection(Section):
    """Others are told of each event of the history; docs/events.md."""

    webhook: Annotated[str, One(WEBHOOK, read_webhook)] = key(
        "", "HTTPS URL to which each event is POSTed; no secret belongs in it"
    )
    webhook_secret_file: Annotated[Path | None, File("a file with the key of the HMAC-SHA256")] = key(
        "", "the key of the HMAC-SHA256 that signs them, 16 octets at least"
    )


class Config(Section):
    """The whole configuration, read and checked."""

    server: ServerSection = ServerSection()
    hkp: HkpSection = HkpSection()
    ldap: LdapSection = LdapSection()
    admin: AdminSection = AdminSection()
    mailflow: MailflowSection = MailflowSection()
    cache: CacheSection = CacheSection()
    policy: PolicySection = PolicySection()
    limits: LimitsSection = LimitsSection()
    smime: SmimeSection = SmimeSection()
    log: LogSection = LogSection()
    upstream: tuple[UpstreamSection, ...] = ()
    view: tuple[ViewSection, ...] = ()
    verdict: VerdictSection = VerdictSection()
    domain: tuple[DomainSection, ...] = ()
    domain_certificate: tuple[DomainCertificateSection, ...] = ()
    history: HistorySection = HistorySection()
    events: EventsSection = EventsSection()
    outlook: OutlookSection = OutlookSection()
    invite: InviteSection = InviteSection()
    _sources: Sources | None = PrivateAttr(None)

    def __eq__(self, other: object) -> bool:
        """Other origins make no other configuration."""
        return isinstance(other, Config) and dict(self) == dict(other)

    @property
    def sources(self) -> Sources | None:
        """Where it came from; None: it was not read by `loading.load`."""
        return self._sources

    def with_sources(self, sources: Sources | None) -> Config:
        """The same, from elsewhere."""
        made = self.model_copy()
        made._sources = sources
        return made

    @property
    def workers(self) -> int:
        """Front processes; 0: one process for all."""
        given = self.server.workers
        return max(1, (os.cpu_count() or 2) - 1) if isinstance(given, str) else given

    @property
    def state_dir(self) -> Path:
        """The directory of token, secret, lock and command socket."""
        beside = self.cache.path.parent if self.cache.path is not None else Path("var")
        return Path(self.server.state_dir) if self.server.state_dir else beside

    @property
    def listeners(self) -> tuple[Listening, ...]:
        """Every listener: `listen` is the section's own face, `<face>_listen` one of several in a section."""
        found: list[Listening] = []
        for section, value in self:
            for row in value if isinstance(value, tuple) else (value,):
                where, view = (f"view[{row.name}]", row.name) if isinstance(row, ViewSection) else (section, "default")
                for name, listeners in row:
                    face = section if name == "listen" else name.removesuffix("_listen")
                    if face != name and listeners:
                        each = listeners if isinstance(listeners, tuple) else (listeners,)
                        found += (Listening(f"{where}.{name}", face, view, listener) for listener in each)
        return tuple(found)
