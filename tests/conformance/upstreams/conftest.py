"""An upstream of any protocol beside its scripted server."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from keyserver.upstreams.base import Upstream
from support.internet import Internet, names
from support.protocols import Place, Spoken, Stage
from support.scripted import Behaviour, hang
from support.tls import Authority


@pytest.fixture(autouse=True)
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    return Internet(monkeypatch)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def stage(authority: Authority, threads: ThreadPoolExecutor) -> Stage:
    """`stage(spoken, behaviour)`: an upstream beside its server, and the server's port."""

    @contextlib.asynccontextmanager
    async def opened(
        spoken: Spoken, behaviour: Behaviour = hang, tls: ssl.SSLContext | None = None, table: object = None
    ) -> AsyncIterator[tuple[Upstream, int]]:
        context = tls or (authority.server(spoken.host) if spoken.tls else None)
        hosts = {host: [spoken.at] for host in ("partner.de", "keys.partner.de", "openpgpkey.partner.de")}
        named = names({**hosts, "inside.partner.de": ["10.0.0.1"]} if table is None else table)  # type: ignore[arg-type]
        async with spoken.serve(behaviour, context) as port:
            upstream = spoken.make(Place(port, named, authority.ca_file, threads))
            try:
                yield upstream, port
            finally:
                await upstream.close()

    return opened
