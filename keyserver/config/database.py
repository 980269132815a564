"""The URL of the cache's database: what is accepted, and how it may be shown. Pure."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

SQLITE = "sqlite:///"
POSTGRES = "postgresql://"

ACCEPTED = f'"{SQLITE}var/keyserver.db" (below the working directory), "{SQLITE}/path" or "{POSTGRES}user@host/name"'

PARAMETERS = {
    "host": "",
    "port": "",
    "user": "",
    "passfile": "",
    "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
    "sslrootcert": "",
    "sslcert": "",
    "sslkey": "",
    "sslcrl": "",
    "target_session_attrs": "any|primary|read-write",
    "pooler": "transaction",
}
"""What may stand behind the `?` of a PostgreSQL URL: libpq's names, and our own `pooler`; with a pattern of values
where only some make sense."""

_SQLITE_URL = re.compile(rf"{SQLITE}/?(?:[^/?#][^?#]*)?[^/?#]")


def is_postgres(url: str) -> bool:
    """Is it meant to be PostgreSQL's?"""
    return url.startswith(("postgresql:", "postgres:"))


def wrong_with(url: str) -> str:
    """Why a URL is not accepted, and what is; empty where it is. Of the URL only names of parameters are in it."""
    if not is_postgres(url):
        return "" if _SQLITE_URL.fullmatch(url) else f"accepted is {ACCEPTED}"
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        return f"accepted is {ACCEPTED}"
    names = [name for name, _ in given]
    user, _, _ = parts.netloc.rpartition("@")
    if ":" in user or any("password" in name for name in names):
        return "a password does not belong here; accepted is cache.database_password_file, or a passfile"
    if not url.startswith(POSTGRES) or parts.fragment or not re.fullmatch(r"/[^/@?#]+", parts.path):
        return f"accepted is {ACCEPTED}"
    for name, value in given:
        pattern = PARAMETERS.get(name)
        if pattern is None:
            return f"{_shown(name)} is none of the parameters accepted: {', '.join(PARAMETERS)}"
        if not re.fullmatch(pattern or ".+", value):
            return f"accepted for {name} is {pattern.replace('|', ', ') or 'something'}"
    return "" if len(names) == len(set(names)) else "accepted is each parameter once"


def shown(url: str) -> str:
    """A URL as it may stand in a log: of one that is not accepted, or whose user has a password, the scheme alone."""
    return f"{_shown(url.partition(':')[0])}://(not shown)" if wrong_with(url) else url


def _shown(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]{1,32}", name) else "(not shown)"
