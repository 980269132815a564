"""Manual pages: every command and key has its words, and man-db and mandoc find nothing to complain about."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from keyserver.cli import application
from keyserver.cli.manual import pages, write
from keyserver.cli.roff import paragraphs, plain, prose
from keyserver.config.loading import models

PAGES = pages("2026-11-28")


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.stdout + done.stderr


def shown(name: str, folder: Path) -> str:
    write(folder, "2026-11-28")
    letters: list[str] = []
    for letter in output("mandoc", "-Tutf8", "-Owidth=500", str(folder / name)):
        if letter == "\b":  # a terminal's bold and underlined letters are two over each other
            letters.pop()
        else:
            letters.append(letter)
    return "".join(letters)


def test_a_page_for_each_command_and_one_for_the_file() -> None:
    root = get_command(application)
    assert isinstance(root, TyperGroup)
    names = {f"man1/keyserver-{name}.1" for name in root.commands}
    assert names < set(PAGES)
    assert set(PAGES) - names == {"man1/keyserver.1", "man5/keyserver.toml.5"}


def test_mandoc_and_man_find_no_mistake(tmp_path: Path) -> None:
    write(tmp_path, "2026-11-28")
    files = [str(tmp_path / name) for name in PAGES]
    assert output("mandoc", "-Tlint", "-Wwarning", *files) == ""
    for file in files:
        done = subprocess.run(
            ["man", "--warnings", "-EUTF-8", "-l", "-Tutf8", "-Z", file], capture_output=True, timeout=30
        )
        assert (done.returncode, done.stderr) == (0, b""), file


def test_options_are_there_as_they_are_typed(tmp_path: Path) -> None:
    text = shown("man1/keyserver-lookup.1", tmp_path)
    for words in ("keyserver lookup [OPTION ...] QUERY", "--trace", "--at TIME", "--set SECTION.KEY=VALUE"):
        assert words in text


@pytest.mark.parametrize("section", list(models()))
def test_every_key_is_in_the_page_of_the_file(section: str) -> None:
    text = PAGES["man5/keyserver.toml.5"]
    assert not [key for key in models()[section].model_fields if rf"\fB{plain(key)}\fR" not in text]


def test_what_could_be_taken_for_a_request_is_text() -> None:
    assert plain(".so /etc/passwd\n'x\\") == "\\&.so /etc/passwd\n\\&'x\\e"
    assert prose("Ask `--at`\n**never** \\n") == r"Ask \fB\-\-at\fR \fBnever\fR \en"
    assert paragraphs("a\nb\n\nc") == ["a b", ".PP", "c"]
