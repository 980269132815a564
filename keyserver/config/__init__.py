"""Configuration: one declaration, read from TOML, environment and command line, with every mistake named at once."""

from keyserver.config.listener import Listener, Listening
from keyserver.config.loading import load, load_again
from keyserver.config.models import Config
from keyserver.config.problem import ConfigError, Problem

__all__ = ["Config", "ConfigError", "Listener", "Listening", "Problem", "load", "load_again"]
