"""What policy goes by, out of the configuration."""

from __future__ import annotations

from keyserver.config import Config
from keyserver.model import UpstreamSpec
from keyserver.policy import Terms
from keyserver.upstreams.register import BY_SCHEME


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
            kinds=BY_SCHEME[section.scheme].kinds,
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
