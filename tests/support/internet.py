"""A public Internet for tests: names by table, and public addresses that lead to this machine.

::

    internet = Internet(monkeypatch)
    Hkp(spec, f"hkp://keys.partner.de:{server.port}", names=names({"keys.partner.de": [PUBLIC]}), …)
    assert internet.connected == [PUBLIC]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest

from keyserver.upstreams.net import Names, Service

PUBLIC = "8.8.8.8"


class Internet:
    """Makes public addresses lead to 127.0.0.1 for one test, by connecting elsewhere than asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.connected: list[str] = []
        original = aiohttp.TCPConnector._wrap_create_connection

        async def connect(connector: Any, *arguments: Any, addr_infos: list[Any], **options: Any) -> Any:
            self.connected += [info[4][0] for info in addr_infos]
            local = [(*info[:4], ("127.0.0.1", info[4][1])) for info in addr_infos]
            return await original(connector, *arguments, addr_infos=local, **options)

        monkeypatch.setattr(aiohttp.TCPConnector, "_wrap_create_connection", connect)


def names(
    table: dict[str, Sequence[str] | OSError],
    services: dict[str, list[Service]] | None = None,
    asked: list[str] | None = None,
) -> Names:
    """A name service by table; absent names do not exist. `asked` is told the names that are looked up."""

    async def lookup(host: str, port: int) -> Sequence[str]:
        if asked is not None:
            asked.append(host.rstrip("."))
        found = table.get(host.rstrip("."), ())
        if isinstance(found, OSError):
            raise found
        return found

    async def srv(name: str) -> Sequence[Service]:
        return (services or {}).get(name, ())

    return Names(lookup, srv)
