"""Cleaning functions that go wrong, in a module of their own: a worker process imports it by name."""

import os
import threading
import time

from keyserver.model import Refused
from keyserver.resolver.worker import Cleaned


def where(octets: bytes, now: int) -> Cleaned:
    """Tells who cleaned."""
    return [Refused(f"{os.getpid()} {threading.current_thread().name} {os.nice(0)}")]


def misbehave(octets: bytes, now: int, how: str) -> Cleaned:
    """A cleaning function that goes wrong for inputs that begin with `!`."""
    if octets[:1] != b"!":
        return where(octets, now)
    match how:
        case "sleep":
            time.sleep(60)
        case "die":
            os._exit(3)
        case "memory":
            return [Refused(str(len(bytearray(1 << 30))))]
        case "raise":
            raise KeyError("a fault of ours")
    return []
