"""Whose trouble an error is: what goes wrong at our own end says nothing of a host, neither "not there" nor "ill"."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from ipaddress import ip_address

SPARE = 8  # file descriptors that must be free for what libraries say to be worth anything

WRONG_NAME = frozenset({62, 64})
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH: the words that it has for them name the host."""

_OURS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.EADDRNOTAVAIL,  # no free port, or no address of our own to come from
        errno.EADDRINUSE,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EAFNOSUPPORT,
        errno.EACCES,  # a firewall or a policy of our own
        errno.EPERM,
    }
)
_ON_THE_WAY = frozenset({errno.EHOSTUNREACH, errno.EHOSTDOWN})


def ours(error: BaseException | None) -> bool:
    """Whether something here was wanting: descriptors, memory, threads, ports, a route, permission."""
    if isinstance(error, MemoryError | RuntimeError):  # RuntimeError: no thread can be started
        return True
    return isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno in _OURS


def proves_nothing(error: BaseException | None) -> bool:
    """Whether nothing was learned of the host, ours or not: a router on the way may have refused, too."""
    return ours(error) or getattr(error, "errno", None) in _ON_THE_WAY


def starved() -> bool:
    """Whether file descriptors are about to run out here.

    Without them the C library says that a name does not exist, and OpenSSL that nobody has signed a certificate.
    """
    held: list[int] = []
    try:
        for _ in range(SPARE):
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return True
    finally:
        for descriptor in held:
            os.close(descriptor)
    return False


def routed(places: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The addresses (with ports) to which this machine has a route; asks the kernel, and sends nothing.

    Raises OSError, which is our own trouble, where there is none. Else a host that refuses could not be told from one
    whose other address we cannot reach: only the last error of a connection is kept.
    """
    kept: list[tuple[str, int]] = []
    first: OSError | None = None
    for address, port in places:
        family = socket.AF_INET if ip_address(address).version == 4 else socket.AF_INET6
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((address, port))
            kept.append((address, port))
        except OSError as error:
            first = first or error
    if not kept and first is not None:
        raise first if ours(first) else OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
    return kept
