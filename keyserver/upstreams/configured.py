"""What the upstreams' own protocols say of a configuration, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from keyserver.config import Problem, UpstreamSection


def mistakes(upstream: UpstreamSection) -> Iterator[Problem]:
    """Every mistake in one upstream that only its protocol knows; its scheme is one that works. No I/O."""
    checks = _ldap(upstream) if upstream.scheme in ("ldap", "ldaps") else _hkp(upstream)
    for key, check in checks:
        try:
            check()
        except ValueError as error:
            shown = getattr(upstream, key)
            value = f'"{shown}"' if isinstance(shown, str) else str(list(shown))
            yield Problem(f"upstream[{upstream.name}].{key}", value, str(error))


def _hkp(upstream: UpstreamSection) -> Iterator[tuple[str, Callable[[], object]]]:
    from keyserver.upstreams.hkp.upstream import parse_url
    from keyserver.upstreams.http.client import check_proxy

    yield "url", lambda: parse_url(upstream.url)
    if upstream.proxy:
        yield "proxy", lambda: _no_template(upstream)
        yield "proxy", lambda: check_proxy(upstream.proxy)


def _no_template(upstream: UpstreamSection) -> None:
    if upstream.template:
        raise ValueError("a {domain} host and a proxy do not go together: the addresses could not be checked")


def _ldap(upstream: UpstreamSection) -> Iterator[tuple[str, Callable[[], object]]]:
    from keyserver.upstreams.ldap.url import check_attributes, check_filter, parse_url

    yield "url", lambda: parse_url(upstream.url)
    if upstream.filter:
        yield "filter", lambda: check_filter(upstream.filter)
    yield "attributes", lambda: check_attributes(upstream.attributes)
