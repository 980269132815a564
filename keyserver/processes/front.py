"""How a face describes its part in fronts; the register names them all. A face without one is served by the core."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyserver.config import Config
from keyserver.faces.cache import MemoryLimit
from keyserver.listen.server import ListeningServer
from keyserver.listen.trust import Trust
from keyserver.model import Name
from keyserver.processes.relay import Relay


@dataclass(frozen=True, slots=True)
class FrontOpening:
    """What a face is opened with in a front, for one view."""

    config: Config
    place: str
    """Under which the core knows it."""
    relay: Relay
    budget: MemoryLimit
    trust: Trust
    instance: str
    """Our name in `Via`."""
    tls: Callable[[Path | None, Path | None], ssl.SSLContext | None]
    """The context of a certificate chain and its key; None without a chain."""


@dataclass(frozen=True, slots=True)
class FrontFace:
    """One view of a face in a front, without listeners yet."""

    server: ListeningServer[Any]
    counts: Callable[[], Mapping[str, int]]
    """Since the start: `hits`, requests answered from memory, and what else the face counts."""
    asked: Callable[[], Mapping[Name, int]]
    """What was asked for and answered from memory since the last call, and how often."""


@dataclass(frozen=True, slots=True)
class FrontPart:
    """A face in fronts. face: its name. logged: are names that were answered from memory lines of the log?"""

    face: str
    open: Callable[[FrontOpening], FrontFace]
    logged: bool = False
