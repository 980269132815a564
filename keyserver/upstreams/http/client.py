"""The HTTP client of upstreams: one question, every bound, and an Outcome whatever happens.

Nothing that the other side sends is trusted to be short, quick or honest: one deadline for the whole answer, bounds on
headers and body, no compression, redirects followed by hand, connections only to addresses that the guard admits.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import aiohttp
from aiohttp.http import HttpProcessingError
from yarl import URL

from keyserver import __version__
from keyserver.config.kinds import spell_octets
from keyserver.model import Absent, Failed, Fault, Outcome
from keyserver.upstreams.base import Asking
from keyserver.upstreams.coding import RATIO
from keyserver.upstreams.host import is_inside, is_name, literal
from keyserver.upstreams.http.addresses import Addresses
from keyserver.upstreams.http.kept import MAX_HEADERS, MAX_LINE, Keeping, Reply
from keyserver.upstreams.net import MIN_PATIENCE, Names, NoSuchHost, NotInside, Resolved, is_global
from keyserver.upstreams.trouble import WRONG_NAME, ours, proves_nothing, starved
from keyserver.upstreams.verdict import GOOD, MAX_BODY, encoding

MAX_ERROR_BODY = 64 << 10  # of an answer other than 200, or to OPTIONS: enough for a phrase
LARGE = 1 << 20  # octets from which on an answer needs one of LARGE_AT_ONCE places
LARGE_AT_ONCE = 2
IN_THREAD = 64 << 10  # octets from which on a body is judged in a thread
MAX_REDIRECTS = 3
HEADERS = {"User-Agent": f"keyserver/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
REDIRECTS = frozenset({301, 302, 303, 307, 308})

Judge: TypeAlias = Callable[[int, Mapping[str, str], bytes], Outcome]
"""From status, headers (names compare without case) and body of an answer to what it means; may run in a thread."""


class Client:
    """Asks one upstream.

    `host`: as written in full in the configuration, and asked wherever it is. Without it hosts are made from what is
    asked (a template), and one that does not exist, or never answered and cannot be connected to, is absent. Such
    hosts, and those that SRV records and redirects lead to, must have public addresses unless `allow_private`; a host
    written in full may redirect to itself. `service`: the SRV service to look for at that host, such as
    `_pgpkey-http._tcp`; empty if the URL has a port. `tls_ca_file` replaces the system's certificate authorities;
    ValueError if it is of no use. `most`: octets of a good answer.
    """

    def __init__(
        self,
        *,
        names: Names,
        host: str = "",
        allow_private: bool = False,
        proxy: URL | None = None,
        tls_ca_file: str | Path | None = None,
        service: str = "",
        most: int = MAX_BODY,
    ) -> None:
        self._names = names
        self._most = most
        self._template = not host
        self._host = host
        self._public = (address := literal(host)) is not None and is_global(address)
        self._allow_private = allow_private
        self._proxy = proxy
        self._service = service if proxy is None else ""
        self._tls = _tls(str(tls_ca_file)) if tls_ca_file else None
        self._answered = Resolved()
        self._sessions: dict[tuple[bool, bool], aiohttp.ClientSession] = {}
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._closed = False

    async def ask(self, url: URL, asking: Asking, judge: Judge, method: str = "GET") -> Outcome:
        """GET this URL, or ask for its OPTIONS, and judge the answer, all within `asking.left` seconds.

        Raises nothing but CancelledError."""
        trip = _Trip(url.raw_host or "")
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(asking.left):
                return await self._ask(url, asking.via, trip, judge, method)
        except _Refused as refusal:
            return refusal.failed
        except Exception as error:  # whatever a client library may raise: the border of this layer is an Outcome
            if trip.phase == "queued":
                return Failed("too many large answers are being read", Fault.LOCAL)
            absent = self._absent(trip, error, asyncio.get_running_loop().time() - began)
            if absent is not None and not await asking.answered():
                return absent
            return explain(error)

    async def close(self) -> None:
        """Close all connections; who asks afterwards gets Failed."""
        self._closed = True
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    async def _ask(self, url: URL, via: str, trip: _Trip, judge: Judge, method: str) -> Outcome:
        """Ask, follow redirects, and read the answer of the last one."""
        guarded = self._template and not self._allow_private and self._proxy is None
        for hop in range(MAX_REDIRECTS + 1):
            async with AsyncExitStack() as held:
                session = self._session(hop == 0 or self._proxy is not None, guarded)
                response = await self._head(session, method, url, via, trip, held)
                if hop == 0:
                    self._answered.add(trip.host)
                trip.answers += 1
                if response.status not in REDIRECTS:
                    body = await self._read(response, held, trip, method)
                    if len(body) <= IN_THREAD and not encoding(response.headers):
                        return judge(response.status, response.headers, body)
                    return await asyncio.to_thread(judge, response.status, response.headers, body)
                url = self._onward(url, response)
                guarded = self._guarded(url.raw_host or "")
        raise _Refused(f"it redirects more than {MAX_REDIRECTS} times")

    async def _head(
        self, session: aiohttp.ClientSession, method: str, url: URL, via: str, trip: _Trip, held: AsyncExitStack
    ) -> aiohttp.ClientResponse | Reply:
        """The head of the answer, by a kept connection where there is one; `held` gives the connection back."""
        headers = HEADERS | {"Via": ", ".join(f"1.1 {name}" for name in via.split(","))}
        tls = await self._tls_context() if url.scheme == "https" else True
        if method == "GET" and self._proxy is None and isinstance(session.connector, Keeping):
            trip.phase = "connected"
            if (reply := await session.connector.ask(url, tls, headers)) is not None:
                held.callback(reply.close)
                return reply
            trip.phase = ""
        send = session.get if method == "GET" else session.options
        asking = send(url, headers=headers, allow_redirects=False, proxy=self._proxy, ssl=tls, trace_request_ctx=trip)
        return await held.enter_async_context(asking)

    async def _read(
        self, response: aiohttp.ClientResponse | Reply, held: AsyncExitStack, trip: _Trip, method: str
    ) -> bytes:
        """The body, within its bound; `held` keeps a place for a large one until it has been judged."""
        if isinstance(response.content, bytes):
            return response.content
        good, unpacked = method == "GET" and response.status in GOOD, RATIO if encoding(response.headers) else 1
        most = self._most if good else min(self._most, MAX_ERROR_BODY)
        if good and _announced(response.headers) > most:
            raise _too_large(most)
        body = bytearray()
        large = False
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > most:
                response.close()
                if good:
                    raise _too_large(most)
                break
            if len(body) * unpacked > LARGE and not large:
                large = True
                trip.phase = "queued"
                await held.enter_async_context(self._large)
                trip.phase = "connected"
        return bytes(body)

    def _guarded(self, host: str) -> bool:
        """Must a host that a redirect leads to have public addresses? A proxy's own address is its administrator's."""
        if self._allow_private or self._proxy is not None:
            return False
        return self._template or host != self._host or self._public

    def _onward(self, url: URL, response: aiohttp.ClientResponse | Reply) -> URL:
        """Where a redirect leads, if we follow it."""
        location = response.headers.get("Location", "")
        try:
            given = URL(location, encoded=True)
            target = url.join(given).with_fragment(None)
            host = (target.raw_host or "").lower() if given.raw_host or not given.scheme else ""
        except ValueError:
            raise _Refused("it redirects to something that is not a URL") from None
        address = literal(host)
        if not location or target.scheme not in ("http", "https") or not (address or is_name(host)):
            raise _Refused("it redirects to something that is not an HTTP URL")
        if target.user is not None or target.password is not None:
            raise _Refused("it redirects to a URL with credentials")
        if url.scheme == "https" and target.scheme == "http":
            raise _Refused("it redirects from TLS to plain HTTP")
        if address is not None and not is_global(address) and self._guarded(host):
            raise _Refused("it redirects to an address that is not public")
        if address is not None and self._names.inside and not is_inside(address):
            raise _Refused("it redirects to an address that is public")
        if self._proxy and (host != url.raw_host or not (target.port == url.port or target.is_default_port())):
            raise _Refused("it redirects to another host or port, which cannot be checked behind a proxy")
        return target

    def _absent(self, trip: _Trip, error: BaseException, seconds: float) -> Absent | None:
        """No host, no public address, or no connection, where nobody ever answered: a template's host is not there.

        Not so where it is our own network that fails, or where it had little time."""
        if not self._template or trip.answers or trip.host in self._answered:
            return None
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            if not isinstance(error.os_error, NoSuchHost):
                return None
            return Absent(str(error.os_error) or "no such host")
        if trip.phase != "connecting":
            return None
        silent = isinstance(error, TimeoutError) and seconds >= MIN_PATIENCE
        refused = isinstance(error, aiohttp.ClientConnectorError) and not proves_nothing(error.os_error)
        if isinstance(error, aiohttp.ClientSSLError) and starved():
            return None
        return Absent("nothing answers at its host, and never did") if silent or refused else None

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            context = await asyncio.to_thread(_tls, None)  # reading the system's authorities takes a while
            if starved():  # then it has read none, and nobody's certificate would ever be good again
                raise _Refused("file descriptors are running out here", Fault.LOCAL)
            self._tls = context
        return self._tls

    def _session(self, first: bool, guarded: bool) -> aiohttp.ClientSession:
        """Connections by the rule under which they were made: one made for a trusted host is not reused for others."""
        if (session := self._sessions.get((first, guarded))) is None:
            if self._closed:
                raise _Refused("closed", Fault.LOCAL)
            session = self._sessions[first, guarded] = self._new_session(first, guarded)
        return session

    def _new_session(self, first: bool, guarded: bool) -> aiohttp.ClientSession:
        resolver = Addresses(
            self._names,
            guarded=guarded,
            allow_private=self._allow_private,
            written=(self._proxy.raw_host or "") if self._proxy else self._host,
            service=self._service if first else "",
            seen=self._seen,
        )
        return aiohttp.ClientSession(
            connector=Keeping(resolver=resolver, use_dns_cache=False, keepalive_timeout=5 if self._template else 30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_HEADERS,
            trace_configs=[_tracing()],
        )

    def _seen(self, host: str, addresses: Sequence[str]) -> None:
        """Note that the host is, or once was, in the public Internet: from then on it cannot lead inside."""
        self._public = self._public or (host == self._host and any(is_global(ip_address(a)) for a in addresses))


def _announced(headers: Mapping[str, str]) -> int:
    """Octets of a body by its `Content-Length`; 0 where there is none."""
    length = headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdigit() else 0


def _tls(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"tls_ca_file {ca_file!r} is not a readable PEM file of certificates: {error}") from None


class _Refused(Exception):
    """What we will not go along with, as the outcome it makes."""

    def __init__(self, reason: str, fault: Fault = Fault.TRANSIENT) -> None:
        super().__init__(reason)
        self.failed = Failed(reason, fault)


def _too_large(most: int) -> _Refused:
    return _Refused(f"its answer is larger than {spell_octets(most)}", Fault.LOCAL)


@dataclass(slots=True)
class _Trip:
    """How far one question has come."""

    host: str
    phase: str = ""  # "resolving", "connecting", "connected", "queued": a large answer waits for its place
    answers: int = 0  # redirects included


def _tracing() -> aiohttp.TraceConfig:
    """Tells each trip when its name is being resolved, its connection being made, and when it stands."""

    def enters(phase: str) -> Any:
        async def signal(session: aiohttp.ClientSession, context: SimpleNamespace, _: object) -> None:
            context.trace_request_ctx.phase = phase

        return signal

    config = aiohttp.TraceConfig()
    config.on_dns_resolvehost_start.append(enters("resolving"))
    config.on_dns_resolvehost_end.append(enters("connecting"))
    config.on_connection_create_end.append(enters("connected"))
    config.on_connection_reuseconn.append(enters("connected"))
    return config


def explain(error: BaseException) -> Failed:
    """Why asking failed, in words that name neither host nor query: reasons are logged."""
    beneath = getattr(error, "os_error", error)
    if ours(beneath):
        number = getattr(beneath, "errno", None)
        return Failed(f"not asked: {os.strerror(number) if number else type(beneath).__name__} here", Fault.LOCAL)
    match error:
        case aiohttp.ClientSSLError() if starved():
            return Failed("not asked: file descriptors are running out here", Fault.LOCAL)
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as why):
            wrong_name = getattr(why, "verify_code", 0) in WRONG_NAME
            what = "it is for another name" if wrong_name else getattr(why, "verify_message", "") or "not verified"
            return Failed(f"its TLS certificate is not good: {what}", Fault.CONFIGURATION)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ServerFingerprintMismatch():
            return Failed("its TLS certificate is not good", Fault.CONFIGURATION)
        case aiohttp.ClientConnectorDNSError(os_error=NotInside() as why):
            return Failed(str(why), Fault.CONFIGURATION)
        case aiohttp.ClientConnectorDNSError(os_error=NoSuchHost() as why):
            return Failed(str(why) or "no such host")
        case aiohttp.ClientConnectorDNSError():
            return Failed("its name could not be resolved")
        case aiohttp.ClientHttpProxyError(status=407):
            return Failed("the proxy wants credentials", Fault.CONFIGURATION)
        case aiohttp.ClientHttpProxyError(status=status):
            return Failed(f"the proxy answered {status}")
        case aiohttp.ClientProxyConnectionError():
            return Failed("no connection to the proxy")
        case aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return Failed("the TLS handshake failed")
        case aiohttp.ServerDisconnectedError():
            return Failed("it closed the connection without an answer")
        case aiohttp.ClientPayloadError():
            return Failed("its answer broke off")
        case aiohttp.ClientResponseError(message=str() as message) | HttpProcessingError(message=str() as message):
            what = re.match(r"[A-Za-z0-9' -]{1,60}(?=:|$)", message)  # the parser's words, without what it quotes
            return Failed(f"its answer is not proper HTTP{': ' + what[0] if what else ''}")
        case TimeoutError():
            return Failed("no answer in time")
        case OSError(errno=int() as number):
            return Failed(f"no connection: {os.strerror(number)}")
        case aiohttp.ClientConnectionError() | OSError():
            return Failed("no connection")
    return Failed(f"it could not be asked ({type(error).__name__})")
