"""An SMTP relay on 127.0.0.1 that takes mail, or does what a test tells it to: refuses, hangs, hangs up, lies.

::

    async with Relay(RCPT="550 5.1.1 nobody") as relay:     # relay.url == "smtp://127.0.0.1:<port>"
        ...
        assert relay.commands[-1] == b"QUIT"; relay.mails == []
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Self

HANG, HANGUP = "(hang)", "(hang up)"
"""In the place of a reply."""

_REPLIES = {
    "greeting": "220 relay.example ESMTP",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 go on",
    "taken": "250 2.0.0 queued",
    "STARTTLS": "220 2.0.0 Ready",
    "AUTH": "235 2.7.0 welcome",
    "QUIT": "221 2.0.0 Bye",
}


class Relay:
    """It offers `extensions`, and STARTTLS where it has a certificate (`wrapped`: TLS from the first octet on)."""

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        *,
        wrapped: bool = False,
        extensions: Sequence[str] = (),
        **replies: str,
    ) -> None:
        """replies: by command; `greeting`, and `taken` after the mail."""
        self.commands: list[bytes] = []
        self.mails: list[bytes] = []
        self.encrypted = False
        self._tls, self._wrapped, self._extensions = tls, wrapped, extensions
        self._replies = {**_REPLIES, **replies}
        self._over = threading.Event()
        self.port = 0

    @property
    def url(self) -> str:
        return f"smtp{'s' if self._wrapped else ''}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.settimeout(5)
            self._threads.append(threading.Thread(target=self._serve, args=[connection], daemon=True))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        # an SSLError is an OSError, too
        with contextlib.suppress(OSError, IndexError), contextlib.ExitStack() as closing:
            closing.callback(connection.close)
            self._talk(connection, closing)

    def _talk(self, connection: socket.socket, closing: contextlib.ExitStack) -> None:
        tls = self._tls
        if tls is not None and self._wrapped:
            connection = closing.enter_context(tls.wrap_socket(connection, server_side=True))
            tls = None
        stream = closing.enter_context(connection.makefile("rb"))
        self._say(connection, "greeting")
        while line := stream.readline():
            self.commands.append(line.rstrip(b"\r\n"))
            verb = line.split()[0].decode("ascii", "replace").upper()
            if verb == "EHLO":
                lines = ["relay.example", *self._extensions, *(["STARTTLS"] if tls else [])]
                text = [f"250{'-' if n < len(lines) - 1 else ' '}{line}\r\n" for n, line in enumerate(lines)]
                connection.sendall("".join(text).encode())
                continue
            self._say(connection, verb)
            if verb == "STARTTLS" and tls is not None:
                stream.close()
                connection = closing.enter_context(tls.wrap_socket(connection, server_side=True))
                stream = closing.enter_context(connection.makefile("rb"))
                tls, self.encrypted = None, True
            elif verb == "DATA" and self._replies["DATA"].startswith("354"):
                mail = b""
                while not mail.endswith(b"\r\n.\r\n"):
                    mail += stream.readline() or b"\r\n.\r\n"
                self.mails.append(mail)
                self._say(connection, "taken")
            elif verb == "QUIT":
                return

    def _say(self, connection: socket.socket, what: str) -> None:
        """Raises OSError where the script says to say nothing."""
        reply = self._replies.get(what, "502 5.5.2 unknown")
        if reply == HANG:
            self._over.wait(60)
        if reply in (HANG, HANGUP):
            raise OSError
        connection.sendall(f"{reply}\r\n".encode())
