"""LDAP directories as upstreams (RFC 4511), for OpenPGP and X.509: who is asked, and over which connection.

ldap3 blocks, so each question runs in one of a few threads that all LDAP upstreams share. Names are resolved and
connections made on the event loop: a host that drops every packet costs no thread. From then on the guard of
`guard` ends the question at its deadline, and closing the socket from here ends it sooner.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cachetools import FIFOCache

from keyserver.model import Absent, Failed, Fault, Kind, Outcome, UpstreamSpec
from keyserver.query import ByAddress, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.ldap.connecting import connect
from keyserver.upstreams.ldap.kinds import X509_ATTRIBUTES, Directory, holds_openpgp
from keyserver.upstreams.ldap.link import Entrance, Link, LinkError
from keyserver.upstreams.ldap.plan import Plan
from keyserver.upstreams.ldap.url import check_attributes, check_credentials, check_filter, parse_url
from keyserver.upstreams.net import (
    GONE_KEPT,
    MAX_GONE,
    MIN_PATIENCE,
    SPECIAL_USE,
    Names,
    NoSuchHost,
    Resolved,
    recall,
    template_host,
)
from keyserver.upstreams.trouble import ours

__all__ = ["Ldap", "parse_url"]

MAX_ANSWER = 4 << 20  # octets of everything that comes back for one question
KIND_KEPT = 3600.0  # seconds that a server's kind is remembered
MAX_KINDS = 1000  # hosts of a template whose kind is remembered
IDLE = 30.0  # seconds that an unused connection is kept
TEMPLATE_THREADS = 2  # of one template at once: strangers' hosts must not hold all threads
TEMPLATE_CONNECTING = 32  # connections of one template being made at once
GRACE = 0.1  # seconds between the guard's deadline and ours, so that the guard says what was wrong


class Ldap:
    """One LDAP upstream: a directory, or with `{domain}` in its host each domain's own."""

    def __init__(
        self,
        spec: UpstreamSpec,
        url: str,
        *,
        threads: ThreadPoolExecutor,
        monotonic: Callable[[], float],
        starttls: bool = False,
        tls_ca_file: str | Path = "",
        bind_dn: str = "",
        bind_password: str = "",
        filter: str = "",
        attributes: Sequence[str] = (),
        allow_private: bool = False,
        names: Names | None = None,
        special_use: frozenset[str] = SPECIAL_USE,
    ) -> None:
        """Raises ValueError, with a sentence for the configuration, if this cannot work.

        `threads` is shared by all LDAP upstreams (four workers) and stays the caller's. `tls_ca_file` replaces the
        system's certificate authorities; `allow_private` lets a template's hosts have addresses that are not global.
        `names` and `special_use` are for tests.
        """
        self.spec = spec
        self._endpoint = parse_url(url, starttls=starttls, bind_dn=bind_dn)
        check_credentials(bind_dn, bind_password)
        if filter:
            check_filter(filter)
        check_attributes(attributes)
        self._plan = Plan(
            self._endpoint.base,
            filter,
            tuple(a for a in attributes if holds_openpgp(a)),
            tuple(a for a in attributes if not holds_openpgp(a)) or (() if attributes else X509_ATTRIBUTES),
            Kind.OPENPGP in spec.kinds,
        )
        self._tls = self._endpoint.tls or starttls
        self._ca_file = str(tls_ca_file) or None
        self.entrance = Entrance(_tls(self._ca_file) if self._tls else None, starttls, bind_dn, bind_password)
        self._threads = threads
        self._allow_private = allow_private
        self._names = names or Names()
        self._special_use = special_use
        self._monotonic = monotonic
        self._kinds: FIFOCache[str, tuple[Directory, float]] = FIFOCache(MAX_KINDS)
        self._gone: FIFOCache[str, tuple[str, float]] = FIFOCache(MAX_GONE)
        self._answered = Resolved()
        self._idle: list[tuple[Link, asyncio.TimerHandle]] = []
        self._working = asyncio.Semaphore(TEMPLATE_THREADS)
        self._connecting = asyncio.Semaphore(TEMPLATE_CONNECTING)
        self._closed = False

    def target(self, query: Query) -> str:
        """The upstream's name; for a template `name/host`, or the name alone where it makes no host."""
        host = self._host(query) if self._endpoint.template else None
        return f"{self.spec.name}/{host}" if host else self.spec.name

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Ask once (see `Upstream.fetch`)."""
        if query.kind not in self.spec.kinds or self._plan.wants(query) is None:
            return Absent("it cannot be asked that", remember=False)
        host = self._host(query)
        if host is None:
            if not isinstance(query, ByAddress):
                return Absent("it is asked for addresses only", remember=False)
            return Absent("the address has no public domain that could have a keyserver")
        if self._closed:
            return Failed("closed", Fault.LOCAL)
        if (gone := recall(self._gone, host, self._monotonic())) is not None:
            return Absent(gone)
        began = self._monotonic()
        try:
            return await self._ask(host, query, asking.via, began + max(asking.left - GRACE, asking.left / 2))
        except LinkError as error:
            self._kinds.pop(host, None)
            enough = not error.slow or self._monotonic() - began >= MIN_PATIENCE
            if error.unmade and enough and await self._never_answered(host, asking):
                reason = "nothing answers at its host, and never did"
                self._gone[host] = (reason, self._monotonic() + GONE_KEPT)
                return Absent(reason)
            return Failed(error.reason, error.fault)
        except NoSuchHost as error:
            if not await self._never_answered(host, asking):
                return Failed(str(error))
            self._gone[host] = (str(error), self._monotonic() + GONE_KEPT)
            return Absent(str(error))
        except Exception as error:  # the border of this layer is an Outcome
            self._kinds.pop(host, None)
            fault = Fault.LOCAL if ours(error) else Fault.TRANSIENT
            return Failed(f"could not be asked ({type(error).__name__})", fault)

    async def close(self) -> None:
        """Close all connections. The threads stay their owner's."""
        self._closed = True
        while self._idle:
            link, timer = self._idle.pop()
            timer.cancel()
            link.close()

    async def _never_answered(self, host: str, asking: Asking) -> bool:
        """Is this a template's host of which nobody knows that it ever answered?"""
        return self._endpoint.template and host not in self._answered and not await asking.answered()

    def _host(self, query: Query) -> str | None:
        if not self._endpoint.template:
            return self._endpoint.host
        if not isinstance(query, ByAddress):
            return None
        return template_host(self._endpoint.host, query.domain, self._special_use)

    async def _ask(self, host: str, query: Query, via: str, end: float) -> Outcome:
        """Ask over a kept connection, or a new one where there is none or the kept one turns out to be closed."""
        link = self._kept()
        if link is not None:
            with contextlib.suppress(_Stale):
                return await self._exchange(host, link, query, via, end, kept=True)
        async with _slot(self._connecting if self._endpoint.template else None, end - self._monotonic()):
            sock = await self._connect(host, end)
        async with _slot(self._working if self._endpoint.template else None, end - self._monotonic(), sock):
            return await self._exchange(host, Link(sock, host, self._monotonic), query, via, end, kept=False)

    async def _exchange(self, host: str, link: Link, query: Query, via: str, end: float, *, kept: bool) -> Outcome:
        """One question over one connection, in a thread; whatever happens, the connection is kept or closed."""
        known = recall(self._kinds, host, self._monotonic())

        def work() -> tuple[Outcome, Directory]:
            link.arm(end, MAX_ANSWER)
            if not kept:
                link.enter(self.entrance)
            return self._plan.ask(link, query, known, via)

        try:
            job = self._threads.submit(work)
        except RuntimeError as error:  # the threads have been shut down
            link.close()
            raise LinkError("closed", Fault.LOCAL) from error
        try:
            async with asyncio.timeout(end - self._monotonic() + GRACE):
                outcome, directory = await asyncio.wrap_future(job)
        except BaseException as error:
            begun = not job.cancel()
            link.cut()
            job.add_done_callback(lambda _: link.close())
            if isinstance(error, TimeoutError):
                reason = "it did not answer completely in time" if begun else "all threads for LDAP were busy"
                raise LinkError(reason, Fault.TRANSIENT if begun else Fault.LOCAL) from error
            if kept and isinstance(error, LinkError) and error.unheard:
                raise _Stale from error
            raise
        finally:
            if link.answered:
                self._answered.add(host)
        if known is None:
            self._kinds[host] = (directory, self._monotonic() + KIND_KEPT)
        if isinstance(outcome, Failed):
            self._kinds.pop(host, None)
        self._keep(link)
        return outcome

    async def _connect(self, host: str, end: float) -> socket.socket:
        """A connected socket, to exactly the addresses that the guard of `net` let through."""
        return await connect(
            self._names,
            host,
            self._endpoint.port,
            end,
            self._monotonic,
            allow_private=self._allow_private,
            in_full=not self._endpoint.template,
        )

    def _kept(self) -> Link | None:
        if not self._idle:
            return None
        link, timer = self._idle.pop()
        timer.cancel()
        return link

    def _keep(self, link: Link) -> None:
        """Keep a connection for the next question, for IDLE seconds; those to strangers' hosts are closed."""
        if self._endpoint.template or self._closed or not link.reusable:
            link.close()
            return
        loop = asyncio.get_running_loop()

        def expire() -> None:
            self._idle[:] = [kept for kept in self._idle if kept[0] is not link]
            link.close()

        self._idle.append((link, loop.call_later(IDLE, expire)))


class _Stale(Exception):
    """A kept connection had been closed by the other side; nothing was asked yet."""


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"tls_ca_file {ca_file!r} is not a readable PEM file of certificates: {error}") from None


@contextlib.asynccontextmanager
async def _slot(
    places: asyncio.Semaphore | None, left: float, sock: socket.socket | None = None
) -> AsyncIterator[None]:
    """One of the places, waited for `left` seconds; a socket that waits with us is closed when none comes free."""
    if places is None:
        yield
        return
    try:
        async with asyncio.timeout(left):
            await places.acquire()
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, TimeoutError):
            raise LinkError("too many hosts of this template are being asked", Fault.LOCAL) from error
        raise
    try:
        yield
    finally:
        places.release()
