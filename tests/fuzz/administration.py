"""What administrators hand in, or somebody in their name: configuration, parameters and bodies of the API, imports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, cast
from urllib.parse import parse_qsl

from aiohttp import web

from fuzz.mutators import behind_a_cut, lines, openpgp
from fuzz.openpgp import ARMOR
from fuzz.smime import PEM, files
from fuzz.target import NOW, Target, at_any_cut
from keyserver.admin.api.reading import body_of, whole
from keyserver.admin.filters import FILTERS, filter_of, order_of
from keyserver.admin.importing import Importing, ImportReport
from keyserver.admin.problems import Unusable
from keyserver.config import ConfigError, load
from keyserver.config.loading import load_again, models
from keyserver.config.problem import Problem
from keyserver.model import Kind, Refused
from keyserver.openpgp.armor import armor
from keyserver.upstreams.checks import mistakes
from support.openpgp import make

ROOT = Path(__file__).parents[2]
LONGEST = 2000  # characters of what is said about one mistake
MEMBERS = {"reason": str, "approve": bool}


def read_configuration(octets: bytes) -> None:
    """A configuration, or every mistake in it in one line each; what was read is read again the same."""
    if b"/dev" in octets or b"/proc" in octets:
        return  # files are looked at
    with NamedTemporaryFile(suffix=".toml") as file:
        file.write(octets)
        file.flush()
        try:
            config = load(Path(file.name), mistakes=mistakes)
        except ConfigError as error:
            assert error.problems
            for problem in error.problems:
                _say(problem)
        else:
            assert load_again(config) == config


def _say(problem: Problem) -> None:
    said = str(problem)
    assert said.isprintable() and len(said) < LONGEST, said[:LONGEST]


def read_parameters(octets: bytes) -> None:
    """Filters, orders, numbers and JSON bodies of the API are read, or refused with a sentence."""
    query = dict(parse_qsl(octets.decode("utf-8", "surrogateescape")))
    for read in (filter_of, order_of, lambda given: [whole(value, name) for name, value in given.items()]):
        with contextlib.suppress(Unusable):
            read(query)
    with contextlib.suppress(Unusable):
        body = asyncio.run(body_of(cast(web.Request, _Body(octets)), MEMBERS))
        assert all(type(value) is MEMBERS[name] for name, value in body.items())


class _Body:
    """A request, as far as its body is read."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    async def read(self) -> bytes:
        return self._octets


class _Nowhere:
    """A store in which nothing is kept, and a cleaner that keeps nothing but tells what came."""

    def __init__(self) -> None:
        self.came: list[tuple[Kind, bytes]] = []

    async def begin(self) -> int:
        return 0

    async def clean(self, kind: Kind, octets: bytes, now: int) -> Sequence[Refused]:
        self.came.append((kind, octets))
        return [Refused("not kept")]


def import_file(octets: bytes) -> None:
    """A file is taken for the same, and falls into the same certificates, however it comes."""

    def read(pieces: Sequence[bytes]) -> tuple[ImportReport, list[tuple[Kind, bytes]]]:
        nowhere: Any = _Nowhere()

        async def chunks() -> AsyncIterator[bytes]:
            for piece in pieces:
                yield piece

        report = asyncio.run(Importing(nowhere, nowhere, lambda: NOW, "test", 1 << 20).run(chunks()))
        assert report.read <= report.refused
        return replace(report, problems=()), nowhere.came

    at_any_cut(octets, read)


def configurations() -> Iterator[bytes]:
    """Ours, and small ones with a mistake."""
    for file in sorted((ROOT / "conf").rglob("*.toml")):
        yield file.read_bytes()
    yield b'[[upstream]]\nname = "a"\nurl = "hkps://keys.example"\n[cache]\nttl = "12h"\n'
    yield b'[policy]\ninternal_domains = ["here.example"]\n[ldap]\nlisten = "[::1]:389"\n'
    yield b'[admin]\npassword = "x"\n[cache]\nmax_size = "1 GiB"\nunknown = 1e400\n'


def parameters() -> Iterable[bytes]:
    """Query strings and bodies."""
    return [
        b"source=local&domain=b%C3%BCcher.example&status=held&held=1&from=2026-11-28T08:00Z&expires_before=1790000000",
        b"q=alice&not_kind=x509&sort=cached&order=desc&limit=100",
        b'{"reason": "x", "approve": true}',
    ]


def imports() -> Iterator[bytes]:
    """Keyrings and X.509 files, behind some text too."""
    octets = make(seed="fuzz").octets
    for file in (octets, armor(octets), b"x\n" * 8190 + armor(octets), *files(), b"x\n" * 8192 + next(iter(files()))):
        yield b"\x10\0" + file


def _keys() -> Iterator[bytes]:
    for section, model in models().items():
        yield f"\n[{section}]\n".encode()
        yield from (f"\n{name} = ".encode() for name in model.model_fields)


TARGETS = {
    "configuration": Target(read_configuration, configurations, 8192, lines, tuple(dict.fromkeys(_keys()))),
    "admin-request": Target(
        read_parameters,
        parameters,
        1024,
        words=(*(f"&{name}=".encode() for name in (*FILTERS, "sort", "order")), b'{"reason": ', b"true}", b"[[[["),
    ),
    "admin-import": Target(import_file, imports, 20000, behind_a_cut(openpgp), ARMOR + PEM),
}
