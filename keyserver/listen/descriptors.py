"""File descriptors: how many the system allows, and what is kept back from clients.

The system always gives the lowest free number, so the number of a new descriptor says how many are in use: nothing
has to be counted.
"""

from __future__ import annotations

import contextlib
import resource

MOST = 1 << 20  # what we ask for where the system sets no bound
RESERVE = 256  # kept back for upstreams, the store and the administrator; less where less is allowed


def raise_limit() -> None:
    """Take as many descriptors as we may: the soft limit is often meant for programs that use `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # some containers forbid it; then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Descriptors:
    """The limit of this process, and the reserve that clients may not touch."""

    def __init__(self, limit: int | None = None) -> None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
        self.limit = MOST if soft == resource.RLIM_INFINITY else soft
        self.reserve = min(RESERVE, max(self.limit // 8, min(16, self.limit // 4)))

    def ceiling(self, privileged: bool = False) -> int:
        """From which number on a descriptor is kept back from clients. privileged: the administrator's, who has half of
        the reserve, too."""
        return self.limit - (self.reserve // 2 if privileged else self.reserve)
