"""The mail server's side of the milter protocol, as Postfix speaks it; written apart from the product's codec."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence


def frame(letter: str, data: bytes = b"") -> bytes:
    """One command."""
    return struct.pack(">IB", len(data) + 1, ord(letter)) + data


def macro(stage: str, pairs: Mapping[str, str]) -> bytes:
    """Macros for a stage."""
    return frame("D", stage.encode() + b"".join(f"{n}\0{v}\0".encode() for n, v in pairs.items()))


def negotiate(version: int = 6, actions: int = 0x1FF, protocol: int = 0x1FFFFF) -> bytes:
    """What Postfix offers."""
    return frame("O", struct.pack(">III", version, actions, protocol))


def connect(address: str = "192.0.2.9", local: str = "192.0.2.1") -> bytes:
    """A client's connection."""
    family = "6" if ":" in address else "4"
    return macro("C", {"j": "mx", "{daemon_addr}": local}) + frame(
        "C", b"client\0" + family.encode() + struct.pack(">H", 4711) + address.encode() + b"\0"
    )


def mail(
    octets: bytes,
    sender: str = "<alice@partner.example>",
    user: str = "",
    end: bool = True,
    recipients: Sequence[str] = (),
) -> list[bytes]:
    """The commands of one mail (CRLF), from MAIL on."""
    top, _, body = octets.partition(b"\r\n\r\n")
    lines = top.replace(b"\r\n ", b"\n ").replace(b"\r\n\t", b"\n\t").split(b"\r\n")
    commands = [
        macro("M", {"i": "4XYZ"} | ({"{auth_authen}": user} if user else {})),
        frame("M", sender.encode() + b"\0"),
        *(frame("R", recipient.encode() + b"\0") for recipient in recipients),
    ]
    for line in lines:
        name, _, value = line.partition(b":")
        commands.append(frame("L", name + b"\0" + value + b"\0"))
    commands.append(frame("N"))
    commands += [frame("B", body[at : at + 65535]) for at in range(0, len(body), 65535)]
    if end:
        commands += [macro("E", {"i": "4XYZ"}), frame("E")]
    return commands


class Client:
    """A connection to a milter."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, **greeting: str) -> Client:
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.send(negotiate())
        answer = await client.answer()
        assert answer[:1] == b"O"
        client.send(connect(**greeting))
        return client

    def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))

    async def answer(self) -> bytes:
        """One answer: letter and data."""
        (length,) = struct.unpack(">I", await self._reader.readexactly(4))
        return await self._reader.readexactly(length)

    async def changed(self, octets: bytes, *recipients: str, **options: str) -> bytes | None:
        """One mail: the body that the filter puts in its place, None where it leaves the mail as it is."""
        commands = mail(octets, recipients=recipients, **options)  # type: ignore[arg-type]
        end = next(n for n, c in enumerate(commands) if c[4:5] == b"N") + 1
        self.send(*commands[:end])
        answers = [await self.answer()]
        if answers[0] == b"c":
            self.send(*commands[end:])
            answers = [await self.answer()]
        while answers[-1][:1] == b"b":
            answers.append(await self.answer())
        assert answers[-1] == b"a", answers
        return b"".join(one[1:] for one in answers[:-1]) if len(answers) > 1 else None

    async def deliver(self, octets: bytes, **options: str) -> tuple[bytes, bytes]:
        """One mail: the answers at the end of its headers and, unless that was "accept", of itself."""
        commands = mail(octets, **options)  # type: ignore[arg-type]
        end = next(n for n, c in enumerate(commands) if c[4:5] == b"N") + 1
        self.send(*commands[:end])
        first = await self.answer()
        if first == b"a":
            return first, b""
        self.send(*commands[end:])
        return first, await self.answer()

    def close(self) -> None:
        self._writer.close()
