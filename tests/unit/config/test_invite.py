"""The section of invitations: what goes together, and what mail could not be sent with."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyserver.config import ConfigError
from keyserver.config.loading import load
from keyserver.upstreams import checks

WHOLE = {
    "public_url": '"https://optin.example.org"',
    "smtp": '"smtp://relay.example.org:587"',
    "sender": '"Keys@example.org"',
}


def read(folder: Path, **keys: str) -> dict[str, str]:
    """Key -> line of every mistake."""
    file = folder / "keyserver.toml"
    file.write_text("[invite]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()), encoding="utf-8")
    try:
        load(file, (), {}, mistakes=checks.mistakes)
    except ConfigError as caught:
        return {problem.key: str(problem) for problem in caught.problems}
    return {}


def test_a_whole_section_is_accepted(tmp_path: Path) -> None:
    assert not read(tmp_path, **WHOLE, automatic="true", smtp_tls='"offered"', trailer_listen='"127.0.0.1:8893"')
    assert not read(tmp_path, public_url='"https://optin.example.org"', listen='"127.0.0.1:8374"')


@pytest.mark.parametrize("url", ["http://localhost:8374", "http://127.0.0.1:8374/", "http://[::1]:8374", "https://h:1"])
def test_links_go_over_tls_or_stay_on_this_machine(tmp_path: Path, url: str) -> None:
    assert not read(tmp_path, **WHOLE | {"public_url": f'"{url}"'})


@pytest.mark.parametrize(
    "url",
    [
        "http://optin.example.org",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "https://user@optin.example.org",
        "https://optin.example.org/path",
        "https://optin.example.org?x",
        "https://optin.example.org:0",
        "https://optin.example.org:65536",
        "https://optin.example.org ",
        "https://optin.example.org\\n",
        "https://b\u00fccher.example",
        "ftp://optin.example.org",
        "https://",
    ],
)
def test_other_urls_are_none(tmp_path: Path, url: str) -> None:
    assert "invite.public_url" in read(tmp_path, **WHOLE | {"public_url": f'"{url}"'})


@pytest.mark.parametrize(
    "url",
    ["relay", "smtp:relay", "lmtp://relay", "smtp://u:p@relay", "smtp://relay:99999", "smtp://relay/x", "smtp://"],
)
def test_other_relays_are_none(tmp_path: Path, url: str) -> None:
    assert "invite.smtp" in read(tmp_path, **WHOLE | {"smtp": f'"{url}"'})


@pytest.mark.parametrize("url", ["smtp://relay", "smtps://relay.example.org/", "smtp://[2001:db8::1]:25"])
def test_relays(tmp_path: Path, url: str) -> None:
    assert not read(tmp_path, **WHOLE | {"smtp": f'"{url}"'})


@pytest.mark.parametrize(
    "sender", ["keys", "keys@", "@example.org", "a b@example.org", "<a@example.org>", "\u00fc@example.org", "a@b@c"]
)
def test_other_senders_are_none(tmp_path: Path, sender: str) -> None:
    assert "invite.sender" in read(tmp_path, **WHOLE | {"sender": f'"{sender}"'})


@pytest.mark.parametrize("missing", ["public_url", "smtp", "sender"])
def test_mail_needs_relay_sender_and_link(tmp_path: Path, missing: str) -> None:
    found = read(tmp_path, **WHOLE | {missing: '""'})
    assert set(found) == {f"invite.{key}" for key in ("smtp", "sender") if key != missing}
    assert all(f"only together with invite.{missing}" in line for line in found.values())


def test_what_needs_another_key_says_which(tmp_path: Path) -> None:
    assert "together with invite.smtp" in read(tmp_path, automatic="true")["invite.automatic"]
    assert "invite.public_url" in read(tmp_path, trailer_listen='"127.0.0.1:1"')["invite.trailer_listen"]
    assert "smtp_password_file" in read(tmp_path, **WHOLE, smtp_user='"keys"')["invite.smtp_user"]
    empty = tmp_path / "password"
    empty.write_text("\n")
    found = read(tmp_path, **WHOLE, smtp_user='"keys"', smtp_password_file=f'"{empty}"')
    assert "it is empty" in found["invite.smtp_password_file"]
    assert "smtp_user" in read(tmp_path, **WHOLE, smtp_password_file=f'"{empty}"')["invite.smtp_password_file"]
    assert "certificate and key" in read(tmp_path, tls_key_file=f'"{empty}"')["invite.tls_certificate"]


def test_strangers_do_not_reach_the_trailer(tmp_path: Path) -> None:
    found = read(tmp_path, **WHOLE, trailer_listen='"0.0.0.0:8893"')
    assert "strangers could ask" in found["invite.trailer_listen"]


@pytest.mark.parametrize(
    ("key", "value"), [("expires", '"59m"'), ("expires", '"366d"'), ("per_hour", "-1"), ("smtp_tls", '"off"')]
)
def test_bounds(tmp_path: Path, key: str, value: str) -> None:
    assert f"invite.{key}" in read(tmp_path, **WHOLE | {key: value})
