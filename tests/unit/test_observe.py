"""Logs and metrics: what they say, and what they never say."""

import asyncio
import io
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from keyserver.model import Answer, How, State
from keyserver.observe import LATE, MOST_LATE, LogFormat, Observer

ANSWER = Answer(State.FOUND, How.HIT, "cached")
SECRET = b"s" * 32


def test_identities_are_keyed_hashes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "keyserver.lookup")
    observer = Observer(SECRET, identities=False, clock=lambda: 0)
    observer.lookup("hkp", "alice@example.org", ANSWER, 200, 0.001)
    observer.hits("hkp", "openpgp:addr:alice@example.org", 7)
    facts = [record.__dict__["facts"] for record in caplog.records]
    assert facts[0]["query"] == facts[1]["query"], "lines of one identity can be followed"
    assert facts[0]["query"] != Observer(b"t" * 32, identities=False, clock=lambda: 0).identity("alice@example.org")
    assert "alice" not in json.dumps(facts)
    assert Observer(SECRET, identities=True, clock=lambda: 0).identity("alice@example.org") == "alice@example.org"


def test_metrics_count() -> None:
    observer = Observer(SECRET, identities=False, clock=lambda: 0)
    observer.lookup("hkp", "x", ANSWER, 200, 0.001)
    observer.hot("hkp", 5)
    observer.upstream("a", "found", 0.1)
    text = observer.exposition().decode()
    assert 'keyserver_lookups_total{face="hkp",how="HIT",state="found"} 1.0' in text
    assert 'keyserver_hot_answers_total{face="hkp"} 5.0' in text
    assert 'keyserver_upstream_answers_total{outcome="found",upstream="a"} 1.0' in text
    other = Observer(SECRET, identities=False, clock=lambda: 0)
    assert other.exposition() != observer.exposition(), "a registry of its own"


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


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """The messages that have been written by now, lookups with their query; ours are the only lines."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()

    def now() -> list[str]:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        return [str(facts.get("query", facts["message"])) for facts in lines]

    monkeypatch.setattr(sys, "stderr", stream)
    LogFormat(True).install("info")
    yield now
    root.handlers[:] = handlers
    root.setLevel(level)


def look(*asked: str) -> None:
    observer = Observer(SECRET, identities=True, clock=lambda: 0)
    for each in asked:
        observer.lookup("hkp", each, ANSWER, 200, 0.001)


async def test_lines_of_lookups_wait_a_moment(written: Callable[[], list[str]]) -> None:
    look("a", "b")
    assert written() == []
    await asyncio.sleep(LATE + 0.1)
    assert written() == ["a", "b"]
    look("c")
    await asyncio.sleep(LATE + 0.1)
    assert written() == ["a", "b", "c"]


async def test_other_lines_do_not_overtake_them(written: Callable[[], list[str]]) -> None:
    look("a", "b")
    logging.getLogger("keyserver.x").warning("trouble")
    look("c")
    assert written() == ["a", "b", "trouble"]
    await asyncio.to_thread(logging.getLogger("keyserver.x").warning, "from a thread")
    assert written() == ["a", "b", "trouble", "c", "from a thread"]


async def test_not_many_wait(written: Callable[[], list[str]]) -> None:
    asked = [str(n) for n in range(MOST_LATE + 1)]
    look(*asked)
    assert written() == asked[:-1]


def test_they_do_not_wait_for_a_loop_that_does_not_run(written: Callable[[], list[str]]) -> None:
    look("a")
    assert written() == ["a"]


async def test_level_holds_for_lookups(written: Callable[[], list[str]]) -> None:
    logging.getLogger().setLevel(logging.WARNING)
    look(*"abc" * MOST_LATE)
    assert written() == []


ENDING = """
import asyncio, sys
from keyserver.app import running
from keyserver.config import Config
from keyserver.model import Answer, How, State
from keyserver.observe import Observer

async def serve(config, stop, **_):
    observer = Observer(b"s" * 32, identities=True, clock=lambda: 0)
    observer.lookup("hkp", "the last", Answer(State.FOUND, How.HIT, ""), 200, 0.001)
    print("looked up", flush=True)
    if sys.argv[1] == "stop":
        await stop.wait()
    raise RuntimeError("broke") if sys.argv[1] == "raise" else SystemExit(7)

running.serve = serve
running.run(Config.model_construct(log=Config.model_fields["log"].get_default(call_default_factory=True)))
"""


@pytest.mark.parametrize("how", ["raise", "exit", "stop"])
def test_nothing_is_lost_at_the_end(how: str) -> None:
    command = [sys.executable, "-c", ENDING, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "looked up\n"
        if how == "stop":
            process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    before, found, after = err.partition("the last")
    assert found and "broke" not in before and ("broke" in after) is (how == "raise")
