"""The wired service without its listeners: every concrete part is named here, made once and handed on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from keyserver import openpgp, smime
from keyserver.admin.service import Service
from keyserver.app.passwords import read_password
from keyserver.changes import Changes
from keyserver.config import Config, UpstreamSection
from keyserver.faces.http.hot import HotAnswers
from keyserver.hygiene import Hygiene
from keyserver.install import Installation, InstallError, installation
from keyserver.listen.trust import Trust
from keyserver.mailflow.counts import Counts
from keyserver.mailflow.intake import Intake
from keyserver.mailflow.room import Room
from keyserver.mailflow.verdict import Rules
from keyserver.model import Kind, UpstreamSpec, View
from keyserver.observe import Observer
from keyserver.policy import Terms, with_subdomains
from keyserver.resolver.asked import Asked, MissLimit
from keyserver.resolver.cleaner import Cleaner
from keyserver.resolver.gate import Gate
from keyserver.resolver.keeper import Keeper
from keyserver.resolver.proofs import Proofs
from keyserver.resolver.resolver import Resolver, Settings
from keyserver.resolver.search import Searcher
from keyserver.store.base import Store, StoreRefused
from keyserver.store.opening import open_store
from keyserver.upstreams.base import Upstream

LDAP_THREADS = 4
LINES_AT_ONCE = 50  # of the log, between which the loop goes on


def hygiene_of(anchors: smime.Anchors | None = None) -> Mapping[Kind, Hygiene]:
    """The pure functions of each kind of certificate; without anchors no chain leads to one."""
    pgp, x509 = Proofs(openpgp.prove), Proofs(smime.prove)
    return {
        Kind.OPENPGP: Hygiene(
            clean=openpgp.clean,
            prove=pgp,
            index=openpgp.index,
            merge=openpgp.merge,
            revocations=openpgp.revocations,
            merge_revocations=openpgp.merge_revocations,
            cut=openpgp.cut,
            learn=pgp.learn,
        ),
        Kind.X509: Hygiene(
            clean=smime.clean,
            prove=x509,
            index=smime.index,
            merge=smime.merge,
            revocations=smime.revocations,
            merge_revocations=smime.merge_revocations,
            learn=x509.learn,
            intermediates=smime.intermediates,
            chained=(anchors or smime.Anchors([])).chained,
        ),
    }


def anchors_of(trust_anchors: str) -> smime.Anchors:
    """`smime.trust_anchors`: the system's, none, or those of a PEM file. Raises CannotStart."""
    if trust_anchors == "none":
        return smime.Anchors([])
    system = ssl.get_default_verify_paths().cafile
    file = Path(system) if trust_anchors == "system" and system else Path(trust_anchors)
    if trust_anchors == "system" and not file.is_file():
        return smime.Anchors([])
    try:
        return smime.Anchors(smime.load_anchors(file.read_bytes()))
    except (OSError, ValueError) as problem:
        raise CannotStart(f"smime.trust_anchors: {file} cannot be used: {problem}") from None


def _counting() -> float:
    """Seconds since the machine started, its sleep included: what sleeps through a night has not seen a jump."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class CannotStart(Exception):
    """One clear line about what keeps the service from starting."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The wired service without its listeners; the command line works on it where no service runs."""

    config: Config
    installation: Installation
    terms: Terms
    view: View
    changes: Changes
    store: Store
    resolver: Resolver
    keeper: Keeper
    service: Service
    intake: Intake
    observer: Observer
    trust: Trust
    hot: list[HotAnswers] = field(default_factory=list)


def _hkp(section: UpstreamSection, spec: UpstreamSpec, threads: ThreadPoolExecutor) -> Upstream:
    from keyserver.upstreams.hkp.upstream import Hkp

    return Hkp(
        spec,
        section.url,
        proxy=section.proxy,
        tls_ca_file=section.tls_ca_file or "",
        allow_private=section.allow_private,
    )


def _ldap(section: UpstreamSection, spec: UpstreamSpec, threads: ThreadPoolExecutor) -> Upstream:
    # ldap3 takes its time to load; most installations never ask by LDAP
    from keyserver.upstreams.ldap.upstream import Ldap

    file = section.bind_password_file
    password = read_password(f"upstream[{section.name}].bind_password_file", file).decode() if file else ""
    return Ldap(
        spec,
        section.url,
        threads=threads,
        starttls=section.starttls,
        tls_ca_file=section.tls_ca_file or "",
        bind_dn=section.bind_dn,
        bind_password=password,
        filter=section.filter,
        attributes=section.attributes,
        allow_private=section.allow_private,
    )


SCHEMES: Mapping[str, Callable[[UpstreamSection, UpstreamSpec, ThreadPoolExecutor], Upstream]] = {
    "hkp": _hkp,
    "hkps": _hkp,
    "ldap": _ldap,
    "ldaps": _ldap,
}
_KINDS = {"ldap": frozenset(Kind), "ldaps": frozenset(Kind)}


def terms_of(config: Config) -> Terms:
    """What policy goes by."""
    specs = {
        section.name: UpstreamSpec(
            name=section.name,
            priority=section.priority,
            domains=section.domains,
            ttl=section.ttl,
            timeout=float(section.timeout),
            template=section.template,
            kinds=_KINDS.get(section.scheme, frozenset({Kind.OPENPGP})),
        )
        for section in config.upstream
    }
    return Terms(
        ttl=config.cache.ttl,
        negative_ttl=config.cache.negative_ttl,
        serve_stale=config.cache.serve_stale,
        internal_domains=config.policy.internal_domains,
        require_chain=config.smime.require_chain,
        upstreams=specs,
    )


def mailflow_rules(config: Config) -> Rules:
    """What the harvest goes by."""
    mailflow = config.mailflow
    return Rules(
        inbound_addresses=frozenset(mailflow.inbound_addresses),
        outbound_networks=mailflow.outbound_networks,
        authserv_id=mailflow.authserv_id,
        require_authenticated_sender=mailflow.require_authenticated_sender,
        internal_domains=with_subdomains(config.policy.internal_domains),
        hold_changed=mailflow.hold_changed,
        max_certificate=config.policy.max_certificate_size,
    )


@contextlib.asynccontextmanager
async def opened(
    config: Config,
    *,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    counting: Callable[[], float] | None = None,
) -> AsyncIterator[Parts]:
    """Everything but the listeners, open until the block ends. Raises CannotStart.

    counting: a clock that nobody sets and that goes on while the machine sleeps."""

    def now() -> int:
        return int(clock())

    terms = terms_of(config)
    hygiene = hygiene_of(anchors_of(config.smime.trust_anchors))
    changes = Changes()
    try:
        mine = installation(config.state_dir, config.admin.token_file)
    except InstallError as problem:
        raise CannotStart(str(problem)) from None
    observer = Observer(mine.log_secret, config.log.identities)
    threads = ThreadPoolExecutor(LDAP_THREADS, "ldap")
    try:
        upstreams = {s.name: SCHEMES[s.scheme](s, terms.upstreams[s.name], threads) for s in config.upstream}
    except (OSError, ValueError) as problem:
        raise CannotStart(f"upstream: {problem}") from None
    try:
        store = await open_store(config.cache.database, hygiene, changes, config.cache.max_size)
    except StoreRefused as problem:
        raise CannotStart(str(problem)) from None
    cleaner = Cleaner({kind: own.clean for kind, own in hygiene.items()})
    asked = Asked(config.limits.searches)
    trust = Trust(config.limits.trusted, config.limits.proxies, config.limits.proxy_header)
    searcher = Searcher(
        store=store,
        upstreams=upstreams,
        gate=Gate(monotonic, random.random, observer.upstream),
        cleaner=cleaner,
        hygiene=hygiene,
        terms=terms,
        clock=now,
        monotonic=monotonic,
        deadline=float(config.cache.deadline),
        max_certificate=config.policy.max_certificate_size,
        via=mine.instance,
    )
    resolver = Resolver(
        store=store,
        searcher=searcher,
        terms=terms,
        hygiene=hygiene,
        asked=asked,
        misses=MissLimit(config.limits.misses_per_minute, trust, monotonic),
        clock=now,
        monotonic=monotonic,
        settings=Settings(config.policy.text_search),
    )
    hot: list[HotAnswers] = []

    async def gather() -> None:
        for answers in hot:
            for number, (name, hits) in enumerate(answers.asked().items(), 1):
                resolver.note_asked((name,), now())
                observer.hits("hkp", name, hits)
                if number % LINES_AT_ONCE == 0:
                    await asyncio.sleep(0)  # ten thousand log lines must not hold up a lookup

    keeper = Keeper(
        store,
        resolver,
        terms,
        clock=now,
        counting=counting or _counting,
        purge_interval=config.cache.purge_interval,
        prefetch=config.cache.prefetch,
        asked=gather,
    )
    view = View("default", config.policy.answer_mailflow)
    intake = Intake(
        store=store,
        cleaner=cleaner,
        hygiene=hygiene,
        rules=mailflow_rules(config),
        terms=terms,
        clock=now,
        counts=Counts(observer.registry),
        identity=observer.identity,
        room=Room(),
    )
    service = Service(
        store=store,
        resolver=resolver,
        cleaner=cleaner,
        hygiene=hygiene,
        terms=terms,
        view=view,
        clock=now,
        monotonic=monotonic,
        harvester=intake,
        purge_expired=keeper.purge_now,
        max_certificate=config.policy.max_certificate_size,
        text_search=config.policy.text_search != "off",
        identity=observer.identity,
    )
    try:
        yield Parts(config, mine, terms, view, changes, store, resolver, keeper, service, intake, observer, trust, hot)
    finally:
        intake.close()
        await resolver.close()
        await asyncio.gather(*(u.close() for u in upstreams.values()))
        await cleaner.close()
        with contextlib.suppress(Exception):
            await keeper.flush()
        await store.close()
        threads.shutdown(wait=False, cancel_futures=True)
