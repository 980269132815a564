"""The HTTP face on a real port, spoken to with the exact bytes of real clients, and by gpg itself.

The resolver behind it is a small one in memory that answers what a test put there and notes how it was asked."""

import asyncio
import contextlib
import html
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from keyserver.changes import Changes
from keyserver.faces.cache import MemoryLimit
from keyserver.faces.context import FaceContext, FaceRules
from keyserver.faces.http import hkp
from keyserver.faces.http.app import make_app, make_runner
from keyserver.faces.http.facts import Facts
from keyserver.faces.http.pages import Pages, shown
from keyserver.model import (
    Answer,
    Answered,
    Certificate,
    Entry,
    How,
    Kind,
    Proof,
    Source,
    State,
    Subkey,
    UserId,
    Validity,
    View,
)
from keyserver.openpgp.armor import dearmor
from keyserver.query import Query, parse
from keyserver.resolver.membership import Detached
from keyserver.store.base import StoreError, StoreStats

NOW = 1_700_000_000
VIEW = View("test", answer_mailflow=True)


@dataclass
class Resolving:
    """Answers by name; what is not there is absent."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[Query, View, str | None, bool]] = field(default_factory=list)
    states: list[str] = field(default_factory=lambda: ["closed"])
    broken: bool = False

    async def lookup(
        self, query: Query, view: View, *, client: str | None = None, looped: bool = False, via: str = ""
    ) -> Answer:
        self.asked.append((query, view, client, looped))
        if self.broken:
            raise RuntimeError("a programming error")
        absent = Answer(
            State.ABSENT,
            How.HIT,
            "said absent",
            names=frozenset({query.name}),
            since=NOW - 7,
            until=NOW + 60,
            keep=True,
        )
        return self.answers.get(query.name, absent)

    def put(self, term: str, *certificates: Answered, **changes: object) -> None:
        query = parse(term)
        answer = Answer(
            State.FOUND if certificates else State.ABSENT,
            How.HIT,
            "",
            certificates,
            frozenset({query.name}),
            NOW - 100,
            NOW + 1000,
            keep=True,
        )
        self.answers[query.name] = replace(answer, **changes)  # type: ignore[arg-type]

    def statuses(self) -> list["Status"]:
        return [Status(f"upstream {n}", state) for n, state in enumerate(self.states)]


@dataclass
class Status:
    name: str
    state: str


@dataclass
class Counts:
    healthy: str = ""
    octets: int = 1000
    broken: bool = False

    async def stats(self) -> StoreStats:
        if self.broken:
            raise StoreError("disk full")
        return StoreStats(1234, {"keyserver": 1200, "local": 34}, 5, 6, 0, self.octets, self.healthy)


@dataclass
class Reply:
    version: str
    status: int
    headers: dict[str, str]
    body: bytes
    closed: bool


@dataclass
class Face:
    port: int
    resolving: Resolving
    counts: Counts
    context: FaceContext
    notes: list[tuple[str, Query | None, Answer | None, int, float]]

    async def raw(self, *pieces: bytes, patience: float = 5.0) -> Reply:
        """Send pieces as segments of their own, read until the server closes or `Content-Length` is reached."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.005 if len(pieces) > 1 else 0)
            async with asyncio.timeout(patience):
                head = await reader.readuntil(b"\r\n\r\n")
                line, *rest = head.decode("ascii").split("\r\n")
                version, status, _ = line.split(" ", 2)
                headers = {n.lower(): v for n, v in (h.split(": ", 1) for h in rest if h)}
                head_only = pieces[0].startswith(b"HEAD") or status == "304"
                body = b"" if head_only else await reader.readexactly(int(headers["content-length"]))
            try:
                closed = await asyncio.wait_for(reader.read(1), 0.3) == b""
            except TimeoutError:
                closed = False
            return Reply(version, int(status), headers, body, closed)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def get(self, target: str, *headers: str, method: str = "GET") -> Reply:
        lines = [f"{method} {target} HTTP/1.1", "Host: x", "Connection: close", *headers, "", ""]
        return await self.raw("\r\n".join(lines).encode())


@asynccontextmanager
async def served(**changes: object) -> AsyncIterator[Face]:
    resolving, counts = Resolving(), Counts()
    notes: list[tuple[str, Query | None, Answer | None, int, float]] = []
    context = FaceContext(
        lookups=resolving,
        store=counts,
        budget=MemoryLimit(1 << 20, Changes(), lambda: NOW),
        view=VIEW,
        clock=lambda: NOW,
        monotonic=lambda: 1.0,
        note=lambda *line: notes.append(line),
        instance="here.example",
        rules=lambda: FaceRules(max_size=1 << 20),
    )
    context = replace(context, **changes)  # type: ignore[arg-type]
    runner = make_runner(make_app(context, hkp.routes))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield Face(runner.addresses[0][1], resolving, counts, context, notes)
    finally:
        await runner.cleanup()


@pytest.fixture
async def face() -> AsyncIterator[Face]:
    async with served() as one:
        yield one


# ---- certificates: two that gpg made, and what tests say about them


@dataclass(frozen=True)
class Made:
    home: Path
    alice: bytes
    bob: bytes
    alice_fingerprint: str
    bob_fingerprint: str


def gpg(home: Path, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    command = ["gpg", "--homedir", str(home), "--batch", "--no-tty", *arguments]
    return subprocess.run(command, capture_output=True, check=check, timeout=30)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    home = tmp_path_factory.mktemp("gpg")
    home.chmod(0o700)
    for user_id in ("Alice <alice@example.org>", "Bob <bob@example.org>"):
        options = ("--pinentry-mode", "loopback", "--passphrase", "")
        gpg(home, *options, "--quick-gen-key", user_id, "ed25519", "default", "never")
    listing = gpg(home, "--with-colons", "--list-keys").stdout.decode()
    prints = re.findall(r"^pub:.*\n(?:.*\n)*?fpr:+([0-9A-F]{40}):", listing, re.MULTILINE)
    yield Made(home, gpg(home, "--export", prints[0]).stdout, gpg(home, "--export", prints[1]).stdout, *prints)
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=30)


def answered(
    octets: bytes = b"\xc6\x03\x04ab",
    *user_ids: str,
    fingerprint: str = "A" * 40,
    source: Source = Source.KEYSERVER,
    **changes: object,
) -> Answered:
    texts = user_ids or ("Alice <alice@example.org>",)
    proof = Proof(
        kind=Kind.OPENPGP,
        version=4,
        fingerprint=fingerprint,
        key_id=fingerprint[-16:],
        algorithm=22,
        bits=256,
        created=NOW - 9000,
        expires=None,
        validity=Validity.VALID,
        can_encrypt=True,
        user_ids=tuple(UserId(t, None, NOW - 9000, None, False) for t in texts),
        subkeys=(Subkey("B" * 40, "B" * 16, 18, 256, NOW - 9000, NOW - 1, True, True, False),),
        strong=frozenset(),
        weak=frozenset(),
        index=frozenset(),
        newest=NOW - 9000,
        turns=None,
    )
    proof = replace(proof, **changes)  # type: ignore[arg-type]
    entry = Entry(fingerprint, Kind.OPENPGP, octets, source, "upstream 0", NOW - 100, NOW - 100)
    return Answered(Certificate(octets, proof), (entry,))


# ---- the exact bytes of real clients

FPR = "760998D4A41187B6D498D3C3D6A7A7F542205372"
GPG_TAIL = b"Pragma: no-cache\r\nCache-Control: no-cache\r\n\r\n"


def gpg_request(search: str, op: str = "op=get&options=mr") -> bytes:
    return f"GET /pks/lookup?{op}&search={search} HTTP/1.0\r\nHost: keys.example.org:11371\r\n".encode()


@pytest.mark.parametrize("split", [False, True])
async def test_gpg_gets_a_closed_connection_and_nothing_chunked_or_compressed(face: Face, split: bool) -> None:
    one = answered(b"\xc6\x05\x04abcd")  # as long as needs no padding: without its CRC line gpg would not take it
    face.resolving.put(FPR, one)
    head = gpg_request(f"0x{FPR}")
    reply = await face.raw(head, GPG_TAIL) if split else await face.raw(head + GPG_TAIL)
    assert (reply.status, reply.closed) == (200, True)
    assert reply.headers["content-type"] == "application/pgp-keys"
    assert reply.headers["connection"] == "close"
    assert not {"transfer-encoding", "content-encoding"} & reply.headers.keys()
    assert reply.body.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")
    assert re.search(rb"\n=[A-Za-z0-9+/]{4}\n-----END PGP PUBLIC KEY BLOCK-----\n\Z", reply.body)
    assert dearmor(reply.body) == (one.certificate.octets,)


async def test_a_gpg_request_cut_anywhere_is_put_together(face: Face) -> None:
    face.resolving.put(FPR, answered())
    request = gpg_request(f"0x{FPR}") + GPG_TAIL
    replies = await asyncio.gather(*(face.raw(request[:n], request[n:]) for n in range(1, len(request), 7)))
    assert {r.status for r in replies} == {200}
    assert len({r.body for r in replies}) == 1


async def test_http_1_0_is_closed_even_if_it_wants_to_be_kept_alive(face: Face) -> None:
    for target in ("/", "/pks/lookup?op=get&search=nobody@example.org", "/nowhere", "/healthz"):
        reply = await face.raw(f"GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
        assert reply.closed, target
        assert reply.headers["connection"] == "close"


async def test_http_1_1_is_kept_alive(face: Face) -> None:
    reply = await face.raw(b"GET /pks/lookup?op=get&search=nobody@example.org HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status == 404
    assert not reply.closed


CLIENTS = {
    "gpg address": (gpg_request("alice@example.org&exact=on") + GPG_TAIL, "alice@example.org"),
    "gpg plus": (gpg_request("alice%20tag@example.org&exact=on") + GPG_TAIL, "alice+tag@example.org"),
    "gpg long id": (gpg_request("0xD6A7A7F542205372") + GPG_TAIL, "D6A7A7F542205372"),
    "gpg search": (
        gpg_request("alice@example.org", "op=index&options=mr&fingerprint=on") + GPG_TAIL,
        "alice@example.org",
    ),
    "sq": (f"GET /pks/lookup?op=get&options=mr&search=0x{FPR} HTTP/1.1\r\nhost: x\r\n\r\n".encode(), FPR),
    "sq plus": (
        b"GET /pks/lookup?op=get&options=mr&search=a+b@example.org HTTP/1.1\r\nhost: x\r\n\r\n",
        "a+b@example.org",
    ),
    "Thunderbird search": (
        b"GET /pks/lookup?search=alice@example.org&fingerprint=on&op=index&options=mr&exact=on HTTP/1.1\r\n"
        b"Host: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n",
        "alice@example.org",
    ),
    "Thunderbird get": (
        f"GET /pks/lookup?search=0x{FPR[-16:].lower()}&op=get&options=mr HTTP/1.1\r\nHost: x\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\n\r\n".encode(),
        FPR[-16:],
    ),
    "OpenKeychain": (
        b"GET /pks/lookup?op=index&options=mr&search=alice%40example.org HTTP/1.1\r\nHost: x\r\n"
        b"Accept-Encoding: gzip\r\nUser-Agent: okhttp/3\r\n\r\n",
        "alice@example.org",
    ),
    "FlowCrypt": (
        b"GET /pks/lookup?search=alice%40example.org&fingerprint=on&exact=on&options=mr&op=index HTTP/1.1\r\n"
        b"Host: x\r\nOrigin: chrome-extension://a\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\r\n",
        "alice@example.org",
    ),
    "FlowCrypt get": (
        f"GET /pks/lookup?op=get&search=0x{FPR[-16:]}&options=mr HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        FPR[-16:],
    ),
    "hkp-client": (
        f"GET /pks/lookup?op=get&options=mr&search=0x{FPR.lower()} HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n"
        "Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\r\n".encode(),
        FPR,
    ),
    "add-apt-repository": (
        f"GET /pks/lookup?op=get&options=mr&exact=on&search=0x{FPR} HTTP/1.1\r\nHost: x\r\n"
        "User-Agent: curl/7\r\nAccept: */*\r\n\r\n".encode(),
        FPR,
    ),
    "absolute form": (f"GET http://x/pks/lookup?op=get&search=0x{FPR} HTTP/1.1\r\nHost: x\r\n\r\n".encode(), FPR),
    "no 0x, spaces": (
        b"GET /pks/lookup?op=get&search=7609+98D4+A411+87B6+D498++D3C3+D6A7+A7F5+4220+5372 HTTP/1.1\r\nHost: x\r\n\r\n",
        FPR,
    ),
    "brackets": (
        b"GET /pks/lookup?op=get&options=mr&search=<Alice@Example.ORG> HTTP/1.0\r\nHost: localhost\r\n\r\n",
        "alice@example.org",
    ),
}


@pytest.mark.parametrize("client", CLIENTS)
async def test_what_real_clients_send_is_understood_and_answered(face: Face, client: str) -> None:
    request, term = CLIENTS[client]
    face.resolving.put(term, answered(b"\xc6\x05\x04abcd", f"Alice <{term}>"))
    reply = await face.raw(request)
    assert reply.status == 200
    assert reply.headers["access-control-allow-origin"] == "*"
    assert not {"transfer-encoding", "content-encoding"} & reply.headers.keys()
    (asked,) = face.resolving.asked
    assert asked == (parse(term), VIEW, "127.0.0.1", False)
    if b"op=index" in request:
        assert reply.headers["content-type"] == "text/plain"
        assert reply.body.startswith(b"info:1:1\npub:" + b"A" * 40)
        assert f"Alice <{term}>".encode() in reply.body
    else:
        assert reply.body.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n")


async def test_a_submission_in_three_segments_is_read_and_refused(face: Face) -> None:
    body = b"keytext=" + b"%2D" * 100_000
    head = b"POST /pks/add HTTP/1.0\r\nHost: x\r\n"
    fields = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n" % len(body)
    reply = await face.raw(head, fields, body)
    assert (reply.status, reply.closed) == (403, True)
    assert b"no submissions" in reply.body
    assert reply.headers["access-control-allow-origin"] == "*"


async def test_an_endless_submission_is_refused_and_cut_off(face: Face) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", face.port)

    async def flood() -> None:
        writer.write(b"POST /pks/add HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            await asyncio.sleep(0.01)

    answer = asyncio.create_task(reader.readline())
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(flood(), 5)
    assert b" 403 " in await answer
    with contextlib.suppress(ConnectionError):
        writer.close()
        await writer.wait_closed()


# ---- gpg itself


async def run_gpg(home: Path, port: int, *arguments: str) -> tuple[int, str]:
    command = [
        "gpg", "--homedir", str(home), "--batch", "--no-tty", "--keyserver", f"hkp://127.0.0.1:{port}", *arguments
    ]  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL
    )
    output, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, output.decode(errors="replace")


async def test_gpg_receives_searches_locates_and_is_refused(face: Face, made: Made, tmp_path: Path) -> None:
    home = tmp_path / "client"
    home.mkdir(mode=0o700)
    alice = answered(made.alice, "Alice <alice@example.org>", fingerprint=made.alice_fingerprint)
    bob = answered(made.bob, "Bob <bob@example.org>", fingerprint=made.bob_fingerprint)
    face.resolving.put(made.alice_fingerprint, alice)
    face.resolving.put("bob@example.org", bob)
    face.resolving.put("both@example.org", alice, bob)
    try:
        code, output = await run_gpg(home, face.port, "--recv-keys", made.alice_fingerprint)
        assert (code, "imported: 1" in output) == (0, True), output
        code, output = await run_gpg(
            home, face.port, "--auto-key-locate", "clear,keyserver", "--locate-external-keys", "bob@example.org"
        )
        assert (code, made.bob_fingerprint in output) == (0, True), output
        code, output = await run_gpg(home, face.port, "--with-colons", "--search-keys", "both@example.org")
        assert made.alice_fingerprint in output, output
        assert made.bob_fingerprint in output, output
        code, output = await run_gpg(home, face.port, "--recv-keys", "C" * 40)
        assert (code, "No data" in output) == (2, True), output
        code, output = await run_gpg(home, face.port, "--send-keys", made.alice_fingerprint)
        assert code == 2, output
        # Both in one armored block: gpg reads on behind the first.
        block = (await face.get("/pks/lookup?op=get&search=both@example.org")).body
        assert block.count(b"BEGIN PGP") == 1
        both = await asyncio.create_subprocess_exec(
            "gpg", "--homedir", str(home), "--batch", "--show-keys", "--with-colons",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert (await both.communicate(block))[0].count(b"pub:") == 2
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False, timeout=30)


# ---- states, statuses, hostile input


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("op=get&search=nobody@example.org", 404),
        ("op=index&options=mr&search=nobody@example.org", 404),
        ("op=index&search=nobody@example.org", 404),
        ("op=get&search=0x12345678", 404),
        ("search=a@example.org", 400),
        ("op=get", 400),
        ("op=get&search=", 400),
        ("op=get&search=%20", 400),
        ("", 400),
        ("op=get&search=0x123", 400),
        ("op=get&search=a%00b@example.org", 400),
        ("op=get&search=a%0Ab@example.org", 400),
        (f"op=get&search={'a' * 600}", 400),
        ("&".join(["a=b"] * 40), 400),
        ("op=hget&search=a@example.org", 501),
        ("op=x-other&search=a@example.org", 501),
        ("op=get&search=Alice", 501),
        ("op=index&search=Alice%20Example", 501),
        ("op=get&search=a%B9@example.org", 404),
        ("op=get&search=%u4F60@example.org", 404),
        ("op=index&options=mr&search=M%FCller", 404),
        ("op=get&search=%ED%A0%80", 404),
        ("op=get&search=%", 501),
        ("op=get&search=%F0%9F%94%91@example.org", 404),
        ("op=get&search=a@b@c", 501),
        ("op=get&search=%E2%80%AEa@example.org", 501),
    ],
)
async def test_statuses(face: Face, target: str, status: int) -> None:
    reply = await face.get(f"/pks/lookup?{target}")
    assert reply.status == status
    assert reply.headers["access-control-allow-origin"] == "*"
    assert int(reply.headers["content-length"]) == len(reply.body) > 0
    assert len(face.notes) == 1
    assert face.notes[0][3] == status


async def test_what_is_no_term_is_told_what_would_be_one(face: Face) -> None:
    for term in ("Alice", "a@example.org,b@example.org", "@example.org"):
        reply = await face.get(f"/pks/lookup?op=get&search={term}")
        assert reply.status == 501
        words = reply.body.decode()
        assert all(word in words for word in ("alice@example.org", "40 or 64 hex digits", "16-digit key ID"))


@pytest.mark.parametrize("term", [b"\xff\xfe@example.org", "m\u00fcller@example.org".encode(), b"\x00", b"a b"])
async def test_raw_octets_in_the_request_line_are_400_at_worst(face: Face, term: bytes) -> None:
    reply = await face.raw(b"GET /pks/lookup?op=get&search=" + term + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status in (400, 404)


async def test_a_huge_request_line_or_header_is_400_or_so(face: Face) -> None:
    for request in (
        b"GET /pks/lookup?op=get&search=" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ):
        assert (await face.raw(request)).status in (400, 414, 431)


@pytest.mark.parametrize("state", [State.FAILED, State.BUSY])
async def test_not_asked_is_500_and_never_says_not_found(face: Face, state: State) -> None:
    reason = "DNS: host not found"
    face.resolving.put("a@example.org", state=state, how=How.MISS, reason=reason, keep=False)
    for op in ("get", "index", "index&options=mr", "vindex"):
        reply = await face.get(f"/pks/lookup?op={op}&search=a@example.org")
        assert reply.status == 500
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["access-control-allow-origin"] == "*"
        assert b"not found" not in reply.body.lower()
        assert b"no keys found" not in reply.body.lower()
        assert reason.encode() not in reply.body


async def test_an_error_of_ours_is_500_with_cors_and_is_logged_without_the_address(
    face: Face, caplog: pytest.LogCaptureFixture
) -> None:
    face.resolving.broken = True
    reply = await face.get("/pks/lookup?op=get&search=secret@example.org")
    assert reply.status == 500
    assert reply.headers["access-control-allow-origin"] == "*"
    assert "programming error" in caplog.text
    assert "secret" not in caplog.text


async def test_bytes_that_are_not_http_are_not_logged(face: Face, caplog: pytest.LogCaptureFixture) -> None:
    reply = await face.raw(b"GET /pks/lookup?op=get&search=s\xffcret@example.org HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.status in (400, 404)
    assert "cret" not in caplog.text


async def test_text_goes_to_the_resolver_where_it_is_on() -> None:
    async with served(rules=lambda: FaceRules(text_search=True)) as face:
        assert (await face.get("/pks/lookup?op=index&options=mr&search=Alice%20Example")).status == 404
        assert str(face.resolving.asked[0][0]) == "alice example"


# ---- which certificates


async def test_v6_only_for_64_digits_and_alone(face: Face) -> None:
    six = answered(b"\xc6\x03\x06ab", fingerprint="6" * 64, version=6)
    seven = answered(b"\xc6\x03\x06cd", fingerprint="7" * 64, version=6)
    four = answered(b"\xc6\x03\x04ab")
    face.resolving.put("a@example.org", six, four)
    face.resolving.put("6" * 64, six, seven)
    face.resolving.put("6" * 16, six)
    reply = await face.get("/pks/lookup?op=get&search=a@example.org")
    assert dearmor(reply.body) == (four.certificate.octets,)
    index = await face.get("/pks/lookup?op=index&options=mr&search=a@example.org")
    assert index.body.startswith(b"info:1:1\npub:AAAA")
    reply = await face.get("/pks/lookup?op=get&search=" + "6" * 64)
    assert dearmor(reply.body) == (six.certificate.octets,)
    assert b"\n=" not in reply.body
    for op in ("get", "index&options=mr"):
        unseen = await face.get(f"/pks/lookup?op={op}&search={'6' * 16}")
        assert unseen.status == 404
        assert b"of version 6" in unseen.body  # it is known, and the words do not say otherwise


async def test_without_user_ids_only_by_id_and_in_no_index(face: Face) -> None:
    bare = answered(user_ids=())
    bare = Answered(replace(bare.certificate, proof=replace(bare.certificate.proof, user_ids=())), bare.entries)
    for term in ("A" * 40, "A" * 16, "a@example.org"):
        face.resolving.put(term, bare)
    assert (await face.get("/pks/lookup?op=get&search=" + "A" * 40)).status == 200
    assert (await face.get("/pks/lookup?op=get&search=0x" + "A" * 16)).status == 200
    assert (await face.get("/pks/lookup?op=get&search=a@example.org")).status == 404
    for op in ("index&options=mr", "vindex"):
        listed = await face.get(f"/pks/lookup?op={op}&search={'A' * 40}")
        assert listed.status == 404
        assert b"no user ID" in listed.body
        assert b"no certificate is known" not in listed.body


async def test_the_order_of_an_answer_is_kept(face: Face) -> None:
    many = [answered(b"\xc6\x03\x04" + bytes([65 + n, 66]), fingerprint=f"{n:040X}") for n in range(20)]
    face.resolving.put("a@example.org", *many)
    reply = await face.get("/pks/lookup?op=get&search=a@example.org")
    assert dearmor(reply.body) == (b"".join(a.certificate.octets for a in many),)
    index = (await face.get("/pks/lookup?op=vindex&options=mr&search=a@example.org")).body.decode()
    assert index.startswith("info:1:20\n")
    assert re.findall(r"^pub:(\w+)", index, re.MULTILINE) == [f"{n:040X}" for n in range(20)]


async def test_a_large_answer_has_its_exact_length(face: Face) -> None:
    octets = b"\xc6\x03\x04ab" + b"\xc2\xff\x00\x0f\x42\x40" + bytes(1_000_000)
    face.resolving.put("A" * 40, answered(octets))
    reply = await face.raw(gpg_request("0x" + "A" * 40) + GPG_TAIL)
    assert reply.closed
    assert dearmor(reply.body) == (octets,)


# ---- caching headers


async def test_headers_of_a_hit_a_negative_and_a_stale_answer(face: Face) -> None:
    face.resolving.put("a@example.org", answered(source=Source.LOCAL), answered(fingerprint="B" * 40))
    reply = await face.get("/pks/lookup?op=get&search=a@example.org", "Cache-Control: no-cache", "Pragma: no-cache")
    assert reply.headers["age"] == "100"
    assert reply.headers["cache-control"] == "max-age=300"
    assert reply.headers["x-cache"] == "HIT"
    assert reply.headers["x-key-source"] == "local"
    assert re.fullmatch(r'"[0-9a-f]{32}"', reply.headers["etag"])
    face.resolving.put("b@example.org", answered(), until=NOW + 40)
    assert (await face.get("/pks/lookup?op=get&search=b@example.org")).headers["cache-control"] == "max-age=40"
    reply = await face.get("/pks/lookup?op=get&search=nobody@example.org")
    assert (reply.headers["cache-control"], reply.headers["age"]) == ("max-age=60", "7")
    assert "etag" not in reply.headers
    face.resolving.put("c@example.org", answered(), how=How.STALE, keep=False)
    reply = await face.get("/pks/lookup?op=get&search=c@example.org")
    assert (reply.headers["cache-control"], reply.headers["x-cache"]) == ("no-store", "STALE")


async def test_explain_off_tells_strangers_nothing() -> None:
    async with served(rules=lambda: FaceRules(explain=False)) as face:
        face.resolving.put("a@example.org", answered())
        reply = await face.get("/pks/lookup?op=get&search=a@example.org")
        assert reply.status == 200
        assert not {"x-cache", "x-key-source"} & reply.headers.keys()
        facts = json.loads((await face.get("/pks/lookup?op=stats&options=json")).body)
        assert facts.keys() == {"software", "version", "hostname", "certificates"}


async def test_etag_and_304(face: Face) -> None:
    face.resolving.put("a@example.org", answered())
    target = "/pks/lookup?op=get&search=a@example.org"
    etag = (await face.get(target)).headers["etag"]
    for value in (etag, f'"other", W/{etag}', "*"):
        reply = await face.get(target, f"If-None-Match: {value}")
        assert reply.status == 304
        assert reply.headers["etag"] == etag
        assert reply.headers["cache-control"] == "max-age=300"
        assert reply.headers["access-control-allow-origin"] == "*"
        assert "transfer-encoding" not in reply.headers
    assert (await face.get(target, 'If-None-Match: "other"')).status == 200
    face.resolving.put("a@example.org", answered(b"\xc6\x03\x04xy"))
    assert (await face.get(target, f"If-None-Match: {etag}")).status == 200
    assert (await face.get("/pks/lookup?op=get&search=nobody@example.org", "If-None-Match: *")).status == 404


@pytest.mark.parametrize("target", ["/", "/pks/lookup?op=get&search=a@example.org", "/pks/lookup?op=stats", "/none"])
async def test_head_is_get_without_the_body(face: Face, target: str) -> None:
    face.resolving.put("a@example.org", answered())
    full, head = await face.get(target), await face.get(target, method="HEAD")
    assert head.status == full.status
    for name in ("content-length", "content-type", "cache-control", "access-control-allow-origin"):
        assert head.headers[name] == full.headers[name]
    assert head.headers.get("etag") == full.headers.get("etag")


@pytest.mark.parametrize(
    ("target", "allow"),
    [("/pks/lookup?op=get", "GET, HEAD, OPTIONS"), ("/pks/add", "OPTIONS, POST"), ("/", "GET, HEAD, OPTIONS")],
)
async def test_options_and_wrong_methods(face: Face, target: str, allow: str) -> None:
    reply = await face.get(target, "Origin: https://a", "Access-Control-Request-Method: GET", method="OPTIONS")
    assert reply.status == 200
    assert reply.headers["allow"] == reply.headers["access-control-allow-methods"] == allow
    assert reply.headers["access-control-allow-origin"] == "*"
    assert reply.headers["content-length"] == "0"
    reply = await face.get(target, method="PATCH")
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert reply.headers["access-control-allow-origin"] == "*"


async def test_unknown_paths_are_404_with_cors(face: Face) -> None:
    for target in ("/nowhere", "/pks", "/pks/lookup/", "/vks/v1/by-email/a@b.org", "/%ff%00", "//evil/"):
        reply = await face.get(target)
        assert reply.status == 404, target
        assert reply.headers["access-control-allow-origin"] == "*"
    assert (await face.get("/nowhere", method="OPTIONS")).status == 404


# ---- loops, hot answers, notes


async def test_a_request_that_bears_our_name_is_a_loop_and_its_404_is_not_to_be_kept(face: Face) -> None:
    target = "/pks/lookup?op=get&search=nobody@example.org"
    for via in (
        "Via: 1.1 here.example",
        "Via: 1.0 other, 1.1 HERE.example (x)",
        "Via: HTTP/1.1 a\r\nVia: 1.1 here.example",
    ):
        reply = await face.get(target, via)
        assert (reply.status, reply.headers["cache-control"]) == (404, "no-store")
        assert face.resolving.asked.pop()[3] is True
    reply = await face.get(target, "Via: 1.1 elsewhere, 1.1 here.example.org, here.example")
    assert reply.headers["cache-control"] == "max-age=60"
    assert face.resolving.asked.pop()[3] is False


class OfferingTransport(asyncio.Transport):
    """A transport that takes offers, as the front door's does."""

    def __init__(self) -> None:
        super().__init__()
        self.offers: list[Facts] = []

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self.offers.append if name == "hot_answers" else default


async def offers(context: FaceContext, target: str, method: str = "GET", **headers: str) -> list[Facts]:
    transport = OfferingTransport()
    request = make_mocked_request(method, target, headers=headers, transport=transport)
    await hkp.Hkp(context, Pages()).lookup(request)
    return transport.offers


async def test_what_is_offered_to_memory(face: Face) -> None:
    face.resolving.put("a@example.org", answered())
    target = "/pks/lookup?op=get&search=a@example.org"
    (facts,) = await offers(face.context, target)
    assert facts == Facts(frozenset({"openpgp:addr:a@example.org"}), NOW + 1000, 0, NOW - 100, True)
    (negative,) = await offers(face.context, "/pks/lookup?op=get&search=nobody@example.org")
    assert not negative.positive
    assert await offers(face.context, target, "HEAD") == []
    assert await offers(face.context, target, Via="1.1 here.example") == []
    assert await offers(face.context, target, **{"If-None-Match": "*"}) == []
    assert await offers(face.context, "/pks/lookup?op=get&search=text") == []
    face.resolving.put("a@example.org", answered(), keep=False)
    assert await offers(face.context, target) == []
    face.resolving.put("a@example.org", answered(), how=How.MISS)
    assert await offers(face.context, target) == []  # it says MISS; the next one says HIT
    assert len(await offers(replace(face.context, rules=lambda: FaceRules(explain=False)), target)) == 1


async def test_the_change_number_is_noted_before_the_lookup(face: Face) -> None:
    changes = Changes()

    @dataclass
    class Racing(Resolving):
        async def lookup(
            self, query: Query, view: View, *, client: str | None = None, looped: bool = False, via: str = ""
        ) -> Answer:
            changes.published += 1
            return await super().lookup(query, view)

    context = replace(face.context, lookups=Racing(), budget=MemoryLimit(1 << 20, changes, lambda: NOW))
    (facts,) = await offers(context, "/pks/lookup?op=get&search=a@example.org")
    assert facts.number == 0


async def test_every_lookup_is_noted_once(face: Face) -> None:
    face.resolving.put("a@example.org", answered())
    await face.get("/pks/lookup?op=get&search=a@example.org")
    await face.get("/pks/lookup?op=get&search=Alice")
    found, text = face.notes
    assert found[0] == "hkp"
    assert found[1] == parse("a@example.org")
    assert found[2] is not None
    assert found[2].state is State.FOUND
    assert found[3] == 200
    assert text[:4] == ("hkp", None, None, 501)


# ---- pages


HOSTILE = (
    "\u202e<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x00\x1b[31m\u2066Z" + "e\u0301" + "\u0300" * 50
)


@pytest.mark.parametrize("op", ["index", "vindex"])
async def test_hostile_user_ids_and_searches_are_harmless(face: Face, op: str) -> None:
    face.resolving.put("a@example.org", answered(b"x", HOSTILE, "${style} $body", "second " + HOSTILE))
    reply = await face.get(f"/pks/lookup?op={op}&search=%3Ca@example.org%3E")
    page = reply.body.decode()
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in page
    assert "<img" not in page
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)
    assert "\u0300" * 4 not in page
    assert "${style} $body" in html.unescape(page)
    assert 'value="&lt;a@example.org&gt;"' in page
    # An attribute cannot be left: every quote in hostile text is escaped.
    assert "&quot;&#x27;&gt;&lt;img" in page
    mr = await face.get(f"/pks/lookup?op={op}&options=mr&search=a@example.org")
    assert mr.body.decode("ascii").count("\n") == 5


async def test_hostile_search_terms_on_error_pages(face: Face) -> None:
    for term in ("%22%3E%3Cscript%3E@example.org", "%22%3E%3Cscript%3E", "%E2%80%AE%3Cb%3E", "%B9%3Cb%3E"):
        page = (await face.get(f"/pks/lookup?op=index&search={term}")).body.decode()
        assert "<script" not in page
        assert "<b>" not in page
        assert "\u202e" not in page


def test_shown_is_bounded_and_neutral() -> None:
    assert shown("a\u202eb\nc\ud800") == "a\ufffdb\ufffdc\ufffd"
    assert shown("x" * 1000) == "x" * 320 + "…"
    assert shown("<&\"'>") == "&lt;&amp;&quot;&#x27;&gt;"
    assert shown("Jürgen שלום 你好 🔑") == "Jürgen שלום 你好 🔑"


@pytest.mark.parametrize(
    "target",
    ["/", "/pks/lookup?op=stats", "/pks/lookup?op=index&search=a@example.org", "/pks/lookup?op=vindex&search=no"],
)
async def test_pages_are_self_contained_and_strict(face: Face, target: str) -> None:
    face.resolving.put("a@example.org", answered())
    reply = await face.get(target)
    page, policy = reply.body.decode(), reply.headers["content-security-policy"]
    assert 'name="viewport"' in page
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in page
    assert "style=" not in page
    assert not re.search(r"""(?:src|href|action)=["'](?:https?:)?//""", page)
    assert not re.search(r"@import|url\(", page)
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert len(reply.body) < 12_000
    assert page.count("<form") == 1


async def test_details_show_subkeys_and_states(face: Face) -> None:
    one = answered(b"x", "Alice <a@example.org>", validity=Validity.EXPIRED, expires=NOW - 5)
    face.resolving.put("a@example.org", one)
    short = (await face.get("/pks/lookup?op=index&search=a@example.org")).body.decode()
    full = (await face.get("/pks/lookup?op=vindex&search=a@example.org")).body.decode()
    assert "Subkeys" not in short
    assert "expired <time>2023-11-14</time>, revoked" in full
    for page in (short, full):
        assert ">expired</span>" in page
        assert "AAAA AAAA" in page
        assert f'op=get&amp;search=0x{"A" * 40}"' in page
        assert "<title>a@example.org – Keyserver</title>" in page


async def test_the_heading_is_a_user_id_that_counts(face: Face) -> None:
    one = answered(b"x", "Old Name <a@example.org>", "New Name <a@example.org>")
    first, second = one.certificate.proof.user_ids
    proof = replace(one.certificate.proof, user_ids=(replace(first, revoked=True), second))
    face.resolving.put("a@example.org", Answered(replace(one.certificate, proof=proof), one.entries))
    page = (await face.get("/pks/lookup?op=index&search=a@example.org")).body.decode()
    assert "<h2><bdi>New Name &lt;a@example.org&gt;</bdi></h2>" in page
    assert '<li class=dead><bdi>Old Name &lt;a@example.org&gt;</bdi> <span class="soft">revoked</span></li>' in page
    assert page.count("New Name") == 1


async def test_stats_as_page_and_json(face: Face) -> None:
    facts = json.loads((await face.get("/pks/lookup?op=stats&options=json")).body)
    assert facts["certificates"] == 1234
    assert facts["hostname"] == "here.example"
    assert facts["entries"] == {"keyserver": 1200, "local": 34}
    assert facts["upstreams"] == {"upstream 0": "answering"}
    page = (await face.get("/pks/lookup?op=stats")).body.decode()
    assert "1\u202f234" in page
    face.counts.broken = True
    assert (await face.get("/pks/lookup?op=stats")).status == 500
    assert face.resolving.asked == []


# ---- health


async def test_a_store_out_of_reach_is_not_asked() -> None:
    detached = Detached(12.3, over=False, bound=60)
    async with served(detached=lambda: detached, complaint=lambda: detached.text) as face:
        face.counts.broken = True
        reply = await face.get("/readyz")
        assert (reply.status, reply.body) == (200, b"ok, but detached from the cache database for 12 s of 60 s\n")
        detached = Detached(61.0, over=True, bound=60)
        reply = await face.get("/readyz")
        assert reply.status == 503
        assert reply.body == b"detached from the cache database for 61 s: nothing is answered from memory\n"


async def test_health_and_readiness(face: Face) -> None:
    async def ready() -> tuple[int, str]:
        reply = await face.get("/readyz")
        assert reply.body.count(b"\n") == 1
        return reply.status, reply.body.decode()

    assert (await face.get("/healthz")).body == b"ok\n"
    assert await ready() == (200, "ok\n")
    face.resolving.states = ["open", "closed"]
    assert (await ready())[0] == 200
    face.resolving.states = ["open", "open"]
    assert await ready() == (503, "no upstream can be asked: every circuit is open\n")
    face.resolving.states = ["open", "paused"]
    assert (await ready())[0] == 503
    face.resolving.states = ["paused", "paused"]  # somebody wanted that
    assert (await ready())[0] == 200
    face.resolving.states = []
    assert (await ready())[0] == 200
    face.counts.octets = 1 << 20
    assert "max_size" in (await ready())[1]
    face.counts.healthy = "database\nis damaged"
    status, line = await ready()
    assert status == 503
    assert "database is damaged; cache.max_size" in line
    face.counts.broken = True
    assert "disk full" in (await ready())[1]
    assert (await face.get("/healthz")).status == 200
