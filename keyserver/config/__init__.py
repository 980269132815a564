"""Configuration: one declaration, read from TOML, environment and command line, with every mistake named at once."""

from keyserver.config.listener import Listener, Listening
from keyserver.config.loading import load, load_again
from keyserver.config.models import Config
from keyserver.config.problem import ConfigError, Problem
from keyserver.config.sections.caching import CacheSection, PolicySection, SmimeSection
from keyserver.config.sections.faces import (
    AdminSection,
    HkpSection,
    LdapSection,
    LimitsSection,
    LogSection,
    ServerSection,
    ViewSection,
)
from keyserver.config.sections.mail import MailflowSection
from keyserver.config.sections.upstream import UpstreamSection

__all__ = [
    "AdminSection",
    "CacheSection",
    "Config",
    "ConfigError",
    "HkpSection",
    "LdapSection",
    "LimitsSection",
    "Listener",
    "Listening",
    "LogSection",
    "MailflowSection",
    "PolicySection",
    "Problem",
    "ServerSection",
    "SmimeSection",
    "UpstreamSection",
    "ViewSection",
    "load",
    "load_again",
]
