"""The service with a face that it does not have: a line with an address is answered with armor, or with nothing (after
RFC 1288). Run as `keyserver` is; it listens where `finger.listen` says."""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from typing import Any

from keyserver.config import Listener, loading, models
from keyserver.config.section import Section, key
from keyserver.config.sections.faces import ListenerList
from keyserver.faces import register
from keyserver.faces.context import FaceContext
from keyserver.faces.face import Face, Opening
from keyserver.listen.acceptor import ConnectionFactory
from keyserver.listen.server import ListeningServer, peer_of
from keyserver.openpgp.armor import armor
from keyserver.query import parse


class FingerSection(Section):
    """The third face."""

    listen: ListenerList = key([], "where it listens")


class Config(models.Config):
    """With its section."""

    finger: FingerSection = FingerSection()


class FingerServer(ListeningServer["Connection"]):
    """What its connections share."""

    def __init__(self, context: FaceContext) -> None:
        super().__init__("finger", total=100, per_client=10, trust=context.trust)
        self.context = context

    def maker(self, listener: Listener) -> ConnectionFactory:
        return partial(Connection, self)


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self, server: FingerServer, client: str | None = None) -> None:
        self.server, self.client = server, client or ""
        self.transport: Any = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.client = transport, self.client or peer_of(transport)
        if self.server.enter(self, self.client, transport):
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self.server.leave(self, self.client)

    def data_received(self, data: bytes) -> None:
        self.task = asyncio.get_running_loop().create_task(self.answer(data.decode().strip()))

    async def answer(self, text: str) -> None:
        context = self.server.context
        answer = await context.lookups.lookup(parse(text), context.view, client=self.client)
        self.transport.write(b"".join(armor(one.certificate.octets) for one in answer.certificates))
        if text == "alice@example.org":
            self.transport.close()  # others wait until the server ends them

    def sweep(self, tick: int) -> None: ...

    async def drain(self, seconds: float) -> None:
        self.abort()

    def abort(self) -> None:
        self.transport.abort()


async def _open(opening: Opening) -> FingerServer:
    return FingerServer(opening.context)


def main() -> int:
    loading.Config = Config  # type: ignore[attr-defined]
    register.FACES = (*register.FACES, Face("finger", "finger", _open))
    from keyserver.cli import main as keyserver

    return keyserver()


if __name__ == "__main__":
    sys.exit(main())
