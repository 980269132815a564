"""The one declaration of every configuration key: the sections, and what follows from several of them.

Reading, `keyserver check`, the environment's names and docs/configuration.md all come from here.
Durations are whole seconds and sizes octets once read; a listener or file that is not set is None.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import PrivateAttr

from keyserver.config.listener import Listening
from keyserver.config.section import Section
from keyserver.config.sections.caching import CacheSection, EventsSection, HistorySection, PolicySection, SmimeSection
from keyserver.config.sections.faces import (
    AdminSection,
    HkpSection,
    LdapSection,
    LimitsSection,
    LogSection,
    ServerSection,
    ViewSection,
)
from keyserver.config.sections.mail import InviteSection, MailflowSection
from keyserver.config.sections.outlook import OutlookSection
from keyserver.config.sections.recipients import DomainCertificateSection, DomainSection, VerdictSection
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.config.sources import Sources


class Config(Section):
    """The whole configuration, read and checked."""

    server: ServerSection = ServerSection()
    hkp: HkpSection = HkpSection()
    ldap: LdapSection = LdapSection()
    admin: AdminSection = AdminSection()
    mailflow: MailflowSection = MailflowSection()
    cache: CacheSection = CacheSection()
    policy: PolicySection = PolicySection()
    limits: LimitsSection = LimitsSection()
    smime: SmimeSection = SmimeSection()
    log: LogSection = LogSection()
    upstream: tuple[UpstreamSection, ...] = ()
    view: tuple[ViewSection, ...] = ()
    verdict: VerdictSection = VerdictSection()
    domain: tuple[DomainSection, ...] = ()
    domain_certificate: tuple[DomainCertificateSection, ...] = ()
    history: HistorySection = HistorySection()
    events: EventsSection = EventsSection()
    outlook: OutlookSection = OutlookSection()
    invite: InviteSection = InviteSection()
    _sources: Sources | None = PrivateAttr(None)

    def __eq__(self, other: object) -> bool:
        """Other origins make no other configuration."""
        return isinstance(other, Config) and dict(self) == dict(other)

    @property
    def sources(self) -> Sources | None:
        """Where it came from; None: it was not read by `loading.load`."""
        return self._sources

    def with_sources(self, sources: Sources | None) -> Config:
        """The same, from elsewhere."""
        made = self.model_copy()
        made._sources = sources
        return made

    @property
    def workers(self) -> int:
        """Front processes; 0: one process for all."""
        given = self.server.workers
        return max(1, (os.cpu_count() or 2) - 1) if isinstance(given, str) else given

    @property
    def state_dir(self) -> Path:
        """The directory of token, secret, lock and command socket."""
        beside = self.cache.path.parent if self.cache.path is not None else Path("var")
        return Path(self.server.state_dir) if self.server.state_dir else beside

    @property
    def listeners(self) -> tuple[Listening, ...]:
        """Every listener: `listen` is the section's own face, `<face>_listen` one of several in a section."""
        found: list[Listening] = []
        for section, value in self:
            for row in value if isinstance(value, tuple) else (value,):
                where, view = (f"view[{row.name}]", row.name) if isinstance(row, ViewSection) else (section, "default")
                for name, listeners in row:
                    face = section if name == "listen" else name.removesuffix("_listen")
                    if face != name and listeners:
                        each = listeners if isinstance(listeners, tuple) else (listeners,)
                        found += (Listening(f"{where}.{name}", face, view, listener) for listener in each)
        return tuple(found)
