"""Sections of the cache: time limits, what may be asked and answered, what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from keyserver.config.database import ACCEPTED, SQLITE
from keyserver.config.fields import Switch
from keyserver.config.kinds import Anchors, Choice, Duration, File, Many, One, Size, Tables, Text, read_domain
from keyserver.config.section import Restart, Section, key, required
from keyserver.config.webhook import WEBHOOK, read_webhook

Domains = Annotated[tuple[str, ...], Many("domains such as example.org", read_domain)]
Ttl = Annotated[int, Duration("1h", "999d")]


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
