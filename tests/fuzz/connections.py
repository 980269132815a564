"""Whole connections of the LDAP and socketmap faces, with what answers behind them: however their octets are cut."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

from fuzz.directory import ADDRESS, ATTRIBUTES, SEARCHES
from fuzz.mutators import behind_a_cut, elements, netstrings
from fuzz.target import NOW, Target
from keyserver.changes import Changes
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.ldap.connection import Connection
from keyserver.faces.ldap.server import LdapServer
from keyserver.faces.ldap.session import LdapLimits
from keyserver.faces.ldap.tree import Tree
from keyserver.faces.verdict.socketmap import SocketmapConnection, SocketmapServer
from keyserver.listen.trust import Trust
from keyserver.model import Malformed
from keyserver.verdict.deciding import Policy, Verdict, Word
from keyserver.verdict.named import NamedPolicy
from keyserver.wire import ldap, socketmap
from keyserver.wire.ber import measure
from keyserver.wire.ldap_filter import Equal
from support.door import Wire, settle
from support.ldap_memory import BASE, Memory, context
from support.ldap_messages import gpg_get, write_bind, write_extended, write_search
from support.openpgp import make
from support.x509 import authority, person

PAGED = b"1.2.840.113556.1.4.319"
"""Its cookies are random."""

Said = tuple[bytes, bool]
"""What was written, and whether the connection was closed behind it."""


@cache
def loop() -> asyncio.AbstractEventLoop:
    """Of all connections here."""
    return asyncio.new_event_loop()


def run(talk: Coroutine[Any, Any, Said]) -> Said:
    """What it comes to."""
    return loop().run_until_complete(talk)


@cache
def directory() -> LdapServer:
    """With a certificate of each kind."""

    async def open_() -> LdapServer:
        octets = make(["Alice <alice@example.org>"], seed="fuzz").octets
        around = context(Memory(octets, person(ADDRESS, authority()).der, now=NOW), Changes(), [])
        tree = Tree(BASE, start_tls=False, text_search=lambda: True)
        return LdapServer(around, tree, LdapLimits(connections_per_client=1000, outstanding=1000))

    return loop().run_until_complete(open_())


async def talk_ldap(server: LdapServer, pieces: Iterable[bytes]) -> Said:
    """Each piece comes when the one before is answered."""
    connection = Connection(server, False)
    wire = Wire(connection)
    for piece in pieces:
        if wire.closed:
            break
        connection.data_received(piece)
        while connection.held().searches and not wire.closed:
            await asyncio.sleep(0)
        await settle(3)
    said = bytes(wire.written), wire.closed
    wire.abort()
    await settle(3)
    return said


def messages(octets: bytes) -> Counter[bytes]:
    """What was written, whole messages alone."""
    found: Counter[bytes] = Counter()
    while octets:
        size = measure(octets, 0, 1 << 30)
        assert size is not None and size <= len(octets), "half a message"
        found[octets[:size]] += 1
        octets = octets[size:]
    return found


def speak_ldap(octets: bytes) -> None:
    """Messages at once are answered as they are one by one; less is said only where the client, or what is no LDAP, has
    ended something meanwhile."""
    if PAGED in octets:
        return
    cut, stream = int.from_bytes(octets[:2], "big"), octets[2:]
    cut %= len(stream) + 1
    one_by_one, closed = run(talk_ldap(directory(), singly(stream)))
    single = messages(one_by_one)
    for pieces in ([stream], [stream[:cut], stream[cut:]]):
        said, over = run(talk_ldap(directory(), pieces))
        assert over == closed
        assert messages(said) <= single


def singly(stream: bytes) -> Iterator[bytes]:
    """Message by message, and octet by octet where there is none."""
    while stream:
        try:
            size = measure(stream, 0, ldap.MAX_MESSAGE)
        except Malformed:
            size = None
        size = size if size is not None and size <= len(stream) else 1
        yield stream[:size]
        stream = stream[size:]


@cache
def maps() -> SocketmapServer:
    """Three policies, whose verdicts go by the local part of an address."""
    policies = {
        "encrypt": NamedPolicy(Policy(), "encrypt:[{domain}]"),
        "wait": NamedPolicy(Policy(), "{kind}", tempfail=True),
        "go": NamedPolicy(Policy(), "x", tempfail=False),
    }

    async def ask(address: str, policy: Policy) -> Verdict:
        word = list(Word)[len(address) % len(Word)]
        return Verdict(address, word, "as the test says", text="ä" if word is Word.REJECT else "", until=NOW + 60)

    surroundings: Any = SimpleNamespace(
        trust=Trust(),
        budget=MemoryLimit(1 << 20, Changes(), lambda: NOW),
        lookups=SimpleNamespace(note_asked=lambda names, now: None),
        clock=lambda: NOW,
        rules=lambda: SimpleNamespace(policies=policies),
    )
    asking: Any = SimpleNamespace(face="socketmap", context=surroundings, may=lambda client: True, ask=ask)
    return SocketmapServer(asking, 1000, lambda hits: None)


async def talk_socketmap(pieces: Sequence[bytes]) -> Said:
    """All pieces at once, and what comes of them."""
    connection = SocketmapConnection(maps())
    wire = Wire(connection)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
            await settle(2)
    quiet = 0
    while not wire.closed and quiet < 5:
        before = len(wire.written)
        await settle(2)
        quiet = quiet + 1 if len(wire.written) == before else 0
    said = bytes(wire.written), wire.closed
    wire.abort()
    await settle(3)
    return said


def speak_socketmap(octets: bytes) -> None:
    """Every request has its reply, in order, however requests are cut; what is none ends the connection."""
    cut, stream = int.from_bytes(octets[:2], "big"), octets[2:]
    cut %= len(stream) + 1
    whole = run(talk_socketmap([stream]))
    for pieces in ([stream[:cut], stream[cut:]], [stream[at : at + 1] for at in range(len(stream))]):
        said, closed = run(talk_socketmap(pieces))
        assert closed == whole[1]
        assert said.startswith(whole[0]) if closed else said == whole[0]
    reader = socketmap.Reader()
    reader.add(whole[0])
    while (reply := reader.next()) is not None:
        assert reply.split(b" ")[0] in (b"OK", b"NOTFOUND", b"TEMP", b"PERM") and b"\n" not in reply
    assert reader.empty


def requests() -> Iterator[bytes]:
    """Searches behind each other, and what ends them."""
    searches = (
        *SEARCHES,
        gpg_get(ADDRESS, BASE),
        ldap.SearchRequest(BASE, 2, 0, 0, False, Equal("mail", ADDRESS.encode()), ()),
    )
    written = [ldap.envelope(number, write_search(search)) for number, search in enumerate(searches, 1)]
    bind, end = ldap.envelope(9, write_bind(3)), ldap.envelope(10, ldap.GOODBYE)
    yield from (b"\0\x30" + one + one for one in written)
    yield b"\0\x99" + bind + b"".join(written) + ldap.envelope(8, write_extended(ldap.START_TLS)) + end


def asked() -> Iterable[bytes]:
    """Requests of Postfix, one twice."""
    known = (b"encrypt alice@example.org", b"wait bob@example.org", b"go ab@example.org")
    some = [socketmap.netstring(request) for request in (*known, b"none x", b"encrypt example.org", known[0])]
    return [b"\0\x09" + b"".join(some), b"\0\1" + some[0] + b"x"]


WORDS = (b"encrypt ", b"wait ", b"go ", b"@example.org", b"alice")
TARGETS = {
    "ldap-connection": Target(speak_ldap, requests, 1024, behind_a_cut(elements), ATTRIBUTES),
    "socketmap-connection": Target(speak_socketmap, asked, 512, behind_a_cut(netstrings), WORDS),
}
