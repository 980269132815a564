"""The command line: exit codes, clear lines, and the same results with and without a running service."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path

from keyserver.cli.show import safe, span, when
from keyserver.query import parse_address
from support.openpgp import make
from support.shell import KEYRING, Shell, ended, fingerprints, started, written


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
    assert both["summary"] == {"addresses": 2, "yes": 1, "no": 1, "reject": 0, "unknown": 0}
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


def test_hostile_names_reach_no_terminal() -> None:
    assert safe("a\x1b[2Jb\u202ec\n") == "a\ufffd[2Jb\ufffdc\ufffd"
    assert when(None) == "never"
    assert when(1_000_000, 1_000_000 - 7200).endswith("(in 2 h)")
    assert span(-90) == "1 min ago"


def test_the_past_from_the_shell(tmp_path: Path) -> None:
    """By a running service, and by the same store without one."""
    front = Shell(written(tmp_path))
    one = fingerprints(KEYRING)[0]
    process, _ = started(front.config)
    try:
        assert front.run("cache", "import", str(KEYRING)).code == 0
        time.sleep(1.1)
        assert front.run("cache", "delete", one, "--no-undo").code == 0
    finally:
        ended(process)
    for words in (["history", one], ["history", "show", one], ["history", "--limit", "1000"], ["history"]):
        shown = front.run(*words)
        assert shown.code == 0, shown.err
        assert one in shown.out
        assert "deleted" in shown.out
    events = front.json("history", one)["events"]
    assert [(e["what"], e["who"]) for e in events] == [("deleted", "admin"), ("first seen", "admin")]
    assert front.run("history", "AB" * 20).code == 1
    assert front.run("history", "no term").code == 2

    then = front.json("lookup", one, "--at", str(events[1]["at"]), code=4)
    assert ([c["fingerprint"] for c in then["certificates"]], then["verdict"]) == ([one], "unusable")
    local = datetime.fromtimestamp(events[1]["at"]).isoformat()
    looked = front.run("lookup", one, "--at", local, "--trace")
    assert looked.code == 4
    assert all(word in looked.out for word in ("found", one, "looked", "local administrator"))
    assert front.run("lookup", one, "--at", str(events[0]["at"])).code == 1
    early = front.run("lookup", one, "--at", "2020-01-01T00:00")
    assert (early.code, "does not go back so far" in early.out) == (5, True)
    assert "the history is whole since" in early.out
    assert front.run("lookup", one, "--at", "yesterday").code == 2

    (identity,) = front.json("cache", "list")["entries"][0]["identities"]
    address = parse_address(identity.partition("<")[2].rstrip(">"))
    kept = front.run("history", "forget", str(address))
    assert kept.code == 0
    assert f"keyserver history forget --with-cache {address}" in kept.out
    gone = front.run("history", "forget", str(address), "--with-cache", "--yes")
    assert (gone.code, "still cached" in gone.out) == (0, False)
    assert front.run("history", str(address)).code == 1
    assert front.run("history", "forget", one).code == 2
