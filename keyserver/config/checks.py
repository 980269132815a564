"""What no single value shows: mistakes between keys, and files that do not belong together."""

from __future__ import annotations

import re
import ssl
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from keyserver.config.database import is_postgres, shown, wrong_with
from keyserver.config.models import Config
from keyserver.config.problem import Problem, show
from keyserver.config.sections.faces import LdapSection
from keyserver.config.sections.mail import InviteSection
from keyserver.config.sections.recipients import DomainCertificateSection
from keyserver.model import Malformed
from keyserver.query import parse_address
from keyserver.smime.crl import authority
from keyserver.wire.dn import BadDn, parse_dn
from keyserver.wire.http_hot import FRAMING

SECRET = 16  # octets: with fewer, whoever sees one event could try all keys
_MEANINGFUL = frozenset({b"accept", b"authorization", b"connection", b"cookie", b"host", b"if-none-match", b"via"})


def cross_checks(config: Config) -> Iterator[Problem]:
    """Every mistake in a configuration whose single values are right, but for those in upstreams."""
    yield from _database(config)
    yield from _listeners(config)
    yield from _proxy_header(config)
    yield from _certificates(config)
    yield from _account(config.ldap)
    yield from _mailflow(config)
    yield from _verdict(config)
    yield from _events(config)
    yield from _domain_certificates(config)
    yield from _invite(config)
    yield from _outlook(config)
    yield from _revocation_lists(config)
    yield from _names("upstream", [upstream.name for upstream in config.upstream])
    yield from _domains(config)
    yield from _remembered(config)
    yield from _names("domain", [domain.name for domain in config.domain])
    yield from _names("view", ["default", *(view.name for view in config.view)])
    yield from _names("verdict.policy", [policy.name for policy in config.verdict.policy])
    for url, count in Counter(crl.url for crl in config.smime.crl).items():
        if count > 1:
            yield Problem("smime.crl.url", show("", url), "occurs twice; accepted is one [[smime.crl]] for each list")


def _database(config: Config) -> Iterator[Problem]:
    """The database's URL, and the password to it."""
    url, file = config.cache.database, config.cache.database_password_file
    if wrong := wrong_with(url):
        yield Problem("cache.database", f'"{shown(url)}"', wrong)
    if file is not None and not is_postgres(url):
        yield Problem("cache.database_password_file", f'"{file}"', "accepted only together with a PostgreSQL database")
    elif file is not None and not file.read_bytes().strip():
        yield Problem("cache.database_password_file", f'"{file}"', "it is empty; accepted is a file with the password")


def _listeners(config: Config) -> Iterator[Problem]:
    """No address twice."""
    listening = [(opened.key, opened.listener) for opened in config.listeners]
    taken: dict[str, str] = {}
    for key, listener in listening:
        spelled = str(listener).removeprefix("proxy:").removeprefix("tls:")
        if listener.unix is None and listener.port == 0:
            continue
        if spelled in taken:
            yield Problem(key, f'"{listener}"', f"{taken[spelled]} listens there already; accepted is another port")
        taken.setdefault(spelled, key)
    for key, listener in listening:
        if listener.proxied and not config.limits.proxies:
            accepted = "accepted together with limits.proxies, which says whose word counts"
            yield Problem(key, f'"{listener}"', f"nobody could connect; {accepted}")


def _proxy_header(config: Config) -> Iterator[Problem]:
    """A header that says something else, or where a message ends, names no client."""
    name = config.limits.proxy_header
    if name.lower().encode() in FRAMING | _MEANINGFUL:
        yield Problem(
            "limits.proxy_header", f'"{name}"', "it means something else; accepted is x-forwarded-for or the like"
        )


def _certificates(config: Config) -> Iterator[Problem]:
    """TLS listeners have a certificate and its key, and the two belong together."""
    for name, section in config:
        if not hasattr(section, "tls_certificate"):
            continue
        tls = [opened.listener for opened in config.listeners if opened.face == name and opened.listener.tls]
        files = {"tls_certificate": section.tls_certificate, "tls_key_file": section.tls_key_file}
        missing = [key for key, path in files.items() if path is None]
        if tls or len(missing) == 1:
            reason = f'"{tls[0]}" needs it' if tls else "certificate and key are set together"
            for key in missing:
                yield Problem(f"{name}.{key}", '""', f"{reason}; accepted is a PEM file")
        certificate, private = files.values()
        if certificate is not None and private is not None and (wrong := _pair(certificate, private)):
            accepted = "accepted is the unencrypted PEM key of the first certificate in tls_certificate"
            yield Problem(f"{name}.tls_key_file", f'"{private}"', f"{wrong}; {accepted}")


def _account(ldap: LdapSection) -> Iterator[Problem]:
    """Who may bind: a distinguished name, and a password that is one."""
    try:
        parse_dn(ldap.bind_dn)
    except BadDn as problem:
        yield Problem("ldap.bind_dn", show("", ldap.bind_dn), f"{problem}; accepted is a distinguished name (RFC 4514)")
    file = ldap.bind_password_file
    if ldap.bind_dn and file is None:
        # RFC 4513 section 5.1.2: a name without password is an "unauthenticated bind", which nobody should take for one
        yield Problem("ldap.bind_dn", show("", ldap.bind_dn), "accepted only together with ldap.bind_password_file")
    if file is not None and not ldap.bind_dn.strip():
        yield Problem("ldap.bind_password_file", f'"{file}"', "accepted only together with ldap.bind_dn")
    elif file is not None and not file.read_bytes().strip():
        yield Problem("ldap.bind_password_file", f'"{file}"', "it is empty; accepted is a file with the password")


def _mailflow(config: Config) -> Iterator[Problem]:
    """Listeners that strangers reach have an allow list, and what is required can be met."""
    mailflow = config.mailflow
    for key, listener in (("milter_listen", mailflow.milter_listen), ("lmtp_listen", mailflow.lmtp_listen)):
        if listener is not None and not listener.loopback and not mailflow.allowed_clients:
            accepted = "accepted is loopback or a Unix socket, or any address together with mailflow.allowed_clients"
            yield Problem(f"mailflow.{key}", f'"{listener}"', f"whoever reaches it could plant mail; {accepted}")
    if mailflow.require_authenticated_sender and not mailflow.authserv_id:
        accepted = "accepted only together with mailflow.authserv_id, without which nobody is authenticated"
        yield Problem("mailflow.require_authenticated_sender", "true", accepted)


def _verdict(config: Config) -> Iterator[Problem]:
    """Listeners that strangers reach have an allow list, and policies ask views that there are."""
    verdict = config.verdict
    for key, listener in (("listen", verdict.listen), ("socketmap_listen", verdict.socketmap_listen)):
        if listener is not None and not listener.loopback and not verdict.allowed_clients:
            accepted = "accepted is loopback or a Unix socket, or any address together with verdict.allowed_clients"
            yield Problem(f"verdict.{key}", f'"{listener}"', f"strangers could ask who has certificates; {accepted}")
    views = ["default", *(view.name for view in config.view)]
    for policy in verdict.policy:
        if policy.view not in views:
            accepted = f"there is no such view; accepted is one of {', '.join(views)}"
            yield Problem(f"verdict.policy[{policy.name}].view", show("", policy.view), accepted)


def _events(config: Config) -> Iterator[Problem]:
    """A webhook has a secret, and a history to take events from."""
    url, file = config.events.webhook, config.events.webhook_secret_file
    where = "events.webhook_secret_file"
    if url and file is None:
        yield Problem(where, '""', "events.webhook needs it; accepted is a file with the key that signs events")
    if file is not None and not url:
        yield Problem(where, f'"{file}"', "accepted only together with events.webhook")
    elif file is not None and len(file.read_bytes().strip()) < SECRET:
        yield Problem(where, f'"{file}"', f"it holds too little; accepted is a file with {SECRET} octets or more")
    if url and not config.history.keep:
        yield Problem("events.webhook", show("", url), "there are no events: accepted only with history.keep above 0")


def _domain_certificates(config: Config) -> Iterator[Problem]:
    """One certificate of each kind for a domain (SHA-256 may be the fingerprint of either), and none for our own."""
    by_domain: dict[str, list[DomainCertificateSection]] = {}
    for row in config.domain_certificate:
        by_domain.setdefault(row.domain, []).append(row)
    for domain, rows in by_domain.items():
        key = f"domain_certificate[{domain}]"
        name = domain.removeprefix("*.")
        if any(name == own or name.endswith(f".{own}") for own in config.policy.internal_domains):
            reason = "it is internal, and mail to it leaves by no gateway; accepted is a domain of somebody else"
            yield Problem(f"{key}.domain", show("", domain), reason)
        lengths = Counter(len(row.fingerprint) for row in rows)
        if lengths[40] > 1 or len(rows) > 2 or len({row.fingerprint for row in rows}) < len(rows):
            accepted = "accepted is one row for each kind of certificates: OpenPGP, and X.509 by its SHA-256"
            yield Problem(f"{key}.fingerprint", "", f"{len(rows)} are named; {accepted}")


def _domains(config: Config) -> Iterator[Problem]:
    """Rules for domains name upstreams that there are, and say nothing that would never be said."""
    names = [upstream.name for upstream in config.upstream]
    for rule in config.domain:
        for unknown in (name for name in rule.upstreams if name not in names):
            accepted = f"there is no such upstream; accepted is one of {', '.join(names) or 'none'}"
            yield Problem(f"domain[{rule.name}].upstreams", show("", unknown), accepted)
        if rule.reject_text and not rule.must_encrypt:
            where = f"domain[{rule.name}].reject_text"
            yield Problem(where, show("", rule.reject_text), "accepted only together with must_encrypt = true")


def _invite(config: Config) -> Iterator[Problem]:
    """Mail has a sender, a relay and a link, and whoever reaches the trailer's milter is a mail server of ours."""
    invite = config.invite
    together = {"smtp": invite.smtp, "sender": invite.sender, "public_url": invite.public_url}
    for key, value in together.items():
        missing = [f"invite.{other}" for other in together if not together[other]]
        if value and missing and key != "public_url":
            yield Problem(f"invite.{key}", f'"{value}"', f"accepted only together with {' and '.join(missing)}")
    for key, wanted in (("automatic", "smtp"), ("trailer_listen", "public_url")):
        if getattr(invite, key) and not getattr(invite, wanted):
            value = "true" if key == "automatic" else f'"{invite.trailer_listen}"'
            yield Problem(f"invite.{key}", value, f"accepted only together with invite.{wanted}")
    if invite.sender and parse_address(invite.sender) != invite.sender.lower():
        accepted = "accepted is an address such as keys@example.org, in ASCII"
        yield Problem("invite.sender", show("", invite.sender), accepted)
    for key in ("public_url", "smtp"):
        port = re.search(r":([0-9]+)/?\Z", together[key])
        if port is not None and not 1 <= int(port[1]) <= 65535:
            yield Problem(f"invite.{key}", f'"{together[key]}"', "accepted is a port from 1 to 65535")
    trailer, clients = invite.trailer_listen, config.mailflow.allowed_clients
    if trailer is not None and not trailer.loopback and not clients:
        accepted = "accepted is loopback or a Unix socket, or any address together with mailflow.allowed_clients"
        yield Problem("invite.trailer_listen", f'"{trailer}"', f"strangers could ask who has certificates; {accepted}")
    yield from _relay_account(invite)


def _relay_account(invite: InviteSection) -> Iterator[Problem]:
    """A user and a password go together."""
    file = invite.smtp_password_file
    if invite.smtp_user and file is None:
        accepted = "accepted only together with invite.smtp_password_file"
        yield Problem("invite.smtp_user", show("", invite.smtp_user), accepted)
    if file is not None and not invite.smtp_user:
        yield Problem("invite.smtp_password_file", f'"{file}"', "accepted only together with invite.smtp_user")
    elif file is not None and not file.read_bytes().strip():
        yield Problem("invite.smtp_password_file", f'"{file}"', "it is empty; accepted is a file with the password")


def _outlook(config: Config) -> Iterator[Problem]:
    """What is sent has a way to go."""
    to = config.outlook.digest_to
    if to and not config.invite.smtp:
        yield Problem("outlook.digest_to", show("", to), "accepted only together with invite.smtp, the relay")
    if config.outlook.digest_webhook and not config.events.webhook:
        yield Problem("outlook.digest_webhook", "true", "accepted only together with events.webhook")


def _revocation_lists(config: Config) -> Iterator[Problem]:
    """Each has an authority that may sign it."""
    for crl in config.smime.crl:
        spelled, shown = f"smime.crl[{crl.name}].issuer_file", f'"{crl.issuer_file or ""}"'
        try:
            authority(crl.issuer_file.read_bytes() if crl.issuer_file is not None else b"")
        except OSError as problem:
            yield Problem(spelled, shown, problem.strerror or str(problem))
        except Malformed as problem:
            yield Problem(spelled, shown, f"{problem}; accepted is the certificate of one authority, in PEM or DER")


def _remembered(config: Config) -> Iterator[Problem]:
    """What answered before is part of the history: without one nothing could be held."""
    if config.history.keep:
        return
    said = {"policy": config.policy.on_change}
    said |= {f"view[{view.name}]": view.on_change for view in config.view}
    said |= {f"upstream[{upstream.name}]": upstream.on_change for upstream in config.upstream}
    said |= {f"domain[{rule.name}]": rule.on_change for rule in config.domain}
    for where, word in said.items():
        if word == "hold":
            yield Problem(f"{where}.on_change", '"hold"', "accepted only where a history is kept: history.keep is 0")


def _pair(certificate: Path, private: Path) -> str:
    """Why OpenSSL does not take this certificate with this key; empty where it does."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, private, password=lambda: b"")
    except ssl.SSLError as error:
        return f"OpenSSL says {(error.reason or 'no PEM').lower().replace('_', ' ')}"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _names(table: str, names: Sequence[str]) -> Iterator[Problem]:
    """Names of upstreams and views occur once."""
    for name, count in Counter(names).items():
        if count > 1:
            taken = 'is taken ("default" is the view of [hkp] and [ldap])' if name == "default" else "occurs twice"
            yield Problem(
                f"{table}.name", show("", name), f"{taken}; accepted is a name of its own for each [[{table}]]"
            )
