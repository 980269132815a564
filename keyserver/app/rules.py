"""The rules out of the configuration: what lookups, mail flow and faces go by, replaced together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keyserver.app.upstreams import spec_of
from keyserver.config import Config
from keyserver.config.sections.mail import InviteSection
from keyserver.config.sections.outlook import OutlookSection
from keyserver.config.sections.recipients import DomainSection, VerdictPolicySection
from keyserver.domains import DomainRule, DomainRules
from keyserver.faces.context import FaceRules
from keyserver.mailflow.values import Rules as MailRules
from keyserver.model import Kind, OnChange, View
from keyserver.policy import Terms, with_subdomains
from keyserver.resolver.rules import DomainCertificate, Rules
from keyserver.rules import InForce
from keyserver.upstreams.base import Upstream
from keyserver.verdict.deciding import Kinds, Policy
from keyserver.verdict.named import NamedPolicy

KINDS = {"openpgp": Kind.OPENPGP, "smime": Kind.X509}
"""Kinds of certificates as policies name them."""


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """Those of now, for each floor of the service. Each is read where it is used."""

    lookups: InForce[Rules]
    mail: InForce[MailRules]
    faces: InForce[FaceRules]
    invite: InForce[InviteSection]
    outlook: InForce[OutlookSection]

    @classmethod
    def of(cls, config: Config, upstreams: Mapping[str, Upstream]) -> ServiceRules:
        """The first ones."""
        return cls(
            InForce(lookup_rules(config, upstreams)),
            InForce(mail_rules(config)),
            InForce(face_rules(config)),
            InForce(config.invite),
            InForce(config.outlook),
        )

    def replace(self, config: Config, upstreams: Mapping[str, Upstream]) -> None:
        """Others hold from here on, everywhere in this process."""
        self.lookups.replace(lookup_rules(config, upstreams))
        self.mail.replace(mail_rules(config))
        self.faces.replace(face_rules(config))
        self.invite.replace(config.invite)
        self.outlook.replace(config.outlook)

    async def replaced(self) -> None:
        """Return when nothing that was judged by earlier ones is still being stored."""
        await self.lookups.replaced()
        await self.mail.replaced()


def lookup_rules(config: Config, upstreams: Mapping[str, Upstream]) -> Rules:
    """What lookups, searches and upkeep go by."""
    return Rules(
        terms=terms_of(config),
        upstreams=upstreams,
        views={view.name: view for view in views_of(config)},
        text_search=config.policy.text_search,
        deadline=float(config.cache.deadline),
        max_certificate=config.policy.max_certificate_size,
        searches=config.limits.searches,
        prefetch=config.cache.prefetch,
        purge_interval=config.cache.purge_interval,
        revocation_interval=config.policy.revocation_interval,
        subaddress=config.policy.subaddress,
        subaddress_domains=config.policy.subaddress_domains,
        domain_certificates=tuple(DomainCertificate(row.domain, row.fingerprint) for row in config.domain_certificate),
        domain_authority=config.policy.domain_authority,
    )


def views_of(config: Config) -> tuple[View, ...]:
    """What each listener goes by, the default one first."""
    further = (
        View(
            one.name,
            one.answer_mailflow,
            usable_only=one.usable_only,
            domain_certificates=one.domain_certificates,
            on_change=OnChange.of(one.on_change),
        )
        for one in config.view
    )
    return (View(answer_mailflow=config.policy.answer_mailflow), *further)


def mail_rules(config: Config) -> MailRules:
    """What the harvest goes by."""
    mailflow = config.mailflow
    return MailRules(
        inbound_addresses=frozenset(mailflow.inbound_addresses),
        outbound_networks=mailflow.outbound_networks,
        authserv_id=mailflow.authserv_id,
        require_authenticated_sender=mailflow.require_authenticated_sender,
        internal_domains=with_subdomains(config.policy.internal_domains),
        hold_changed=mailflow.hold_changed,
        max_certificate=config.policy.max_certificate_size,
        terms=terms_of(config),
        views=views_of(config),
    )


def face_rules(config: Config) -> FaceRules:
    """What faces go by."""
    return FaceRules(
        explain=config.hkp.explain,
        text_search=config.policy.text_search != "off",
        max_size=config.cache.max_size,
        own_domains=with_subdomains(config.policy.internal_domains),
        relaying=frozenset(view.name for view in config.view if view.wkd_relay),
        policies={section.name: policy_of(section) for section in config.verdict.policies},
        verdict_clients=config.verdict.allowed_clients,
    )


def policy_of(section: VerdictPolicySection) -> NamedPolicy:
    """One policy of verdicts."""
    policy = Policy(
        name=section.name,
        kinds=Kinds(section.kind),
        view=section.view,
        chained="chained" in section.minimum,
        approved="approved" in section.minimum,
        valid_for=section.valid_for,
    )
    return NamedPolicy(policy, section.yes, section.reject, tempfail=section.unknown == "tempfail")


def terms_of(config: Config) -> Terms:
    """What policy goes by."""
    return Terms(
        ttl=config.cache.ttl,
        negative_ttl=config.cache.negative_ttl,
        serve_stale=config.cache.serve_stale,
        internal_domains=config.policy.internal_domains,
        require_chain=config.smime.require_chain,
        upstreams={section.name: spec_of(section) for section in config.upstream},
        domains=DomainRules(map(domain_rule, config.domain)),
        on_change=OnChange(config.policy.on_change),
    )


def domain_rule(section: DomainSection) -> DomainRule:
    """The rule of one domain."""
    return DomainRule(
        name=section.name,
        upstreams=section.upstreams,
        kinds=frozenset(KINDS[kind] for kind in section.kinds) or frozenset(Kind),
        require_chain=section.require_chain,
        pinned=frozenset(section.pinned),
        on_change=OnChange.of(section.on_change),
        ttl=section.ttl,
        must_encrypt=section.must_encrypt,
        reject_text=section.reject_text,
    )
