"""Logs and metrics: what they say, and what they never say."""

import json
import logging

import pytest

from keyserver.model import Answer, How, State
from keyserver.observe import LogFormat, Observer

ANSWER = Answer(State.FOUND, How.HIT, "cached")
SECRET = b"s" * 32


def test_identities_are_keyed_hashes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "keyserver.lookup")
    observer = Observer(SECRET, identities=False)
    observer.lookup("hkp", "alice@example.org", ANSWER, 200, 0.001)
    observer.hits("hkp", "openpgp:addr:alice@example.org", 7)
    facts = [record.__dict__["facts"] for record in caplog.records]
    assert facts[0]["query"] == facts[1]["query"], "lines of one identity can be followed"
    assert facts[0]["query"] != Observer(b"t" * 32, identities=False).identity("alice@example.org")
    assert "alice" not in json.dumps(facts)
    assert Observer(SECRET, identities=True).identity("alice@example.org") == "alice@example.org"


def test_metrics_count() -> None:
    observer = Observer(SECRET, identities=False)
    observer.lookup("hkp", "x", ANSWER, 200, 0.001)
    observer.hot("hkp", 5)
    observer.upstream("a", "found", 0.1)
    text = observer.exposition().decode()
    assert 'keyserver_lookups_total{face="hkp",how="HIT",state="found"} 1.0' in text
    assert 'keyserver_hot_answers_total{face="hkp"} 5.0' in text
    assert 'keyserver_upstream_answers_total{outcome="found",upstream="a"} 1.0' in text
    assert Observer(SECRET, identities=False).exposition() != observer.exposition(), "a registry of its own"


HOSTILE = [
    "a\nb",
    "a\rb",
    "a\x1b[31mb",
    "a\x9b31mb",  # C1: a control sequence in one character
    "a\x85b",
    "a\u2028b",
    "a\u2029b",
    "a\u202eb",
    "a\u2066b",
    "a\ufeffb",
    "a\udc80b",
    'evil" \n line\u202e',
    'x" level="error',
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("as_json", [True, False])
def test_lines_of_hostile_text_stay_lines(as_json: bool, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        LogFormat(as_json).install("info")
        logging.getLogger("keyserver.x").info(text, extra={"facts": {"reason": text}})
    finally:
        root.handlers[:], root.level = handlers, level
    out = capsys.readouterr().err
    assert out.endswith("\n")
    line = out[:-1]
    assert line.replace("\ufffd", "").isprintable(), "nothing that a terminal obeys or a reader does not see"
    if as_json:
        assert json.loads(line)["reason"] == text
    else:
        _, _, said = line.partition(" reason=")
        assert (json.loads(said) if said.startswith('"') else said) == text


def test_an_exceptions_lines_cannot_pass_for_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        LogFormat(False).install("info")
        try:
            raise ValueError("first\n12:00:00 info    forged\x1b[2J")
        except ValueError:
            logging.getLogger("keyserver.x").exception("broke")
    finally:
        root.handlers[:], root.level = handlers, level
    first, *rest = capsys.readouterr().err.splitlines()
    assert "broke" in first
    assert all(line.startswith("    ") for line in rest)
    assert "\x1b" not in "".join(rest)
