"""A hostile HTTP client, and whoever else only opens connections: silence, half words, floods, lies about who asks.

Against the real service in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import pytest

from support.running import Service
from support.scripted import NOT_FOUND, Scripted
from support.tls import Authority

HEAD = b"GET /healthz HTTP/1.1\r\nHost: k\r\n\r\n"
ONCE = HEAD[:-2] + b"Connection: close\r\n\r\n"
PATIENCE = 16.0  # seconds: ten for a head, two between looks, and a busy machine


class Small(Service):
    """A service that may open 64 files."""

    def command(self, *words: str) -> list[str]:
        return ["prlimit", "--nofile=64", *super().command(*words)]


def search(number: int, headers: str = "") -> bytes:
    """A search that nobody has made before."""
    target = f"/pks/lookup?op=get&search=0x{number:040X}"
    return f"GET {target} HTTP/1.1\r\nHost: k\r\nConnection: close\r\n{headers}\r\n".encode()


def ask(port: int, octets: bytes, source: str = "127.0.0.1", seconds: float = 10) -> bytes:
    """What the service says until it closes; nothing where it hangs up."""
    with socket.socket() as client:
        client.settimeout(seconds)
        client.bind((source, 0))
        client.connect(("127.0.0.1", port))
        return say(client, octets)


def say(client: socket.socket, octets: bytes) -> bytes:
    said = b""
    with contextlib.suppress(ConnectionError):
        client.sendall(octets)
        while piece := client.recv(65536):
            said += piece
    return said


def held(port: int, count: int, source: str = "127.0.0.1", octets: bytes = b"") -> Iterator[socket.socket]:
    """Connections that stay."""
    for _ in range(count):
        client = socket.socket()
        client.settimeout(5)
        client.bind((source, 0))
        client.connect(("127.0.0.1", port))
        if octets:
            with contextlib.suppress(ConnectionError):
                client.sendall(octets)
        yield client


def close(clients: Iterable[socket.socket]) -> None:
    for client in clients:
        client.close()


def verdict(reply: bytes) -> str:
    """Was a search limited?"""
    if reply.startswith(b"HTTP/1.1 404 "):
        return "asked"
    return "limited" if b"Too much is under way" in reply else reply[:60].decode()


def refusals(service: Service, reason: str) -> list[str]:
    return [line for line in service.log if "connections refused" in line and reason in line]


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    async with Scripted({"*": NOT_FOUND}) as found:
        yield found


async def in_turn(port: int, requests: Iterable[bytes]) -> list[str]:
    return [verdict(await asyncio.to_thread(ask, port, request)) for request in requests]


# Connections


def test_whoever_says_nothing_or_half_of_it_is_sent_away(tmp_path: Path) -> None:
    """On every listener, the administrator's too, which kept them for ever."""
    issued = Authority(tmp_path / "ca").issue()
    settings = {
        "mailflow.milter_listen": '"127.0.0.1:0"',
        "limits.proxies": '["127.0.0.1/32"]',
        "hkp.listen": '["127.0.0.1:0", "proxy:127.0.0.1:0", "tls:127.0.0.1:0"]',
        "hkp.tls_certificate": f'"{issued.certificate}"',
        "hkp.tls_key_file": f'"{issued.key}"',
    }
    with Service(tmp_path, settings=settings) as service:
        clients = {
            f"{face} {what}": next(held(service.port(face, number), 1, octets=octets))
            for face, number, what, octets in [
                ("hkp", 0, "silent", b""),
                ("hkp", 0, "half a line", b"GET /hea"),
                ("hkp", 0, "half a head", HEAD[:-2]),
                ("hkp", 1, "no PROXY header", b""),
                ("hkp", 1, "half a PROXY header", b"PROXY TCP4 1.2.3.4"),
                ("hkp", 1, "a PROXY header and silence", b"PROXY UNKNOWN\r\n"),
                ("hkp", 2, "no TLS", b""),
                ("hkp", 2, "half a handshake", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
                ("admin", 0, "silent", b""),
                ("admin", 0, "half a line", b"GET /met"),
                ("admin", 0, "half a head", b"GET /metrics HTTP/1.1\r\nAuthorization: Bearer x\r\n"),
                ("ldap", 0, "silent", b""),
                ("ldap", 0, "half a message", b"\x30\x20\x02\x01"),
                ("milter", 0, "silent", b""),
                ("milter", 0, "half a frame", b"\0\0\0\x0dO\0\0"),
            ]
        }
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends and _open(clients.values()):
            time.sleep(0.2)
        assert not [what for what, client in clients.items() if _open([client])]
        assert ask(service.port(), ONCE).endswith(b"ok\n")
        close(clients.values())


def _open(clients: Iterable[socket.socket]) -> bool:
    """Is one of them open? What the service says before it closes (a notice of LDAP) is taken."""
    for client in clients:
        client.setblocking(False)
        try:
            while client.recv(4096):
                pass
        except BlockingIOError:
            return True
        except ConnectionError:
            pass
    return False


def test_a_flood_of_one_stranger_shuts_nobody_out(tmp_path: Path) -> None:
    settings = {"limits.trusted": "[]", "limits.connections_per_client": "8"}
    with Service(tmp_path, settings=settings) as service:
        for face in ("hkp", "ldap", "admin"):
            flood = list(held(service.port(face), 100, "127.0.0.9"))
            time.sleep(0.3)
            assert len([c for c in flood if _open([c])]) == 8, face
            if face == "hkp":
                assert ask(service.port(), ONCE).endswith(b"ok\n")
            close(flood)
        lines = refusals(service, "too many connections from one address")
        assert len(lines) == 3, "once a minute and listener, not once for each"


def test_even_one_of_ours_takes_no_more_than_half(tmp_path: Path) -> None:
    """An address in 10.0.0.0/8 could take all 1,024 of the LDAP listener."""
    with Service(tmp_path) as service:
        flood = list(held(service.port("ldap"), 600))
        time.sleep(0.5)
        assert 200 < len([c for c in flood if _open([c])]) <= 512  # fewer where file descriptors are
        others = list(held(service.port("ldap"), 10, "127.0.0.2"))
        time.sleep(0.3)
        assert len([c for c in others if _open([c])]) == 10
        close([*flood, *others])


async def test_few_descriptors_keep_a_reserve_for_the_administrator(tmp_path: Path, upstream: Scripted) -> None:
    with Small(tmp_path, upstreams=[upstream.url]) as service:
        flood = [
            c for n in range(2, 8) for face in ("hkp", "ldap") for c in held(service.port(face), 12, f"127.0.0.{n}")
        ]
        await asyncio.sleep(0.5)
        opened = [c for c in flood if _open([c])]
        assert 10 < len(opened) < 40
        began = _processor(service)
        await asyncio.sleep(1)
        assert _processor(service) - began < 0.5, "it spins"
        assert await service.api("/api/v1/upstreams")
        assert await service.api("/api/v1/lookup?q=alice@example.org")  # an upstream can be asked
        assert len(refusals(service, "out of file descriptors")) == 2, "once for each listener"
        assert all('"limit": 64' in line for line in refusals(service, "out of file descriptors"))
        close(flood)
        await asyncio.sleep(0.3)
        assert (await service.get("/healthz"))[0] == 200


async def test_even_a_flood_of_the_administrator_s_listener_leaves_descriptors(
    tmp_path: Path, upstream: Scripted
) -> None:
    with Small(tmp_path, upstreams=[upstream.url]) as service:
        flood = [c for n in range(2, 8) for c in held(service.port("admin"), 20, f"127.0.0.{n}")]
        await asyncio.sleep(0.5)
        began = _processor(service)
        await asyncio.sleep(1)
        assert _processor(service) - began < 0.5, "it spins"
        close(flood)
        await asyncio.sleep(0.7)
        assert (await service.get("/healthz"))[0] == 200
        assert await service.api("/api/v1/lookup?q=alice@example.org")
        assert service.stop() == 0


def _processor(service: Service) -> float:
    """Seconds of processor time so far."""
    assert service.process is not None
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# Who asks


async def test_limits_hold_behind_a_proxy(tmp_path: Path, upstream: Scripted) -> None:
    """Sixty of sixty misses went through at a limit of five: all of them came from the proxy, which is one of ours."""
    settings = {"limits.misses_per_minute": "5", "limits.proxies": '["127.0.0.1/32"]'}
    with Service(tmp_path, upstreams=[upstream.url], settings=settings) as service:
        port = service.port()
        number = iter(range(1, 1000))

        async def ten(*headers: str) -> int:
            requests = [search(next(number), headers[n % len(headers)]) for n in range(10)]
            return (await in_turn(port, requests)).count("asked")

        assert await ten("X-Forwarded-For: 203.0.113.9\r\n") == 5
        assert await ten("X-Forwarded-For: 203.0.113.9\r\n") == 0
        assert await ten("X-Forwarded-For: 198.51.100.9\r\n") == 5  # somebody else has his own
        # what a client writes itself stands further left
        assert await ten(*(f"X-Forwarded-For: 10.0.0.{n}, 192.0.2.9\r\n" for n in range(10))) == 5
        assert await ten("X-Forwarded-For: 10.1.2.3\r\n") == 10  # one of our own gateways
        # without the header, or with garbage in it, or in one that was not named: the proxy itself, which is limited
        assert await ten("", "X-Forwarded-For: x\r\n", "Forwarded: for=10.1.2.3\r\n", "X-Real-IP: 10.1.2.3\r\n") == 5


async def test_nobody_else_may_say_for_whom_he_asks(tmp_path: Path, upstream: Scripted) -> None:
    settings = {
        "limits.misses_per_minute": "5",
        "limits.trusted": '["10.0.0.0/8"]',
        "limits.proxies": '["192.0.2.1/32"]',
    }
    with Service(tmp_path, upstreams=[upstream.url], settings=settings) as service:
        spoofed = [search(n, f"X-Forwarded-For: 10.0.0.{n}\r\n") for n in range(10)]
        assert (await in_turn(service.port(), spoofed)).count("asked") == 5


def v2(client: str, command: int = 0x21, family: int = 0x11, tlv: bytes = b"") -> bytes:
    rest = socket.inet_aton(client) + socket.inet_aton("127.0.0.1") + struct.pack(">HH", 4711, 443) + tlv
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack(">BBH", command, family, len(rest)) + rest


async def test_the_proxy_protocol_names_the_client(tmp_path: Path, upstream: Scripted) -> None:
    settings = {
        "limits.misses_per_minute": "5",
        "limits.connections_per_client": "8",
        "limits.proxies": '["127.0.0.1/32"]',
        "hkp.listen": '["proxy:127.0.0.1:0"]',
    }
    with Service(tmp_path, upstreams=[upstream.url], settings=settings) as service:
        port = service.port()
        one = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n"
        assert (await in_turn(port, [one + search(n) for n in range(10)])).count("asked") == 5
        two = v2("198.51.100.9", tlv=b"\x04\0\x04pads")
        assert (await in_turn(port, [two + search(n) for n in range(10, 20)])).count("asked") == 5
        ours = b"PROXY TCP4 10.1.2.3 127.0.0.1 4711 443\r\n"
        assert (await in_turn(port, [ours + search(n) for n in range(20, 30)])).count("asked") == 10
        # the proxy's own checks are answered, and limited as itself
        for own in (b"PROXY UNKNOWN\r\n", v2("10.1.2.3", command=0x20), v2("10.1.2.3", family=0)):
            assert ask(port, own + ONCE).endswith(b"ok\n")
        assert (await in_turn(port, [b"PROXY UNKNOWN\r\n" + search(n) for n in range(30, 40)])).count("asked") == 5
        # a client's connections are counted, not the proxy's
        flood = list(held(port, 20, octets=one))
        await asyncio.sleep(0.3)
        assert len([c for c in flood if _open([c])]) == 8
        others = [next(held(port, 1, octets=v2(f"192.0.2.{n}"))) for n in range(20)]
        await asyncio.sleep(0.3)
        assert len([c for c in others if _open([c])]) == 20
        close([*flood, *others])
        # no address stands in the log, and the same one is told from others
        lines = [line for line in service.log if '"message": "lookup"' in line]
        assert len({line.split('"client": ')[1].split(",")[0] for line in lines}) == 4
        assert not [line for line in lines if "203.0.113.9" in line]


@pytest.mark.parametrize("listener", ["proxy:127.0.0.1:0", "proxy:tls:127.0.0.1:0"])
async def test_lies_in_the_proxy_protocol_end_the_connection(tmp_path: Path, listener: str) -> None:
    issued = Authority(tmp_path / "ca").issue()
    settings = {
        "limits.proxies": '["127.0.0.1/32"]',
        "hkp.listen": f'["{listener}"]',
        "hkp.tls_certificate": f'"{issued.certificate}"',
        "hkp.tls_key_file": f'"{issued.key}"',
    }
    with Service(tmp_path, settings=settings) as service:
        port = service.port()
        good = b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n"
        for lie in [
            HEAD * 2,
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(32),  # TLS without a header
            good.replace(b"203.0.113.9", b"203.0.113.999"),
            good.replace(b"\r\n", b"\n") + HEAD,
            b"PROXY UNKNOWN " + b"x" * 200,
            b"PROXY TCP4 " + b"1" * 5000,
            v2("203.0.113.9", command=0x31) + HEAD,
            v2("203.0.113.9", family=0x21) + HEAD,
            v2("203.0.113.9", tlv=bytes(5000)) + HEAD,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff" + bytes(100_000),
        ]:
            assert await asyncio.to_thread(ask, port, lie) == b"", lie[:60]
        assert await asyncio.to_thread(ask, port, good + HEAD, "127.0.0.2") == b""  # no proxy of ours
        await asyncio.sleep(0.3)
        assert len(refusals(service, "not in limits.proxies")) == 1
        assert not [line for line in service.log if '"level": "error"' in line]


async def test_a_header_in_pieces_is_one_and_nothing_behind_it_is_lost(tmp_path: Path) -> None:
    settings = {"limits.proxies": '["127.0.0.1/32"]', "hkp.listen": '["proxy:127.0.0.1:0"]'}
    request = ONCE
    with Service(tmp_path, settings=settings) as service:
        for header in (b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 443\r\n", v2("203.0.113.9", tlv=b"\x04\0\x01x")):
            whole = header + request
            for size in (1, 7, 15, 16, len(header) - 1, len(header), len(header) + 1):
                reader, writer = await asyncio.open_connection("127.0.0.1", service.port())
                for at in range(0, len(whole), size):
                    writer.write(whole[at : at + size])
                    await writer.drain()
                    await asyncio.sleep(0.001)
                assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"ok\n"), (header[:8], size)
                writer.close()


async def test_a_unix_socket_behind_a_proxy(tmp_path: Path, upstream: Scripted) -> None:
    place = tmp_path / "hkp.sock"

    def over(request: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(place))
            return say(client, request)

    header = b"X-Forwarded-For: 203.0.113.9\r\n\r\n"
    line = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
    for number, (proxies, prefix, limited) in enumerate(
        [("[]", "", 10), ('["127.0.0.1/32"]', "", 5), ('["127.0.0.1/32"]', "proxy:", 5)]
    ):
        settings = {
            "limits.misses_per_minute": "5",
            "limits.proxies": proxies,
            "hkp.listen": f'["{prefix}unix:{place}"]',
            "cache.database": f'"sqlite:///{tmp_path}/{number}.db"',
        }
        unsaid = b"PROXY UNKNOWN\r\n" if prefix else b""
        with Service(tmp_path, upstreams=[upstream.url], settings=settings) as service:
            for first, attributed in ((100, True), (200, False)):
                requests = [search(first + n) for n in range(10)]
                if attributed:
                    requests = [line + r if prefix else r[:-2] + header for r in requests]
                else:
                    requests = [unsaid + r for r in requests]
                said = [verdict(await asyncio.to_thread(over, request)) for request in requests]
                assert said.count("asked") == limited, (proxies, prefix, attributed)
            assert service.stop() == 0
