"""Where a face listens: an address and a port, with or without TLS, or a Unix socket; perhaps behind a proxy."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ACCEPTED = (
    '"127.0.0.1:11371", "[::1]:11371", "tls:0.0.0.0:443" or "unix:/run/keyserver/hkp.sock", '
    'with "proxy:" before it where a proxy speaks the PROXY protocol to us'
)

_HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?(?:\.[A-Za-z0-9-]{1,63})*")


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket. Port 0 lets the system choose; `unix` is set instead of host and port."""

    host: str = ""  # an IP address without brackets, or a host name
    port: int = 0
    tls: bool = False
    unix: Path | None = None
    proxied: bool = False  # each connection begins with a PROXY header, before TLS

    def __str__(self) -> str:
        """As written in the configuration."""
        proxied = "proxy:" if self.proxied else ""
        if self.unix is not None:
            return f"{proxied}unix:{self.unix}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{proxied}{'tls:' if self.tls else ''}{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Can only this machine reach it?"""
        if self.unix is not None or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Listening:
    """One listener that the configuration names, with what it is for."""

    key: str  # as people write it: `hkp.listen`, `view[inside].hkp_listen`
    face: str
    view: str
    listener: Listener


def read_listener(value: Any) -> Listener:
    """A listener from its spelling; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no listener")
    text = value.strip()
    proxied = text.startswith("proxy:")
    text = text.removeprefix("proxy:")
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        # sun_path holds 108 octets with its end mark on Linux, fewer elsewhere
        if not path or "\0" in path or len(path.encode()) > 100:
            raise ValueError(f"{text!r}: the socket's path has 1 to 100 octets")
        return Listener(unix=Path(path), proxied=proxied)
    tls = text.startswith("tls:")
    host, colon, port = text.removeprefix("tls:").rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{text!r} has no port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        return Listener(str(ipaddress.IPv6Address(host[1:-1])), int(port), tls, proxied=proxied)
    if re.fullmatch(r"[0-9.]+", host):
        return Listener(str(ipaddress.IPv4Address(host)), int(port), tls, proxied=proxied)
    if not _HOST_NAME.fullmatch(host):
        raise ValueError(f"{text!r} has no address before its port (an IPv6 address stands in brackets)")
    return Listener(host.lower(), int(port), tls, proxied=proxied)
