"""The cleaning process: requests on one stream, replies on the other, until the first ends.

Started by cleaner.py in an interpreter of its own, so that it imports no more of us than cleaning needs.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeAlias

from keyserver.model import Certificate, Refused

Cleaned: TypeAlias = list[Certificate | Refused]
Clean: TypeAlias = Callable[[bytes, int], Cleaned]

LENGTH = struct.Struct(">I")  # before every frame
READY = b"ready"


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Clean what comes until `requests` ends. A worker that has grown says so and ends."""
    functions, memory, resident = pickle.load(requests)  # noqa: S301 - from the process that started us
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started us ends us
    os.nice(5)
    replies.write(READY)
    replies.flush()
    stays = True
    while stays and (head := _frame(requests)) is not None and (octets := _frame(requests)) is not None:
        kind, now = pickle.loads(head)  # noqa: S301 - likewise
        cleaned = guarded(functions[kind], octets, now)
        stays = _resident() < resident
        reply = pickle.dumps((stays, cleaned))
        replies.write(LENGTH.pack(len(reply)) + reply)
        replies.flush()


def _frame(stream: BinaryIO) -> bytes | None:
    head = stream.read(LENGTH.size)
    return stream.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


def _resident() -> int:
    """Octets of memory that this process has now; elsewhere than on Linux, what it had at most.

    Not getrusage on Linux: there the maximum is inherited from the process that started us."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return largest if sys.platform == "darwin" else largest * 1024


def guarded(function: Clean, octets: bytes, now: int) -> Cleaned:
    """The function's result; whatever it raises is a fault of ours that must cost one input, not the service."""
    try:
        return function(octets, now)
    except MemoryError:
        return [Refused("needs more memory to clean than it may have", fatal=True)]
    except Exception as error:
        return [Refused(f"could not be cleaned ({type(error).__name__})", fatal=True)]
