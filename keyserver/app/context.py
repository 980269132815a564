"""What every part of the service is built from: the configuration, what follows from it alone, and the clocks."""

from __future__ import annotations

from dataclasses import dataclass

from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.install import Installation, InstallError, installation
from keyserver.listen.trust import Trust
from keyserver.observe import Observer


class CannotStart(Exception):
    """One clear line about what keeps the service from starting."""


@dataclass(frozen=True, slots=True)
class Context:
    """The same for all parts of one process."""

    config: Config
    clocks: Clocks
    installation: Installation
    observer: Observer
    trust: Trust

    @classmethod
    def of(cls, config: Config, clocks: Clocks) -> Context:
        """Reads (and on the first start makes) the installation's files. Raises CannotStart."""
        try:
            mine = installation(config.state_dir, config.admin.token_file)
        except InstallError as problem:
            raise CannotStart(str(problem)) from None
        limits = config.limits
        return cls(
            config=config,
            clocks=clocks,
            installation=mine,
            observer=Observer(mine.log_secret, config.log.identities, clocks.now),
            trust=Trust(limits.trusted, limits.proxies, limits.proxy_header),
        )
