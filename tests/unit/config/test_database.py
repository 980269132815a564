"""URLs of databases: what is accepted, and that no password is ever shown."""

from __future__ import annotations

import pytest

from keyserver.config import load
from keyserver.config.database import shown, wrong_with
from keyserver.config.problem import redacted
from keyserver.config.settings import settings_of

GOOD = [
    "sqlite:///var/keyserver.db",
    "sqlite:////srv/k.db",
    "postgresql:///keyserver",
    "postgresql://keyserver@db.example/keyserver",
    "postgresql://keyserver@db.example:5433/keyserver?sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem",
    "postgresql://keyserver@[::1]:5432/k",
    "postgresql://k@a.example,b.example:5433/k?target_session_attrs=primary",
    "postgresql://k@/k?host=/run/postgresql&port=5433",
    "postgresql://k@pooler:6432/k?pooler=transaction&passfile=/etc/keyserver/pgpass",
]

SECRETS = [
    "postgresql://u:geheim@h/db",
    "postgresql://u:@geheim@h/db",
    "postgresql://u:ge@heim@h/db",
    "postgresql://u:geheim/more@h/db",
    "postgresql://u:geheim#more@h/db",
    "postgresql://u:geheim?more@h/db",
    "postgresql://h/db?password=geheim",
    "postgresql://h/db?user=u&sslpassword=geheim",
    "postgresql://h/db?sslmode=geheim",
    "postgresql://h/db#geheim",
    "postgres://u:geheim@h/db",
    "postgresql:u:geheim@h/db",
    "mysql://u:geheim@h/db",
]


@pytest.mark.parametrize("url", GOOD)
def test_accepted_urls(url: str) -> None:
    assert wrong_with(url) == ""
    assert shown(url) == url


@pytest.mark.parametrize("url", SECRETS)
def test_nothing_of_a_wrong_url_is_shown(url: str) -> None:
    assert "accepted" in wrong_with(url)
    assert "geheim" not in wrong_with(url) + shown(url)
    assert "://(not shown)" in shown(url)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("postgresql://h", "postgresql://user@host/name"),
        ("postgresql://h/", "postgresql://user@host/name"),
        ("postgresql://h/a/b", "postgresql://user@host/name"),
        ("postgres://h/a", "postgresql://user@host/name"),
        ("postgresql://h/a?sslmode=on", "verify-full"),
        ("postgresql://h/a?pooler=session", "transaction"),
        ("postgresql://h/a?passfile=", "passfile"),
        ("postgresql://h/a?options=x", "target_session_attrs"),
        ("postgresql://h/a?sslmode=require&sslmode=disable", "once"),
        ("postgresql://[::1/a", "postgresql://user@host/name"),
        ("sqlite://var/k.db", "sqlite:///"),
        ("sqlite:///", "sqlite:///"),
    ],
)
def test_what_is_accepted_is_said(url: str, hint: str) -> None:
    assert hint in wrong_with(url)


def test_the_settings_page_shows_no_user_either() -> None:
    config = load(None, ["cache.database=postgresql://keyserver@db.example/keyserver"])
    (row,) = (setting for setting in settings_of(config) if setting.key == "cache.database")
    assert row.value == "postgresql://(not shown)@db.example/keyserver"


def test_a_password_with_an_at_sign_is_not_shown() -> None:
    assert redacted("ldap://u:ge@heim@h/db") == "ldap://(not shown)@h/db"
