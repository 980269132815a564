"""What goes wrong with the store, said in the log once when it begins and once when it is over."""

from __future__ import annotations

import logging

log = logging.getLogger("keyserver.cache")


class Reported:
    """Remembers the trouble that was told last: a full disk fails thousands of writes, and one line says so."""

    def __init__(self) -> None:
        self._told = ""

    def trouble(self, text: str) -> None:
        """It fails, and why."""
        if text != self._told:
            log.error("%s", " ".join(text.split()))
        self._told = text

    def well(self) -> None:
        """It works."""
        if self._told:
            log.warning("over: %s", " ".join(self._told.split()))
        self._told = ""
