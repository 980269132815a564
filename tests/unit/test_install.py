"""What an installation makes for itself at first start."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyserver.install import InstallError, installation


def test_made_once_and_for_us_alone(tmp_path: Path) -> None:
    first = installation(tmp_path / "var", None)
    assert installation(tmp_path / "var", None) == first
    assert len(first.token) >= 32
    assert first.instance.startswith("keyserver-")
    for name in ("keyserver.secret", "admin.token"):
        assert stat.S_IMODE((tmp_path / "var" / name).stat().st_mode) == 0o600
    secret = (tmp_path / "var" / "keyserver.secret").read_text().strip()
    assert secret not in (first.instance, first.token, first.log_secret.hex()), "nothing shown tells the secret"


def test_several_at_once_agree(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda _: installation(tmp_path, None), range(32)))
    assert len(set(found)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["admin.token", "keyserver.secret"]


def test_a_token_file_of_ones_own(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a token of my own choice\n")
    assert installation(tmp_path, token).token == "a token of my own choice"
    assert not (tmp_path / "admin.token").exists()


@pytest.mark.parametrize("content", ["", "short", "two\nlines of a file that is none"])
def test_an_unusable_token_says_why(tmp_path: Path, content: str) -> None:
    token = tmp_path / "token"
    token.write_text(content)
    with pytest.raises(InstallError) as caught:
        installation(tmp_path, token)
    assert str(token) in str(caught.value)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InstallError):
        installation(tmp_path / "file" / "var", None)
