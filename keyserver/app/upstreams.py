"""The upstreams that the configuration names, by their URL's scheme."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from keyserver.app.context import CannotStart, Context
from keyserver.app.passwords import read_password
from keyserver.clocks import Clocks
from keyserver.config import UpstreamSection
from keyserver.model import UpstreamSpec
from keyserver.upstreams.base import Upstream

LDAP_THREADS = 4


def _hkp(section: UpstreamSection, spec: UpstreamSpec, clocks: Clocks, threads: ThreadPoolExecutor) -> Upstream:
    from keyserver.upstreams.hkp.upstream import Hkp

    return Hkp(
        spec,
        section.url,
        clock=clocks.now,
        proxy=section.proxy,
        tls_ca_file=section.tls_ca_file or "",
        allow_private=section.allow_private,
    )


def _ldap(section: UpstreamSection, spec: UpstreamSpec, clocks: Clocks, threads: ThreadPoolExecutor) -> Upstream:
    # ldap3 takes its time to load; most installations never ask by LDAP
    from keyserver.upstreams.ldap.upstream import Ldap

    file = section.bind_password_file
    password = read_password(f"upstream[{section.name}].bind_password_file", file).decode() if file else ""
    return Ldap(
        spec,
        section.url,
        threads=threads,
        monotonic=clocks.monotonic,
        starttls=section.starttls,
        tls_ca_file=section.tls_ca_file or "",
        bind_dn=section.bind_dn,
        bind_password=password,
        filter=section.filter,
        attributes=section.attributes,
        allow_private=section.allow_private,
    )


SCHEMES: Mapping[str, Callable[[UpstreamSection, UpstreamSpec, Clocks, ThreadPoolExecutor], Upstream]] = {
    "hkp": _hkp,
    "hkps": _hkp,
    "ldap": _ldap,
    "ldaps": _ldap,
}


@contextlib.asynccontextmanager
async def open_upstreams(context: Context) -> AsyncIterator[Mapping[str, Upstream]]:
    """Each upstream by its name, until the block ends; none is asked yet. Raises CannotStart."""
    threads = ThreadPoolExecutor(LDAP_THREADS, "ldap")
    specs = context.terms.upstreams
    try:
        upstreams = {
            s.name: SCHEMES[s.scheme](s, specs[s.name], context.clocks, threads) for s in context.config.upstream
        }
    except (OSError, ValueError) as problem:
        raise CannotStart(f"upstream: {problem}") from None
    try:
        yield upstreams
    finally:
        await asyncio.gather(*(u.close() for u in upstreams.values()))
        threads.shutdown(wait=False, cancel_futures=True)
