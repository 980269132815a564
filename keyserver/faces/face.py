"""How a face describes itself; the register names them all."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyserver.config import Config
from keyserver.faces.context import FaceContext
from keyserver.faces.http.hot import HotAnswers
from keyserver.listen.server import ListeningServer
from keyserver.verdict.asking import Verdicts
from keyserver.verdict.deciding import Verdict

NoteVerdict = Callable[[str, str, Verdict, float], None]
"""(face, policy, verdict, seconds): called for each verdict that did not come from memory."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a face is opened with, for one view."""

    config: Config
    context: FaceContext
    tls: Callable[[Path | None, Path | None], ssl.SSLContext | None]
    """The context of a certificate chain and its key; None without a chain."""
    tell: Callable[[int], None]
    """Hears, once a second, how many lookups were answered from memory since the last time."""
    remember: Callable[[HotAnswers], None]
    """Takes note of answers in memory, whose names have been asked for."""
    verdicts: Verdicts
    note_verdict: NoteVerdict
    closing: AsyncExitStack
    """What is to be closed when no connection is left."""


@dataclass(frozen=True, slots=True)
class Face:
    """A protocol in which clients ask.

    Its listeners are what the configuration has as `<name>.listen` and, for the other views, `<name>_listen`."""

    name: str
    scheme: str
    """Of its URLs without TLS; with it they have an s behind."""
    open: Callable[[Opening], Awaitable[ListeningServer[Any]]]
    """The face of one view, without listeners yet. Raises ValueError with one line for who started it."""
