"""The command line before it does anything: a start, what cannot be one, and what `check` says."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from keyserver import __version__
from keyserver.cli import main
from support.running import Service
from support.shell import Shell, ended, started, written


def test_a_second_start_is_quick_and_a_taken_port_is_one_line(shell: Shell) -> None:
    process, _ = started(shell.config)
    try:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            other = f"cache.database=sqlite:///{shell.config.parent}/other/keyserver.db"
            done = shell.process("serve", "--set", f"hkp.listen=127.0.0.1:{port}", "--set", other)
        assert done.code == 3
        assert len(done.err.strip().splitlines()) == 1
        assert f"127.0.0.1:{port}" in done.err
    finally:
        assert ended(process) == 0
    begun = time.monotonic()
    process, _ = started(shell.config)
    took = time.monotonic() - begun
    ended(process)
    assert took < 5, "start-up should take well under a second on an idle machine"


def test_a_database_in_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    config = written(tmp_path)
    (tmp_path / "file").write_text("")
    config.write_text(config.read_text().replace("keyserver.db", "file/keyserver.db"))
    for command in (["serve"], ["cache", "list"]):
        done = Shell(config).process(*command)
        assert done.code == 3
        assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_the_first_lines_of_the_log_say_what_is_unsafe(workers: int, tmp_path: Path) -> None:
    settings = {"hkp.listen": '["0.0.0.0:0"]', "server.workers": str(workers)}
    with Service(tmp_path, settings=settings, upstreams=["hkps://keys.openpgp.org"]) as service:
        service.stop()
    lines = [line for line in service.log if not line.startswith("ready ")]
    wanted = ["hkp.listen: other machines reach 0.0.0.0:0 without TLS", "(keys.openpgp.org) is a public keyserver"]
    wanted = ["The service runs as root"] * (os.geteuid() == 0) + wanted
    assert all(words in line for words, line in zip(wanted, lines, strict=False)), lines
    assert "stopping" in lines[len(wanted)], "and nothing else"


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[cache]\nttl = "59 minutes"\nnegatve_ttl = 1\n[log]\nlevel = 3\n[hkp]\nlisten = 1\n[x]\n')
    assert main(["check", "--config", str(wrong)]) == 2
    report = capsys.readouterr().out
    assert "5 mistakes" in report
    for key in ("cache.ttl", "cache.negatve_ttl", "log.level", "hkp.listen", "x"):
        assert f"\n  {key}" in report
    assert main(["serve", "--config", str(wrong)]) == 2
    assert "5 mistakes; nothing was started" in capsys.readouterr().err


def test_check_says_who_hears_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = tmp_path / "right.toml"
    right.write_text(
        '[hkp]\nlisten = ["0.0.0.0:11371"]\n[policy]\ninternal_domains = ["corp.example"]\n'
        '[[upstream]]\nname = "world"\nurl = "hkp://keys.example"\n'
        '[[upstream]]\nname = "partner"\nurl = "ldaps://ldap.example"\ndomains = ["example.org"]\npriority = 1\n'
        '[[upstream]]\nname = "theirs"\nurl = "ldap://keys.{domain}"\npriority = 2\n'
    )
    assert main(["check", "--config", str(right)]) == 0
    lines = capsys.readouterr().out.splitlines()
    text = "\n".join(lines)
    assert "0.0.0.0:11371  (other machines reach it)" in text
    assert "every address except those of corp.example" in text
    assert "unencrypted" in text
    assert "addresses of example.org only" in text
    assert "the host of its own domain" in text
    assert text.index("partner") < text.index("theirs") < text.index("world")
    assert "WKD" not in text


def test_check_says_whose_gateways_are_encrypted_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keyserver.toml"
    row = f'[[domain_certificate]]\ndomain = "partner.example"\nfingerprint = "{"A" * 40}"\n'
    upstreams = '[[upstream]]\nname = "partner"\nurl = "hkp://keys.partner.example"\ndomains = ["partner.example"]\n'
    file.write_text(row + upstreams + "[policy]\ndomain_authority = true\n")
    assert main(["check", "--config", str(file)]) == 0
    said = capsys.readouterr().out
    assert f"partner.example  to {'A' * 40}, which must be a local entry" in said
    assert "by the word of partner, for the domains that they list" in said
    file.write_text("[policy]\ndomain_authority = true\n")
    assert main(["check", "--config", str(file)]) == 0
    assert "by the word of nobody: none lists a domain" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("", "in the cache alone: no upstream speaks for their owners"),
        (
            '[[upstream]]\nname = "inside"\nurl = "hkp://a.example"\ndomains = ["*.corp.example"]',
            "in the cache alone",
        ),
        ('[[upstream]]\nname = "cas"\nurl = "certs://a.example"\ndomains = ["example.org"]\n', "in the cache alone"),
        ('[[upstream]]\nname = "owners"\nurl = "wkd:"\n', "at owners"),
        (
            '[[upstream]]\nname = "owners"\nurl = "wkd:"\n'
            '[[upstream]]\nname = "partner"\nurl = "ldaps://b.example"\ndomains = ["example.org", "corp.example"]\n',
            "at owners, partner",
        ),
    ],
)
def test_check_says_what_a_relay_of_wkd_means(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, where: str
) -> None:
    right = tmp_path / "right.toml"
    right.write_text(
        '[policy]\ninternal_domains = ["corp.example"]\n'
        '[[view]]\nname = "gateway"\nhkp_listen = ["127.0.0.1:1"]\nwkd_relay = true\n'
        '[[view]]\nname = "other"\nhkp_listen = ["127.0.0.1:2"]\n'
        '[[view]]\nname = "deaf"\nldap_listen = ["127.0.0.1:3"]\nwkd_relay = true\n'
        '[[upstream]]\nname = "world"\nurl = "hkp://keys.example"\n' + more
    )
    assert main(["check", "--config", str(right)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "WKD of other domains" in line]
    assert [line.partition(where)[0] for line in lines] == ["  view gateway: WKD of other domains is searched for "]


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--bogus"],
        ["lookup"],
        ["cache", "lisst"],
        ["cache", "purge"],
        ["cache", "purge", "--all", "--expired"],
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err


def test_no_configuration_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The defaults hold, and a line says so."""
    monkeypatch.chdir(tmp_path)
    if Path("/etc/keyserver/keyserver.toml").exists():
        pytest.fail("this machine has a configuration of its own in /etc/keyserver")
    assert main(["check"]) == 0
    shown = capsys.readouterr()
    assert "neither conf/keyserver.toml nor /etc/keyserver/keyserver.toml exists: built-in defaults" in shown.err
    assert "built-in defaults: no mistakes" in shown.out
    assert "nobody: only what is cached is answered" in shown.out
    assert main(["check", "--set", "cache.ttl=5s"]) == 2
    assert "built-in defaults: 1 mistake" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"keyserver {__version__}\n"
