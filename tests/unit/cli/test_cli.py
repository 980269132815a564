"""The command line: exit codes, clear lines, and the same results with and without a running service."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from keyserver import __version__
from keyserver.cli import main
from keyserver.cli.show import safe, span, when
from support.openpgp import make
from support.ports import free_port

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Shell:
    """Commands over one configuration, run in this process: a start takes longer than most of them."""

    config: Path

    def run(self, *arguments: str) -> Done:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main([*arguments, "--config", str(self.config)])
        return Done(code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str, code: int = 0) -> dict[str, list[dict[str, object]]]:
        done = self.run(*arguments, "--json")
        assert done.code == code, done.err
        return json.loads(done.out)

    def process(self, *arguments: str, stdin: bytes = b"") -> Done:
        """In a process of its own."""
        command = [sys.executable, "-m", "keyserver", *arguments, "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, cwd=ROOT, input=stdin, timeout=60, env=clean_environment())
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("KEYSERVER_")}


def written(directory: Path, more: str = "") -> Path:
    file = directory / "keyserver.toml"
    file.write_text(
        f'[hkp]\nlisten = ["127.0.0.1:0"]\n[ldap]\nlisten = []\n[admin]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[cache]\ndatabase = "sqlite:///{directory}/keyserver.db"\n{more}'
    )
    return file


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """No service runs."""
    return Shell(written(tmp_path))


def started(config: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A service, and the address of its HKP listener."""
    command = [sys.executable, "-m", "keyserver", "serve", "--config", str(config), *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=clean_environment())
    assert process.stderr is not None
    address, lines = "", []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("ready hkp http://"):
            address = line.split("//")[1].strip()
        if line.startswith("ready admin"):
            break
    assert address, lines
    return process, address


def ended(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    _, _rest = process.communicate(timeout=15)
    return process.returncode


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Shell]:
    """A service runs."""
    config = written(tmp_path)
    process, _ = started(config)
    try:
        yield Shell(config)
    finally:
        ended(process)


@pytest.fixture(params=["alone", "service"])
def either(request: pytest.FixtureRequest) -> Shell:
    """With and without a running service."""
    return request.getfixturevalue("shell" if request.param == "alone" else "service")


def fingerprints(file: Path) -> list[str]:
    listed = subprocess.run(
        ["gpg", "--show-keys", "--with-colons", str(file)], capture_output=True, text=True, check=True
    )
    found, primary = [], False
    for line in map(str.strip, listed.stdout.splitlines()):
        kind, *fields = line.split(":")
        primary = kind == "pub" or (primary and kind != "sub")
        if kind == "fpr" and primary:
            found.append(fields[8])
            primary = False
    return found


def test_the_cache_from_the_shell(either: Shell, tmp_path: Path) -> None:
    """Everything an administrator does, with the same results whether a service runs or not."""
    known = sorted(fingerprints(KEYRING))
    one = known[0]
    done = either.run("cache", "import", str(KEYRING))
    assert done.code == 0, done.err
    assert f"{len(known)} certificates: {len(known)} new" in done.out

    entries = either.json("cache", "list")["entries"]
    assert sorted(str(entry["fingerprint"]) for entry in entries) == known
    assert {(entry["source"], entry["expires_at"]) for entry in entries} == {("local", None)}
    assert one in either.run("cache", "list", "--domain", "debian.org").out
    assert either.json("cache", "list", "--source", "keyserver")["entries"] == []
    by_address = either.json("cache", "list", "--sort", "address", "--limit", "7")["entries"]
    assert len(by_address) == 7
    for chosen in (["--not", "source=local"], ["--held"], ["--status", "expired"], ["--to", "2020-01-01"]):
        assert either.json("cache", "list", *chosen)["entries"] == [], chosen
    assert [e["fingerprint"] for e in either.json("cache", "list", "-q", one[:20])["entries"]] == [one]
    assert either.run("cache", "list", "--sort", "colour").code == 2
    shown = either.json("cache", "show", one)
    assert (shown["fingerprint"], shown["blocked"]) == (one, False)
    assert one in either.run("cache", "show", one).out

    several = either.run("cache", "show", "ftpmaster@debian.org")
    assert several.code == 1
    assert several.err.count("ftpmaster@debian.org>") > 1

    looked = either.run("lookup", one, "--trace")
    assert looked.code == 4, "found, and nobody can encrypt to an archive's signing key"
    assert all(word in looked.out for word in ("found", "HIT", "proves the query by itself", one))
    assert either.json("lookup", one, code=4)["certificates"][0]["fingerprint"] == one

    assert either.run("cache", "block", one, "--reason", "test").code == 0
    assert either.run("lookup", one).code == 1
    assert either.json("cache", "show", one)["blocked"] is True
    assert either.run("cache", "unblock", one).code == 0
    assert either.run("cache", "unblock", one).code == 1
    assert either.run("cache", "keep", one).code == 0
    assert either.run("cache", "approve", one).code == 0

    assert either.run("cache", "keep", "--where", f"text={one}").out == "kept 1\n"
    nobody = either.run("cache", "block", "--where", "domain=nowhere.example", "--where", "not_source=mailflow")
    assert (nobody.code, nobody.out) == (0, "blocked 0\n")
    refreshed = either.run("cache", "refresh", "--where", f"q={one}")
    assert (refreshed.code, refreshed.out) == (1, "found news of 0\n"), "nobody can be asked"
    for wrong in ([], [one, "--where", "kind=openpgp"], ["--where", "kind"], ["--where", "colour=red"]):
        assert either.run("cache", "delete", *wrong).code == 2, wrong
    assert either.run("cache", "approve", "--where", "held=1", "--address", "a@example.org").code == 2

    exported = tmp_path / "exported.asc"
    assert either.run("cache", "export", str(exported)).code == 0
    assert sorted(fingerprints(exported)) == known
    assert list(tmp_path.glob("*.part")) == []

    assert either.run("cache", "undo").code == 1
    for words in ((), ("this one",)):
        mixed = either.run("cache", "delete", one, "0" * 16, known[1])
        assert (mixed.code, mixed.out.count("deleted")) == (1, 2)
        named = [mixed.err.split()[-1]] if words else []
        assert either.run("cache", "undo", *named).out == "restored 2 of 2 entries\n"
    assert either.run("cache", "delete", known[1]).code == 0
    swept = either.run("cache", "delete", "--where", "status=fresh", "--where", f"not-q={one}")
    assert swept.out == f"deleted {len(known) - 2} entries\n"
    undone = either.run("cache", "undo", swept.err.split()[-1])
    assert undone.out == f"restored {len(known) - 2} of {len(known) - 2} entries\n"
    erased = either.run("cache", "delete", one, "--no-undo")
    assert (erased.code, "undo" in erased.err) == (0, False)
    again = either.process("cache", "import", "-", stdin=exported.read_bytes())
    assert f"2 new, {len(known) - 2} same" in again.out
    assert "purged" in either.run("cache", "purge", "--expired").out
    assert f"purged {len(known)} entries" in either.run("cache", "purge", "--source", "local", "--yes").out
    assert either.json("cache", "list")["entries"] == []


def test_a_lookup_tells_its_story(tmp_path: Path) -> None:
    """One service asks another: the trace names the upstream and what it said; then it is a hit, then it is gone."""
    (tmp_path / "behind").mkdir()
    (tmp_path / "front").mkdir()
    behind = Shell(written(tmp_path / "behind"))
    one = fingerprints(KEYRING)[0]
    process, address = started(behind.config)
    try:
        assert behind.run("cache", "import", str(KEYRING)).code == 0
        more = f'[[upstream]]\nname = "behind"\nurl = "hkp://{address}"\nallow_private = true\n'
        front = Shell(written(tmp_path / "front", more))
        first = front.run("lookup", one, "--trace").out
        assert all(word in first for word in ("found", "MISS", "behind", "keyserver behind"))
        assert "HIT" in front.run("lookup", one).out
        assert front.run("lookup", "nobody@example.org").code == 1
        asked = front.json("upstreams", "--test", one)["tests"]
        assert [(row["upstream"], row["outcome"], row["certificates"]) for row in asked] == [("behind", "found", [one])]
        assert front.run("upstreams", "--test", "nobody@example.org").code == 1
        assert front.run("upstreams", "--pause", "behind").out == "paused behind\n"
        assert front.run("lookup", "nobody@else.example").code == 5
        assert "paused" in front.run("upstreams").out
        assert front.run("upstreams", "--resume", "behind").out == "resumed behind\n"
        assert front.run("upstreams", "--resume", "nobody").code == 1
        assert front.run("upstreams", "--told", "--pause", "behind").code == 2
        told = front.run("upstreams", "--told").out
        assert ": 4 questions; 1 addresses, 1 fingerprints" in " ".join(told.split())
        assert front.json("upstreams", "--told")["upstreams"][0]["domains"][0]["domain"] == "example.org"
        refreshed = front.run("cache", "refresh", one)
        assert refreshed.code == 0
        assert "behind found" in " ".join(refreshed.out.split())
    finally:
        assert ended(process) == 0
    assert "HIT" in front.run("lookup", one).out
    failed = front.run("lookup", "somebody@example.org", "--trace")
    assert (failed.code, "failed" in failed.out) == (5, True)


def test_whom_mail_can_be_encrypted_to(either: Shell, tmp_path: Path) -> None:
    """Yes and no: the worst is the exit code, and a file is a list."""
    keys, recipients = tmp_path / "keys.asc", tmp_path / "recipients.csv"
    alice = make(["Alice <alice@example.org>"])
    keys.write_text(alice.armored)
    recipients.write_text("\ufeffname;mail\nBob;bob@example.net\nAlice;Alice@example.org\n")
    assert either.run("cache", "import", str(keys)).code == 0
    yes = either.json("can-encrypt", "alice@example.org")["verdicts"]
    assert [(one["verdict"], one["certificates"][0]["fingerprint"]) for one in yes] == [("yes", alice.fingerprint)]  # type: ignore[index]
    both = either.json("can-encrypt", str(recipients), "alice@example.org", code=1)
    assert [(one["address"], one["verdict"]) for one in both["verdicts"]] == [
        ("bob@example.net", "no"),
        ("alice@example.org", "yes"),
    ]
    assert both["summary"] == {"addresses": 2, "yes": 1, "no": 1, "unknown": 0}
    done = either.run("can-encrypt", str(recipients))
    assert done.code == 1
    assert all(word in done.out for word in (alice.fingerprint, "nobody has", "2 asked: 1 yes, 1 no, 0 unknown"))
    assert either.run("can-encrypt", "alice@example.org", "--kind", "smime").code == 1
    assert either.run("can-encrypt", "alice@example.org", "--kind", "pgp").code == 2
    assert either.run("can-encrypt", "alice@example.org", "--policy", "other").code == 1
    assert either.run("can-encrypt", str(tmp_path / "none.csv")).code == 2
    recipients.write_text("\n")
    assert either.run("can-encrypt", str(recipients)).code == 2


def test_an_unknown_is_the_worst_of_verdicts(tmp_path: Path) -> None:
    upstream = '[[upstream]]\nname = "gone"\nurl = "hkp://127.0.0.1:1"\ndomains = ["example.net"]\n'
    shell = Shell(written(tmp_path, upstream))
    found = shell.json("can-encrypt", "bob@example.net", "carol@example.org", code=5)["verdicts"]
    assert [(one["verdict"], one["missing"]) for one in found] == [("unknown", ["gone"]), ("no", [])]


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


# ---- sweeping commands


SWEEPS = (
    ["cache", "purge", "--all"],
    ["cache", "purge", "--source", "local"],
    ["cache", "purge", "--upstream", "u"],
    ["cache", "purge", "--domain", "debian.org"],
    ["cache", "delete", *(f"{n:040X}" for n in range(11))],
)


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda words: " ".join(words[:3]))
@pytest.mark.parametrize("yes", [[], ["--yes"]], ids=["as it stands", "--yes"])
def test_a_sweep_of_a_script_asks_nobody(shell: Shell, sweep: list[str], yes: list[str]) -> None:
    assert shell.run("cache", "import", str(KEYRING)).code == 0
    done = shell.process(*sweep, *yes)
    assert "Go on?" not in done.err and "nothing was done" not in done.err
    if sweep[-1] in ("--all", "local"):
        assert shell.json("cache", "list")["entries"] == []


@pytest.mark.parametrize(
    ("typed", "code", "left"), [("y\n", 0, False), ("n\n", 1, True), ("\n", 1, True), ("", 1, True)]
)
def test_a_sweep_asks_on_a_terminal(shell: Shell, typed: str, code: int, left: bool) -> None:
    assert shell.run("cache", "import", str(KEYRING)).code == 0
    command = [sys.executable, "-m", "keyserver", "cache", "purge", "--all", "--config", str(shell.config)]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, env=clean_environment(), stdin=theirs, stderr=theirs, stdout=theirs)
    os.close(theirs)
    asked = b""
    while b"Go on?" not in asked:
        asked += os.read(ours, 1000)
    os.write(ours, typed.encode() or b"\x04")  # ^D: the end of what is typed
    assert process.wait(30) == code
    os.close(ours)
    assert b"remove every entry" in asked
    assert bool(shell.json("cache", "list")["entries"]) is left


def test_what_has_expired_is_purged_without_a_question(shell: Shell) -> None:
    assert shell.process("cache", "purge", "--expired").code == 0


def test_hostile_names_reach_no_terminal() -> None:
    assert safe("a\x1b[2Jb\u202ec\n") == "a\ufffd[2Jb\ufffdc\ufffd"
    assert when(None) == "never"
    assert when(1_000_000, 1_000_000 - 7200).endswith("(in 2 h)")
    assert span(-90) == "1 min ago"
