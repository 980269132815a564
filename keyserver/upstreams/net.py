"""The network guard that all upstreams share: names to addresses, and which of them may be asked.

A template such as `keys.{domain}` lets whoever asks choose the host. Three things keep that from becoming a way into
our own network: `template_host` admits only ordinary public domain names; `Names.guarded_addresses` resolves once and
drops every address that is not global; the caller then connects to exactly these addresses (a second resolution could
be answered differently: DNS rebinding) and checks TLS for the name.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
from cachetools import FIFOCache

from keyserver.upstreams.host import Address, is_inside, is_name, literal
from keyserver.upstreams.trouble import ours, starved

MAX_ADDRESSES = 16  # of one host; more are ignored
MIN_PATIENCE = 1.0  # seconds that must have gone by before silence at a new host counts as absence
GONE_KEPT = 900.0  # seconds that a template's host is taken for not existing
MAX_GONE = 10_000  # such hosts that are remembered
SRV_TIMEOUT = 1.0  # seconds; a pool's SRV records are worth no longer wait
HOSTS_FILE = Path("/etc/hosts")

_T = TypeVar("_T")

SPECIAL_USE = frozenset(
    # IANA's special-use domain names (RFC 6761, 6762, 7686, 8375, 9476, …), ICANN's `internal`, and the names that
    # RFC 6762 appendix G finds in private networks
    [
        "alt",
        "arpa",
        "example",
        "example.com",
        "example.net",
        "example.org",
        "invalid",
        "local",
        "localhost",
        "onion",
        "test",
        "internal",
        "corp",
        "home",
        "intranet",
        "lan",
        "localdomain",
        "private",
    ]
)

_SPECIAL_V4 = tuple(
    # IANA's IPv4 special-purpose registry (RFC 6890): whatever is not globally reachable, and multicast
    ipaddress.IPv4Network(n)
    for n in [
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    ]
)
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")  # the only global unicast space that is allocated
_SPECIAL_V6 = tuple(ipaddress.IPv6Network(n) for n in ["2001::/23", "2001:db8::/32", "3fff::/20"])
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215


class NoSuchHost(OSError):
    """The name does not exist or has no address: not a failure of anybody's."""


class NotPublic(NoSuchHost):
    """The name exists, but none of its addresses may be asked."""


class NotInside(NoSuchHost):
    """The name exists, but none of its addresses is loopback or in a private network."""


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV target (RFC 2782); lower `priority` first."""

    host: str
    port: int
    priority: int = 0
    weight: int = 0


Lookup: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Name (a trailing dot: no search list) and port to addresses; raises NoSuchHost, or OSError for trouble."""
SrvLookup: TypeAlias = Callable[[str], Awaitable[Sequence[Service]]]
"""SRV name to its records, () when there are none or nobody says; never raises."""


def is_global(address: Address) -> bool:
    """Whether an address lies in the public Internet, judged by the IPv4 address inside where there is one.

    IPv4-mapped, NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056) and Teredo (RFC 4380: server and client) are unwrapped.
    Stricter than `ipaddress`, whose idea of global differs between Python versions: whatever is not allocated as
    global unicast is refused.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    if address.scope_id is not None:
        return False
    if (inner := _embedded(address)) is not None:
        return all(is_global(a) for a in inner)
    return address in _UNICAST_V6 and not any(address in network for network in _SPECIAL_V6)


def _embedded(address: ipaddress.IPv6Address) -> tuple[ipaddress.IPv4Address, ...] | None:
    """The IPv4 addresses that an IPv6 address stands for, or None."""
    if (mapped := address.ipv4_mapped) is not None:
        return (mapped,)
    if (sixtofour := address.sixtofour) is not None:
        return (sixtofour,)
    if (teredo := address.teredo) is not None:
        return teredo
    if address in _NAT64:
        return (ipaddress.IPv4Address(address.packed[12:]),)
    if address in _NAT64_LOCAL:
        # The operator chooses the prefix length. Only /96 is read; what could also be a shorter one (RFC 6052
        # section 2.2 puts the IPv4 address around octet 8) yields the unspecified address: not global.
        known = not any(address.packed[8:12])
        return (ipaddress.IPv4Address(address.packed[12:] if known else 0),)
    return None


def is_special(host: str, special_use: frozenset[str] = SPECIAL_USE) -> bool:
    """Whether a lower-case name is, or lies below, one of the special-use names."""
    labels = host.split(".")
    return any(".".join(labels[i:]) in special_use for i in range(len(labels)))


def template_host(template: str, domain: str, special_use: frozenset[str] = SPECIAL_USE) -> str | None:
    """The host that a template such as `keys.{domain}` names for the domain of an address, or None: do not ask.

    The domain comes from whoever asks. Admitted: A-labels, at least two, the whole name at most 253 characters. Not
    admitted: address literals, single labels, special-use names. `special_use` is an argument for tests, which have
    no other names to play with.
    """
    domain = domain.lower()
    if "." not in domain or not is_name(domain) or is_special(domain, special_use):
        return None
    host = template.replace("{domain}", domain).lower()
    return host if is_name(host) and not is_special(host, special_use) else None


class Names:
    """Resolves names for one upstream, at most `threads` at once: slow name servers of strangers hold up nobody else.

    The C library's resolver cannot be given up on, and threads of an executor are waited for when the process ends;
    so each lookup gets a daemon thread of its own.
    """

    def __init__(
        self,
        lookup: Lookup | None = None,
        srv: SrvLookup | None = None,
        *,
        threads: int = 8,
        inside: bool = False,
    ) -> None:
        """`inside`: only loopback and private networks are connected to."""
        self.inside = inside
        self._lookup: Lookup = lookup or self._system
        self._srv: SrvLookup = srv or srv_lookup
        self._slots = asyncio.Semaphore(threads)

    async def resolve(self, host: str, port: int, *, in_full: bool = False) -> tuple[str, ...]:
        """A host's addresses, in the system's order. Raises NoSuchHost, or OSError where nobody could say.

        The search list of the system is used only for a name written `in_full` in the configuration.
        """
        if (address := literal(host)) is not None:
            return (str(address),)
        name = host if in_full or host.endswith(".") else host + "."
        found = tuple(dict.fromkeys(await self._lookup(name, port)))[:MAX_ADDRESSES]
        if not found:
            raise NoSuchHost("no such host")
        return found

    async def guarded_addresses(
        self, host: str, port: int, allow_private: bool = False, *, in_full: bool = False
    ) -> tuple[str, ...]:
        """The addresses to connect to, and no others: those that are not global are dropped.

        All are kept with `allow_private`, or when the host itself is written `in_full` in the configuration; but
        `inside`, all that are not loopback or private are dropped.
        Raises NoSuchHost (NotPublic, NotInside when all were dropped), or OSError where nobody could say.
        """
        found = await self.resolve(host, port, in_full=in_full)
        if self.inside:
            found = tuple(a for a in found if is_inside(ipaddress.ip_address(a)))
            if not found:
                raise NotInside("its address is public: without TLS only loopback and private networks are asked")
        if allow_private or in_full:
            return found
        kept = tuple(a for a in found if is_global(ipaddress.ip_address(a)))
        if not kept:
            raise NotPublic("no public address")
        return kept

    async def services(self, name: str) -> tuple[Service, ...]:
        """The SRV records of `name`, best first, at most 16; () when there are none or they take too long."""
        try:
            async with asyncio.timeout(SRV_TIMEOUT):
                found = await self._srv(name)
        except TimeoutError:
            return ()
        return tuple(sorted(found, key=lambda s: (s.priority, -s.weight))[:MAX_ADDRESSES])

    async def _system(self, host: str, port: int) -> Sequence[str]:
        """Ask the C library in a thread of its own."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Sequence[str]] = loop.create_future()
        await self._slots.acquire()

        def finish(found: Sequence[str], error: OSError | None) -> None:
            self._slots.release()
            if answer.done():
                return
            if error is None:
                answer.set_result(found)
            else:
                answer.set_exception(error)

        def work() -> None:
            found: Sequence[str] = ()
            error: OSError | None = None
            try:
                found = blocking_lookup(host, port)
            except OSError as caught:
                error = caught
            except UnicodeError as caught:  # a label that the codec does not like
                error = NoSuchHost(str(caught))
            except Exception as caught:
                error = OSError(f"{type(caught).__name__} while resolving a name")
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, found, error)

        try:
            threading.Thread(target=work, name="resolve", daemon=True).start()
        except RuntimeError as error:
            self._slots.release()
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
        return await answer


def blocking_lookup(host: str, port: int) -> Sequence[str]:
    """getaddrinfo, preceded by the hosts file for absolute names: glibc does not find those in it.

    Raises NoSuchHost, or OSError where nobody could say: the servers, or we ourselves for want of descriptors.
    """
    if host.endswith(".") and (listed := _hosts_file(host[:-1])):
        return listed
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            if starved():
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE)) from error
            raise NoSuchHost("no such host") from error
        raise
    return [str(info[4][0]) for info in infos]


def _hosts_file(host: str, path: Path = HOSTS_FILE) -> list[str]:
    """The addresses of a name in the hosts file. Raises OSError where it is our own trouble that it cannot be read."""
    found = []
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                words = line.partition("#")[0].split()
                if host in (word.lower() for word in words[1:]) and literal(words[0]) is not None:
                    found.append(words[0])
    except OSError as error:
        if ours(error) and not isinstance(error, PermissionError):
            raise
    return found


async def srv_lookup(name: str) -> Sequence[Service]:
    """SRV records by dnspython, within SRV_TIMEOUT seconds; host `.` means "no such service here" (RFC 2782)."""
    try:
        answer = await dns.asyncresolver.Resolver().resolve(
            name.rstrip(".") + ".", dns.rdatatype.SRV, search=False, lifetime=SRV_TIMEOUT
        )
    except (dns.exception.DNSException, OSError, ValueError):
        return ()
    return [
        Service(str(r.target).lower().rstrip(".") or ".", r.port, r.priority, r.weight)
        for r in (answer.rrset or ())
        if hasattr(r, "target")
    ]


class Resolved:
    """Which hosts once answered, at most `most` of them, least recently seen forgotten first.

    A host that never did and cannot be connected to is taken as not existing (absent); one that did has failed.
    """

    def __init__(self, most: int = 10_000) -> None:
        self._hosts: FIFOCache[str, None] = FIFOCache(most)

    def add(self, host: str) -> None:
        """Note that this host has answered."""
        self._hosts[host] = None

    def __contains__(self, host: str) -> bool:
        return host in self._hosts

    def __len__(self) -> int:
        return len(self._hosts)


def recall(kept: FIFOCache[str, tuple[_T, float]], host: str, now: float) -> _T | None:
    """What is remembered of a host, unless its time is over."""
    what, until = kept.get(host, (None, 0.0))
    if what is not None and now >= until:
        del kept[host]
        return None
    return what
