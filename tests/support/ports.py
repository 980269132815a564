"""Ports that nobody listens on."""

from __future__ import annotations

import socket


def free_port(address: str = "127.0.0.1") -> int:
    """A port of this address that nobody has now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
