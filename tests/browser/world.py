"""A service that has something to show: three upstreams, one of them dead, a cache of some size, mail, a held one.

Upstreams run on a thread of their own, so that the tests need no loop: the browser's driver has one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from support.mails import attached_key, crlf, head, multipart, signed, text
from support.openpgp import Made, make
from support.ports import free_port
from support.running import Service
from support.scripted import NOT_FOUND, Route, Scripted, key, slow
from support.x509 import Issued, authority, person, rsa_key

OCTETS = "application/octet-stream"
CREATED = 1_700_000_000
PEOPLE = (
    ("Alice Arden", "alice@example.org"),
    ("Carol Chandra", "carol@example.org"),
    ("Dave Duarte", "dave@example.net"),
    ("Erin Eklund", "erin@partner.example"),
    ("Frank Farkas", "frank@partner.example"),
    ("Grace Okafor", "grace@example.com"),
    ("Heidi Hansen", "heidi@example.com"),
    ("Ivan Ilić", "ivan@example.edu"),
)
LATE = "late@example.net"  # its upstream takes a while
PARTNER = "partner.example"
BOB = "bob@partner.example"  # whose key came with mail that nobody has authenticated
MIA = "mia@partner.example"
EVIL = '<script>alert(1)</script> "><img src=x onerror=alert(1)> \u202eevil <evil@example.org>'


@dataclass
class World:
    """What there is. certificates: by address."""

    service: Service
    certificates: Mapping[str, Made]
    mia: Issued  # whose S/MIME certificate came with mail

    @property
    def url(self) -> str:
        """Of the pages."""
        return f"http://127.0.0.1:{self.service.port('admin')}"

    def look(self, term: str) -> str:
        """One lookup by a client: its status, and where the answer came from."""
        address = f"http://127.0.0.1:{self.service.port('hkp')}/pks/lookup?op=get&options=mr&search={quote(term)}"
        try:
            with urllib.request.urlopen(address, timeout=20) as reply:
                return f"{reply.status} {reply.headers['X-Cache']}"
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code} {error.headers['X-Cache']}"

    def send(self, path: str, body: bytes = b"", type_: str = OCTETS, method: str = "POST") -> bytes:
        """One request to the API."""
        headers = {"Authorization": f"Bearer {self.service.token}", "Content-Type": type_}
        request = urllib.request.Request(self.url + path, body, headers, method=method)
        with urllib.request.urlopen(request, timeout=20) as reply:
            return bytes(reply.read())


@contextlib.contextmanager
def upstream(server: Scripted) -> Iterator[Scripted]:
    """The server, on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """All of it, until the block ends."""
    made = {
        address: make([f"{name} <{address}>"], created=CREATED, seed=address, expires=5 * 365 * 86400)
        for name, address in PEOPLE
    }
    evil = make([EVIL], created=CREATED, seed="evil")
    routes: dict[str, Route] = {}
    for address, one in made.items():
        routes[address] = routes[one.fingerprint] = routes[one.key_id] = key(one.octets)
    routes[LATE] = slow(1.0, NOT_FOUND)
    few: dict[str, Route] = {one: key(made[one].octets) for one in ("grace@example.com", "heidi@example.com")}
    ca = authority()
    (folder / "ca.pem").write_bytes(ca.pem)
    mia = person(MIA, ca, key=rsa_key(2048, 1))
    with upstream(Scripted(routes)) as ubuntu, upstream(Scripted(few)) as openpgp:
        config = (
            f'[[upstream]]\nname = "keyserver.ubuntu.com"\nurl = "{ubuntu.url}"\npriority = 20\n'
            f'[[upstream]]\nname = "keys.openpgp.org"\nurl = "{openpgp.url}"\npriority = 20\n'
            f'[[upstream]]\nname = "partner directory"\nurl = "hkp://127.0.0.1:{free_port()}"\npriority = 5\n'
            f'domains = ["{PARTNER}"]\n'
            f'[smime]\ntrust_anchors = "{folder / "ca.pem"}"\n'
            f'[invite]\nsmtp = "smtp://127.0.0.1:{free_port()}"\nsender = "keys@here.example"\n'
            'public_url = "https://optin.here.example"\n'
            '[policy]\ninternal_domains = ["here.example"]\n'
        )
        with Service(folder, config=config) as service:
            there = World(service, made, mia)
            fill(there, evil)
            yield there


def fill(there: World, evil: Made) -> None:
    """Ask, import, harvest."""
    for address in there.certificates:
        for _ in range(4):
            there.look(address)
    for n in range(6):
        there.look(f"nobody{n}@example.org")
    there.send("/api/v1/cache/import", evil.octets + make(["Zoë Zimmer <zoe@here.example>"], seed="zoe").octets)
    with contextlib.suppress(urllib.error.HTTPError):  # its relay is dead: it has failed
        there.send("/api/v1/invitations", b'{"address": "alice@example.org"}', "application/json")
    mail = crlf(signed(text(), there.mia, sender=f"Mia Moor <{MIA}>"))
    there.send("/api/v1/harvest", mail, "message/rfc822")
    known = make([f"Bob Baumann <{BOB}>"], seed="bob").octets
    plain = head(f"Bob Baumann <{BOB}>", "2@mail.example").replace(b"\r\n", b"\n")
    there.send("/api/v1/harvest", crlf(plain + multipart(text(), attached_key(known))), "message/rfc822")


def mailflow(there: World) -> object:
    """What the mail flow says."""
    return json.loads(there.send("/api/v1/mailflow", method="GET"))
