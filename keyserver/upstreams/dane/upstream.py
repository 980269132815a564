"""OPENPGPKEY (RFC 7929) and SMIMEA (RFC 8162) records, asked of a name server that validates DNSSEC.

Nothing that is not signed counts. The name server's AD bit is believed, because of where it is (`server`). Without the
bit an answer may mean an unsigned domain, which has nothing to say, or a server that does not validate, which proves
nothing: the root, which is signed, tells the two apart.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from pathlib import Path

from dns.edns import EDECode
from dns.rcode import NOERROR, NXDOMAIN, SERVFAIL
from dns.rcode import to_text as rcode_name

from keyserver.model import Absent, Failed, Fault, Found, Malformed, Outcome, Raw, UpstreamSpec
from keyserver.query import ByAddress, Query
from keyserver.upstreams.base import Asking
from keyserver.upstreams.dane.message import ROOT, Answer, Question, certificate_in, question_for, read
from keyserver.upstreams.dane.server import NameServer
from keyserver.upstreams.dane.transport import Transport
from keyserver.upstreams.net import SPECIAL_USE, template_host
from keyserver.upstreams.trouble import ours, starved

AT_ONCE = 32  # questions, each with a socket
VALIDATES_FOR = 86_400.0  # seconds that a server which was seen to validate is taken to do so
DOUBTED_FOR = 60.0  # seconds until one that was seen not to is asked for the root again

_BOGUS = frozenset(
    {
        EDECode.DNSSEC_BOGUS,
        EDECode.SIGNATURE_EXPIRED,
        EDECode.SIGNATURE_NOT_YET_VALID,
        EDECode.DNSKEY_MISSING,
        EDECode.RRSIGS_MISSING,
        EDECode.NO_ZONE_KEY_BIT_SET,
        EDECode.NSEC_MISSING,
        EDECode.SIGNATURE_EXPIRED_BEFORE_VALID,
    }
)


class Dane:
    """The DNS as an upstream. `tls_ca_file`: see Transport; `special_use` is an argument for tests."""

    def __init__(
        self,
        spec: UpstreamSpec,
        server: NameServer,
        *,
        monotonic: Callable[[], float],
        tls_ca_file: str | Path | None = None,
        special_use: frozenset[str] = SPECIAL_USE,
    ) -> None:
        """Raises ValueError, with a sentence for the configuration, if this cannot work."""
        self.spec = spec
        self._way = Transport(server, monotonic, tls_ca_file)
        self._monotonic = monotonic
        self._special_use = special_use
        self._from = f"from {server.address}"
        self._places = asyncio.Semaphore(AT_ONCE)
        self._probing = asyncio.Lock()
        self._validates_until = self._doubted_until = monotonic()

    def target(self, query: Query) -> str:
        """`name/domain`, or the name alone for what is never asked."""
        asked = isinstance(query, ByAddress) and self._public(query)
        return f"{self.spec.name}/{query.domain}" if asked and isinstance(query, ByAddress) else self.spec.name

    async def fetch(self, query: Query, asking: Asking) -> Outcome:
        """Ask once (see `Upstream.fetch`)."""
        if not isinstance(query, ByAddress):
            return Absent("it is asked for addresses only", remember=False)
        question = question_for(query) if self._public(query) else None
        if question is None:
            return Absent("the address has no public domain that could have such a record")
        try:
            async with asyncio.timeout(asking.left), self._places:
                return await self._ask(question, query)
        except Exception as error:  # whatever sockets and libraries may raise: the border of this layer is an Outcome
            return _explain(error)

    async def close(self) -> None:
        """Close all connections."""
        self._way.close()

    def _public(self, query: ByAddress) -> bool:
        return template_host("{domain}", query.domain, self._special_use) is not None

    async def _ask(self, question: Question, query: ByAddress) -> Outcome:
        answer = await self._answer(question)
        if answer.rcode == SERVFAIL:
            return await self._broken(question, answer)
        if answer.rcode not in (NOERROR, NXDOMAIN):
            return Failed(f"the name server answered {rcode_name(answer.rcode)}")
        if not answer.authentic:
            if doubt := await self._doubt():
                return Failed(doubt)
            return Absent("the domain is not signed: nothing in it counts", method=f"dane {self._from}")
        self._validates_until = self._monotonic() + VALIDATES_FOR
        method = f"dane AD {self._from}"
        raws = dict.fromkeys(Raw(query.kind, octets) for record in answer.records if (octets := certificate_in(record)))
        if raws:
            return Found(tuple(raws), ("a record that cannot be read",) if answer.damaged else (), method=method)
        if answer.damaged:
            return Failed("it sent a record that cannot be read", Fault.LOCAL, method=method)
        if answer.records:
            return Absent("its records hold no whole certificate of a person", method=method)
        return Absent(f"the domain denies it, signed ({rcode_name(answer.rcode)})", method=method)

    async def _answer(self, question: Question, *, checked: bool = True) -> Answer:
        """Raises OSError, EOFError, Malformed."""
        return read(question, await self._way.ask(question.octets(checked=checked)))

    async def _broken(self, question: Question, answer: Answer) -> Failed:
        """What a SERVFAIL means: by its extended error (RFC 8914), or by what is there when nobody checks."""
        bogus = [code for code in answer.errors if code in _BOGUS]
        if bogus:
            said = EDECode.to_text(bogus[0]).replace("_", " ").lower()
            return Failed(f"the domain's signatures are bogus ({said})")
        try:
            unchecked = await self._answer(question, checked=False)
        except (OSError, EOFError, Malformed):
            unchecked = answer
        if unchecked.rcode in (NOERROR, NXDOMAIN):
            return Failed("the domain's signatures are bogus: it answers only where nobody checks them")
        return Failed("the domain's name servers are broken: the name server answered SERVFAIL")

    async def _doubt(self) -> str:
        """Why an answer without the AD bit proves nothing; empty where the server is known to validate."""
        async with self._probing:
            now = self._monotonic()
            if now < self._validates_until:
                return ""
            doubt = f"the name server does not validate DNSSEC ({self._from})"
            if now < self._doubted_until:
                return doubt
            answer = await self._answer(ROOT)
            if answer.authentic and answer.rcode == NOERROR:
                self._validates_until = now + VALIDATES_FOR
                return ""
            if answer.rcode != NOERROR:
                return f"the name server cannot be seen to validate DNSSEC: {rcode_name(answer.rcode)} to the root"
            self._doubted_until = now + DOUBTED_FOR
            return doubt


def _explain(error: Exception) -> Failed:
    """Why asking failed, in words that name no query."""
    if ours(error):
        number = getattr(error, "errno", None)
        return Failed(f"not asked: {os.strerror(number) if number else type(error).__name__} here", Fault.LOCAL)
    match error:
        case Malformed():
            return Failed(f"the name server sent {error}", Fault.LOCAL)
        case TimeoutError():
            return Failed("no answer in time")
        case ssl.SSLError() if starved():
            return Failed("not asked: file descriptors are running out here", Fault.LOCAL)
        case ssl.SSLCertVerificationError():
            return Failed(f"the name server's TLS certificate is not good: {error.verify_message}", Fault.CONFIGURATION)
        case ssl.SSLError():
            return Failed("the TLS handshake with the name server failed")
        case EOFError() | ConnectionResetError() | BrokenPipeError():
            return Failed("the name server closed the connection")
        case OSError(errno=int() as number):
            return Failed(f"no connection to the name server: {os.strerror(number)}")
        case OSError():
            return Failed("no connection to the name server")
    return Failed(f"the name server could not be asked ({type(error).__name__})")
