"""The log of one process."""

from __future__ import annotations

import sys

from keyserver.config import Config
from keyserver.observe import LogFormat


def install_log(config: Config) -> None:
    """As `[log]` says."""
    json = config.log.format == "json" or (config.log.format == "auto" and not sys.stderr.isatty())
    LogFormat(json).install(config.log.level)
