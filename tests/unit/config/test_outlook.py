"""The section of the outlook: to whom it may be sent, and by which way."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyserver.config import Config, ConfigError
from keyserver.config.loading import load
from keyserver.upstreams import checks

RELAY = '[invite]\nsmtp = "smtp://relay.example.org"\nsender = "keys@example.org"\npublic_url = "https://optin.example.org"\n'


def read(folder: Path, keys: str, more: str = "") -> Config:
    file = folder / "keyserver.toml"
    file.write_text(f"[outlook]\n{keys}\n{more}", encoding="utf-8")
    return load(file, (), {}, mistakes=checks.mistakes)


def mistakes(folder: Path, keys: str, more: str = "") -> dict[str, str]:
    try:
        read(folder, keys, more)
    except ConfigError as caught:
        return {problem.key: str(problem) for problem in caught.problems}
    return {}


def test_a_whole_section(tmp_path: Path) -> None:
    keys = 'digest_to = ["Ops@Example.org", "ops@example.org"]\ndigest_every = "1d"\ndays = 400'
    section = read(tmp_path, keys, RELAY).outlook
    assert (section.digest_to, section.digest_every, section.days) == (("ops@example.org",), 86400, 400)


def test_mail_needs_the_relay_and_posts_the_webhook(tmp_path: Path) -> None:
    found = mistakes(tmp_path, 'digest_to = ["ops@example.org"]\ndigest_webhook = true')
    assert set(found) == {"outlook.digest_to", "outlook.digest_webhook"}
    assert "invite.smtp" in found["outlook.digest_to"]
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef")
    events = f'[events]\nwebhook = "https://soc.example.org/"\nwebhook_secret_file = "{secret}"\n'
    assert not mistakes(tmp_path, "digest_webhook = true", events)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("digest_to", '["nobody"]'),
        ("digest_to", '["müller@example.org"]'),
        ("digest_to", '["Ops <ops@example.org>"]'),
        ("digest_to", '["a@example.org, b@example.org"]'),
        ("digest_to", '["a@example.org\\r\\nBcc: b@example.org"]'),
        ("digest_every", '"23h"'),
        ("digest_every", '"36d"'),
        ("days", "0"),
        ("days", "401"),
    ],
)
def test_what_is_refused(tmp_path: Path, key: str, value: str) -> None:
    assert set(mistakes(tmp_path, f"{key} = {value}", RELAY)) == {f"outlook.{key}"}
