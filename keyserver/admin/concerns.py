"""What an administrator should do something about: one line each, with its cure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from keyserver.admin.health import Health, Pulse
from keyserver.config import Config
from keyserver.events.webhook import WebhookStatus
from keyserver.listen.tls import expiry_of
from keyserver.resolver.membership import ClusterNode
from keyserver.resolver.revoked import Standing
from keyserver.store.base import StoreStats

_ALMOST = 0.9  # of something that can be full
_SOON = 14 * 86400  # seconds before a certificate ends: renewals should have happened by then


@dataclass(frozen=True, slots=True)
class Concern:
    """kind: bad (something does not work) or warn (it will not, or works less)."""

    kind: str
    what: str
    cure: str
    link: str  # where it is mended, or seen


def of_store(stats: StoreStats, max_size: int) -> Iterator[Concern]:
    """max_size: octets, 0 for none."""
    full = bool(max_size) and stats.octets >= max_size
    if stats.healthy and not full:
        yield Concern("bad", f"The cache is not healthy: {stats.healthy}", _STORE_CURE, "")
    elif full:
        yield Concern("bad", "cache.max_size is reached: nothing new is cached", _SIZE_CURE, "/cache?sort=expires")
    elif max_size and stats.octets >= _ALMOST * max_size:
        yield Concern("warn", "cache.max_size is almost reached", _SIZE_CURE, "/cache?sort=expires")


def broken_store(problem: str) -> Concern:
    """It cannot even be asked."""
    return Concern("bad", f"The cache cannot be read: {problem}", _STORE_CURE, "")


_STORE_CURE = "Lookups go on without it. See to the disk's space, and who may write the database, then to the log."
_SIZE_CURE = "Raise it and reload, or delete what nobody needs."


def of_clock(complaint: str) -> Iterator[Concern]:
    """complaint: as `ClockWatch` has it."""
    if complaint:
        cure = "Set the clock right; if it is, say so: keyserver cache purge --expired"
        yield Concern("warn", f"{complaint[0].upper()}{complaint[1:]}", cure, "")


def of_nodes(differing: Sequence[ClusterNode]) -> Iterator[Concern]:
    """differing: nodes whose settings are not ours."""
    for node in differing:
        keys = [difference.key for difference in node.differences]
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        cure = "Give all nodes the same, and reload: each answers by its own."
        yield Concern("warn", f"Node {node.name} has another {keys[0]}{more}", cure, "/nodes")


def of_lists(lists: Sequence[Standing]) -> Iterator[Concern]:
    """Revocation lists without which it is not known what has been revoked."""
    for one in lists:
        if complaint := one.complaint:
            used = "none of its authority's certificates is used" if one.fatal else "newer revocations are not known"
            why = one.problem or "its server has no newer one"
            cure = f"Until it can be had, {used}. {one.url}: {why}"
            kind = "bad" if one.fatal else "warn"
            yield Concern(kind, f"{complaint[0].upper()}{complaint[1:]}", cure, "/settings?q=smime.crl")


def of_upstreams(pulses: Sequence[Pulse]) -> Iterator[Concern]:
    """A word for each that does not do well, and one where none does."""
    ill = [(n, pulse) for n, pulse in enumerate(pulses, 1) if pulse.tone in ("bad", "warn")]
    if pulses and len(ill) == len(pulses):
        what = "No upstream does well: what is not cached is found by nobody"
        yield Concern("bad", what, "Look at each of them.", "/upstreams")
    for n, pulse in ill:
        name, last = pulse.status.name, pulse.status.last_error
        link = f"/upstreams#upstream-{n}"
        if pulse.health is Health.PAUSED:
            what = f"{name} is paused: it is not asked, and counts as failed"
            yield Concern("warn", what, "Resume it.", link)
        elif pulse.health is Health.FAILING:
            yield Concern("warn", f"{name} fails: {last}", "Test it.", link)
        else:
            wait = f"It is tried again in {pulse.status.retry_in:.0f} s. " if pulse.health is Health.OPEN else ""
            yield Concern("warn", f"{name} is not asked, its circuit is open: {last}", f"{wait}Or test it now.", link)


@dataclass(frozen=True, slots=True)
class MailLoad:
    """How full the mail queue is (1: it is full), and how many mails were not read since the start."""

    part: float
    shed: int


def of_mail(mail: MailLoad) -> Iterator[Concern]:
    """The queue."""
    if mail.part >= _ALMOST:
        cure = "Mail passes all the same; certificates in what comes now are not kept. Look who sends so much."
        yield Concern("warn", "The mail queue is full: mail is not read", cure, "/mailflow")
    elif mail.shed:
        what = f"{mail.shed} mail{'' if mail.shed == 1 else 's'} not read since the start: too much came at once"
        yield Concern("warn", what, "Mail passes all the same; their certificates were not kept.", "/mailflow")


def of_webhook(webhook: WebhookStatus) -> Iterator[Concern]:
    """Events that the receiver does not take, or never got."""
    link = "/settings?q=webhook"
    if webhook.error:
        wait = f"{webhook.waiting} event{' waits' if webhook.waiting == 1 else 's wait'}"
        cure = "They are sent again until they are taken, or too old for the history. Look at the receiver."
        yield Concern("bad", f"The webhook does not take events, {wait}: {webhook.error}", cure, link)
    if webhook.lost:
        many = f"{webhook.lost} event{'' if webhook.lost == 1 else 's'}"
        cure = "Give the history more room, or mend the receiver sooner."
        yield Concern("warn", f"{many} left the history before the webhook took them, since the start", cure, link)


def of_certificates(ends: Mapping[Path, float | None], now: int) -> Iterator[Concern]:
    """TLS certificates of listeners, by their files. ends: see `certificate_ends`."""
    for file, end in ends.items():
        if end is None:
            what = f"The TLS certificate {file} cannot be read; the one read before is still used"
            yield Concern("bad", what, "Mend the file; it is read again by itself.", "/settings?q=tls_certificate")
        elif end <= now:
            cure = "Renew it; it is read again by itself."
            yield Concern("bad", f"The TLS certificate {file} has expired", cure, "/settings?q=tls_certificate")
        elif end - now <= _SOON:
            days = int(end - now) // 86400
            what = f"The TLS certificate {file} expires in {days} day{'' if days == 1 else 's'}"
            yield Concern("warn", what, "Renew it; it is read again by itself.", "/settings?q=tls_certificate")


def certificate_ends(files: Iterable[Path]) -> dict[Path, float | None]:
    """When the first certificate of each file ends (Unix seconds); None: it cannot be read."""
    return {file: expiry_of(file) for file in files}


PUBLIC = (
    "keys.openpgp.org",
    "keyserver.ubuntu.com",
    "pgp.mit.edu",
    "keys.mailvelope.com",
    "pgpkeys.eu",
    "pgp.surf.nl",
    "pgp.surfnet.nl",
    "keyserver.pgp.com",
    "keyserver2.pgp.com",
    "keys.gnupg.net",
    "sks-keyservers.net",
)
"""Hosts, with everything below them, of keyservers for everybody: what they are asked tells strangers who writes to
whom."""


def at_start(config: Config, user: int) -> Iterator[Concern]:
    """What the first lines of the log say of how the service runs; user: its effective user ID."""
    if user == 0:
        cure = "Give it a user of its own, as conf/keyserver.service does; CAP_NET_BIND_SERVICE is for ports below 1024"
        yield Concern("warn", "The service runs as root: whoever gets into it has the machine", cure, "")
    for one in config.listeners:
        if not (one.listener.loopback or one.listener.tls):
            what = f"{one.key}: other machines reach {one.listener} without TLS, and others can read what is said there"
            yield Concern("warn", what, _WITHOUT_TLS.get(one.face, _TLS), f"/settings?q={one.key}")
    for upstream in config.upstream:
        host = urlsplit(upstream.url.strip()).hostname or ""
        if any(host == public or host.endswith(f".{public}") for public in PUBLIC):
            told = f"addresses of {', '.join(upstream.domains)}" if upstream.domains else "whatever is not cached"
            what = f"{upstream.name} ({host}) is a public keyserver, and is told {told}"
            yield Concern("warn", what, _TOLD, "/upstreams")


_TOLD = (
    "domains in its table says which addresses it hears; without the table it hears none; keyserver check says who does"
)
_TLS = 'Put "tls:" before the address and set tls_certificate, or listen on loopback behind a proxy that has TLS'
_WITHOUT_TLS = dict.fromkeys(
    ("milter", "lmtp", "trailer", "socketmap"),
    "Its protocol has no TLS: listen on a Unix socket or loopback, or keep it in a network of its own",
)


def worst(found: Iterable[Concern]) -> str:
    """bad, warn, or empty where there is none."""
    return min((concern.kind for concern in found), default="")
