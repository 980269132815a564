"""`keyserver check`: every mistake at once, or what is open and who hears what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from keyserver.cli.options import DEFAULTS, DONE, USAGE, ConfigOption, SetOption, config_file, read_config

if TYPE_CHECKING:
    from keyserver.config import Config
    from keyserver.config.sections.upstream import UpstreamSection
    from keyserver.model import UpstreamSpec
    from keyserver.upstreams.protocol import Protocol


def check(
    config: ConfigOption = None,
    settings: SetOption = None,
    upstreams: Annotated[
        list[str] | None, typer.Option("--upstream", metavar="URL", help="As in serve; repeatable.")
    ] = None,
    domain: Annotated[
        str | None, typer.Option("--domain", metavar="D", help="Say what holds for recipients of this domain.")
    ] = None,
) -> int:
    """Read the configuration and say every mistake in it; exit code 2 if there is one."""
    from keyserver.config import ConfigError

    file = config_file(config)
    name = file or DEFAULTS
    try:
        configuration = read_config(file, settings, upstreams)
    except ConfigError as error:
        count = len(error.problems)
        print(f"{name}: {count} mistake{'' if count == 1 else 's'}")
        for problem in error.problems:
            print(f"  {problem}")
        return USAGE
    if domain is not None:
        from keyserver.query import parse_domain

        host = parse_domain(domain)
        if host is None:
            print(f"{domain!r} is no domain; accepted is a name such as example.org")
            return USAGE
        print(f"for recipients of {host}")
        for line in holds_for(host, configuration):
            print(f"  {line}")
        return DONE
    print(f"{name}: no mistakes\n")
    print("opens")
    for line in opens(configuration) or ["nothing"]:
        print(f"  {line}")
    print("\nasks")
    for line in discloses(configuration):
        print(f"  {line}")
    if lines := gateways(configuration):
        print("\nencrypts for addresses without a certificate")
    for line in lines:
        print(f"  {line}")
    if configuration.smime.crl:
        print("\nfetches revocation lists")
    for crl in configuration.smime.crl:
        without = "none of their certificates is used" if crl.stale == "fatal" else "nothing is taken for revoked"
        print(f"  {crl.url}\n        signed by {crl.issuer_file}; without a list {without}")
    return DONE


def opens(config: Config) -> list[str]:
    """One line for each listener: what it speaks, where, who can reach it; and one for each view that relays WKD."""
    lines = []
    for opened in config.listeners:
        name = opened.face if opened.view == "default" else f"{opened.face} (view {opened.view})"
        reached = "" if opened.listener.loopback else "  (other machines reach it)"
        lines.append(f"{name:<8} {opened.listener}{reached}")
    relaying = [view.name for view in config.view if view.wkd_relay and view.hkp_listen]
    return lines + [f"view {name}: WKD of other domains is searched for {_relays(config)}" for name in relaying]


def holds_for(domain: str, config: Config) -> list[str]:
    """What the configuration says of a domain's recipients, one line each: the rule, whom they are told to, and why not
    to others."""
    from keyserver.app.rules import lookup_rules
    from keyserver.model import Kind
    from keyserver.policy import in_domains, told, with_subdomains
    from keyserver.query import ByAddress
    from keyserver.resolver.plan import tiers_of

    rules = lookup_rules(config, {})
    rule = rules.terms.domains.of(domain)
    lines = ["the rule: none"] if rule is None else [f"the rule: {rule.name}", *(f"  {o}" for o in rule.describe())]
    if in_domains(domain, with_subdomains(config.policy.internal_domains)):
        lines.append("internal: told only to upstreams that list it; mail speaks for none of its addresses")
    if rules.subaddress and in_domains(domain, rules.subaddress_domains):
        lines.append(f"user{rules.subaddress}tag@ is asked for as user@ where nobody has a certificate for it")
    specs = rules.terms.upstreams.values()
    for kind in Kind:
        query = ByAddress("somebody", domain, kind)
        tiers = tiers_of(specs, query, rules.terms)
        asked = [", ".join(spec.name for spec in tier) for tier in tiers.tiers]
        lines.append(f"{kind}: {', then '.join(asked) or 'nobody'} is asked")
        lines += [f"  not {name}: {why}" for name, why in tiers.left_out.items()]
    believed = [spec for spec in specs if not told(spec, domain, rules.terms)]
    times = sorted({rules.terms.ttl_of(spec.name, f"somebody@{domain}") for spec in believed})
    return lines + [f"what they say holds for {', '.join(f'{time} s' for time in times)}"] * bool(times)


def _relays(config: Config) -> str:
    """Whom a view that relays WKD asks: those that speak for a domain's owner (`policy.uncounted`)."""
    from keyserver.model import Kind
    from keyserver.policy import in_domains, with_subdomains
    from keyserver.upstreams.register import BY_SCHEME

    own = with_subdomains(config.policy.internal_domains)
    names = []
    for upstream in config.upstream:
        spec = BY_SCHEME[upstream.scheme].spec_of(upstream)
        others = any(not in_domains(domain.removeprefix("*."), own) for domain in spec.domains)
        if Kind.OPENPGP in spec.kinds and (others or (spec.by_owner and not spec.domains)):
            names.append(upstream.name)
    return f"at {', '.join(names)}" if names else "in the cache alone: no upstream speaks for their owners"


def discloses(config: Config) -> list[str]:
    """One line for each upstream, in the order in which they are asked: what it hears of those who ask us."""
    from keyserver.upstreams.register import BY_SCHEME

    specs = [BY_SCHEME[upstream.scheme].spec_of(upstream) for upstream in config.upstream]
    lines = []
    for spec, u in sorted(zip(specs, config.upstream, strict=True), key=lambda both: (both[0].priority, both[0].name)):
        protocol = BY_SCHEME[u.scheme]
        learns = "" if spec.template else protocol.learns
        said = [_hears(u, spec, protocol, config), _channel(u, protocol), learns]
        said += [] if spec.required else ["what it does not say is no failure"]
        lines.append(f"{spec.priority:>4}  {u.name}  {u.url}\n        {'; '.join(filter(None, said))}")
    return lines or ["nobody: only what is cached is answered"]


def gateways(config: Config) -> list[str]:
    """One line for each certificate of a domain's gateway, and one for whose word counts beside them."""
    from keyserver.model import joined

    lines = [
        f"{row.domain}  to {row.fingerprint}, which must be a local entry: `keyserver can-encrypt` says whether it is"
        for row in config.domain_certificate
    ]
    listing = [upstream.name for upstream in config.upstream if upstream.domains]
    if config.policy.domain_authority:
        who = f"of {joined(listing)}, for the domains that they list" if listing else "of nobody: none lists a domain"
        lines.append(f"else     to the domain's authority (RFC 3183), by the word {who}")
    return lines


def _hears(upstream: UpstreamSection, spec: UpstreamSpec, protocol: Protocol, config: Config) -> str:
    """Which questions reach an upstream."""
    from keyserver.query import ByFingerprint, ByKeyId, ByText

    internal = ", ".join(config.policy.internal_domains)
    if spec.template:
        which = f"addresses of {', '.join(upstream.domains)}" if upstream.domains else "each address"
        kept = f" (never of {internal})" if internal and not upstream.domains else ""
        learns = protocol.learns or "the host of its own domain hears it, and name servers hear the domain"
        return f"{which}{kept}: {learns}; no fingerprints"
    words = {ByFingerprint: "every fingerprint", ByKeyId: "key ID"}
    names = " and ".join(word for query, word in words.items() if query in protocol.hears)
    if upstream.domains:
        return f"hears addresses of {', '.join(upstream.domains)} only{f', and {names}' if names else ''}"
    kept = f" except those of {internal}" if internal else ""
    text = ", and free text" if config.policy.text_search == "upstream" and ByText in protocol.hears else ""
    return f"hears every address{kept}{f', {names}' if names else ''}{text} that the cache cannot answer"


def _channel(upstream: UpstreamSection, protocol: Protocol) -> str:
    """How it is reached; empty where `learns` says it."""
    if protocol.bare and upstream.scheme not in protocol.encrypted:
        return ""
    encrypted = upstream.scheme in protocol.encrypted or upstream.starttls
    return f"{'over TLS' if encrypted else 'unencrypted'}{f' through {upstream.proxy}' if upstream.proxy else ''}"
