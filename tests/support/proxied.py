"""Searches through a proxy in front of the service, from addresses of loopback: each client is limited by itself."""

from __future__ import annotations

import asyncio
import socket
import ssl

MISSES = 5
"""Searches that one client may start."""


def settings(**more: str) -> dict[str, str]:
    """Of a service behind a proxy on 127.0.0.1: strangers are limited, 127.0.0.3 is not."""
    return {
        "limits.misses_per_minute": str(MISSES),
        "limits.proxies": '["127.0.0.1/32"]',
        "limits.trusted": '["127.0.0.3/32"]',
        **more,
    }


def asked(port: int, numbers: range, source: str, headers: str = "", tls: ssl.SSLContext | None = None) -> int:
    """How many of these searches, from this address, were not limited."""
    count = 0
    for number in numbers:
        with socket.create_connection(("127.0.0.1", port), 10, (source, 0)) as plain:
            client = tls.wrap_socket(plain, server_hostname="localhost") if tls is not None else plain
            target = f"/pks/lookup?op=get&search=0x{number:040X}"
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n".encode())
            said = b""
            while piece := client.recv(65536):
                said += piece
            count += said.startswith(b"HTTP/1.1 404 ")
            if tls is not None:
                client.close()
    return count


async def held_apart(port: int, tls: ssl.SSLContext | None = None) -> None:
    """Behind this proxy each client has a limit of its own, and no header of theirs changes who they are."""

    def tries() -> list[int]:
        return [
            asked(port, range(100, 110), "127.0.0.2", tls=tls),
            asked(
                port, range(110, 120), "127.0.1.2", "X-Forwarded-For: 127.0.0.3\r\nForwarded: for=127.0.0.3\r\n", tls
            ),
            asked(port, range(120, 130), "127.0.0.3", tls=tls),  # one that is trusted
            asked(port, range(130, 140), "127.0.0.2", tls=tls),
        ]

    assert await asyncio.to_thread(tries) == [MISSES, MISSES, 10, 0]
