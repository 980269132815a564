"""A connection to a directory's host: resolved and made on the event loop, so that silence costs no thread."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from keyserver.model import Fault
from keyserver.upstreams.ldap.link import LinkError
from keyserver.upstreams.net import Names, NoSuchHost
from keyserver.upstreams.trouble import ours, proves_nothing

MAX_ADDRESSES = 3  # of a host, tried one after the other


async def connect(
    names: Names,
    host: str,
    port: int,
    end: float,
    monotonic: Callable[[], float],
    *,
    allow_private: bool = False,
    in_full: bool = True,
) -> socket.socket:
    """A connected, blocking socket, by `end` on the monotonic clock, to exactly the addresses that the guard of `net`
    lets through (see `Names.guarded_addresses`). Raises LinkError, NoSuchHost."""
    try:
        async with asyncio.timeout(end - monotonic()):
            addresses = await names.guarded_addresses(host, port, allow_private, in_full=in_full)
    except TimeoutError as error:
        raise LinkError("its name could not be resolved in time") from error
    except NoSuchHost:
        raise
    except OSError as error:
        fault = Fault.LOCAL if ours(error) else Fault.TRANSIENT
        raise LinkError("its name could not be resolved", fault) from error
    addresses = addresses[:MAX_ADDRESSES]
    slow = False
    problems: list[OSError] = []
    for position, address in enumerate(addresses):
        share = (end - monotonic()) / (len(addresses) - position)
        try:
            return await _connected(address, port, share)
        except TimeoutError:
            slow = True
        except OSError as error:
            problems.append(error)
    if problems and not slow and all(proves_nothing(problem) for problem in problems):
        fault = Fault.LOCAL if all(ours(problem) for problem in problems) else Fault.TRANSIENT
        raise LinkError(f"it cannot be reached from here: {problems[0].strerror}", fault)
    if slow:
        raise LinkError("it could not be connected to in time", unmade=True, slow=True)
    raise LinkError("it cannot be connected to", unmade=True)


async def _connected(address: str, port: int, seconds: float) -> socket.socket:
    """A blocking socket, connected to this very address. Raises OSError, TimeoutError among them."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        async with asyncio.timeout(max(0.0, seconds)):
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock
