"""Configuration: one declaration, read from TOML, environment and command line, with every mistake named at once."""

from keyserver.config.listener import Listener, Listening
from keyserver.config.loading import load, load_again
from keyserver.config.models import (
    AdminSection,
    CacheSection,
    Config,
    HkpSection,
    LdapSection,
    LimitsSection,
    LogSection,
    MailflowSection,
    PolicySection,
    ServerSection,
    SmimeSection,
    UpstreamSection,
    ViewSection,
)
from keyserver.config.problem import ConfigError, Problem

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
