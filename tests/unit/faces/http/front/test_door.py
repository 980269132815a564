"""The front door's manners: back from aiohttp, back-pressure, time-outs, limits, draining, every kind of socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import resource
import socket
import ssl
import struct
import subprocess
from pathlib import Path

import pytest

from keyserver.config.listener import Listener
from keyserver.faces.http.connection import MAX_HELD, SPARE
from keyserver.faces.http.server import HttpLimits, HttpServer
from keyserver.listen.trust import Trust

GET = b"GET /pks/lookup?search=alice HTTP/1.1\r\nHost: k\r\n\r\n"
OTHER = b"GET /pks/lookup?search=bob HTTP/1.1\r\nHost: k\r\n\r\n"
COLD = b"GET /echo?1 HTTP/1.1\r\nHost: k\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 2\r\n\r\nhi"


def bodies(said: bytes) -> list[bytes]:
    """The bodies of replies whose bodies are one line each."""
    return [part.partition(b"\r\n\r\n")[2] for part in said.split(b"HTTP/1.")[1:]]


async def test_a_connection_comes_back_from_a_miss(stage, tools) -> None:
    front, wire = stage.wire()
    for n in range(5):
        front.data_received(GET)
        await tools.settle()
        assert bodies(wire.read()) == [b"alice 1\n"]
        assert stage.world.lookups == 1
        front.data_received(
            COLD if n % 2 else b"GET /pks/lookup?search=%d HTTP/1.1\r\nHost: k\r\nCookie: x\r\n\r\n" % n
        )
        await tools.settle()
        assert len(bodies(wire.read())) == 1
        stage.world.lookups = 1
    assert stage.server.counts().foreign == 0
    assert stage.hot.counts().hits == 4
    assert len(stage.runner.server.connections) == 1  # aiohttp saw one connection, for all the misses


async def test_a_foreign_request_keeps_its_connection(stage, tools) -> None:
    front, wire = stage.wire()
    front.data_received(GET)
    await tools.settle()
    front.data_received(POST + GET)
    await tools.settle()
    front.data_received(GET)
    await tools.settle()
    assert bodies(wire.read()) == [b"alice 1\n", b"POST /echo hi\n", b"alice 1\n", b"alice 1\n"]
    assert stage.hot.counts().hits == 0
    assert stage.server.counts().foreign == 1


async def test_replies_keep_their_order(stage, tools) -> None:
    await stage.feed(GET)
    stage.world.gate = asyncio.Event()
    front, wire = stage.wire()
    front.data_received(GET + OTHER + GET + COLD + GET)
    front.data_received(OTHER)
    await tools.settle()
    assert bodies(wire.read()) == [b"alice 1\n"]
    stage.world.gate.set()
    await tools.settle()
    assert bodies(wire.read()) == [b"bob 1\n", b"alice 1\n", b"GET /echo?1 \n", b"alice 1\n", b"bob 1\n"]


async def test_a_delete_is_seen_by_the_next_request_of_a_pipelining_connection(stage, tools) -> None:
    front, wire = stage.wire()
    await stage.feed(GET)
    for _ in range(3):
        front.data_received(GET + GET)
        assert bodies(wire.read()) == [b"alice 1\n"] * 2
    stage.world.change("alice", None)
    front.data_received(GET + GET)
    await tools.settle()
    assert bodies(wire.read()) == [b"nothing\n"] * 2


async def test_gpgs_last_segment_may_come_late(stage, tools) -> None:
    request = (
        b"GET /pks/lookup?search=alice HTTP/1.0\r\nHost: k:11371\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\r\n"
    )
    await stage.feed(request)
    hits = stage.hot.counts().hits
    front, wire = stage.wire()
    front.data_received(request[:-45])
    await tools.settle()
    assert not wire.written
    front.data_received(request[-45:])
    assert wire.read().startswith(b"HTTP/1.0 200 OK\r\n")
    assert wire.closed
    assert stage.hot.counts().hits == hits + 1


# back-pressure


async def test_a_client_that_does_not_read_is_not_answered_further(stage, tools) -> None:
    stage.world.padding = 20_000
    await stage.feed(GET)
    front, wire = stage.wire(high=64 * 1024)
    front.data_received(GET * 100)
    assert 64 * 1024 < len(wire.written) < 64 * 1024 + 21_000
    assert not wire.reading
    total = 0
    for _ in range(40):
        total += len(bodies(wire.read()))
    assert total == 100
    assert wire.reading
    front.data_received(COLD + GET)
    await tools.settle()
    assert len(bodies(wire.read())) == 2


async def test_unread_pipelined_requests_are_bounded(stage, tools) -> None:
    stage.world.gate = asyncio.Event()
    front, wire = stage.wire()
    front.data_received(OTHER)
    front.data_received(GET * 400)  # 20 KiB wait: no more is read
    assert not wire.reading and not wire.aborted
    front.data_received(GET * (MAX_HELD // len(GET)))
    assert wire.aborted
    assert stage.server.counts().dropped == 1
    stage.world.gate.set()
    await tools.settle()
    assert not wire.written


async def test_reading_goes_on_after_a_pause(stage, tools) -> None:
    stage.world.gate = asyncio.Event()
    front, wire = stage.wire()
    front.data_received(OTHER + GET * 400)
    assert not wire.reading
    stage.world.gate.set()
    await tools.settle(5000)
    assert len(bodies(wire.read())) == 401
    assert wire.reading


async def test_big_replies_of_aiohttp_wait_for_the_client(stage, tools) -> None:
    stage.world.padding = 1_000_000
    front, wire = stage.wire(high=64 * 1024)
    front.data_received(GET.replace(b"alice", b"alice&no-offer"))
    await tools.settle()
    front.data_received(GET)
    await tools.settle()
    said = wire.read()
    assert b"#\n" not in said and not wire.closed
    await tools.settle()
    assert len(bodies(said + wire.read())) == 2


async def test_a_large_upload_passes(stage) -> None:
    body = b"x" * 3_000_000
    await stage.feed(GET)
    reader, writer = await asyncio.open_connection(*stage.door_at)
    writer.write(GET + b"POST /fail HTTP/1.1\r\nHost: k\r\nContent-Length: %d\r\n\r\n" % len(body) + body + COLD)
    writer.write(b"GET /bye HTTP/1.1\r\nHost: k\r\n\r\n")
    said = await asyncio.wait_for(reader.read(), 10)
    assert said.count(b"HTTP/1.1 ") == 4
    assert said.endswith(b"bye\n")
    writer.close()


# hanging up


async def test_half_closed_clients_get_their_answer(stage) -> None:
    for request in (GET, COLD, OTHER + GET + COLD):
        reader, writer = await asyncio.open_connection(*stage.door_at)
        writer.write(request)
        writer.write_eof()
        said = await asyncio.wait_for(reader.read(), 5)
        assert len(bodies(said)) == request.count(b"HTTP/1.1")
        writer.close()


async def test_half_closed_with_half_a_head(stage) -> None:
    reader, writer = await asyncio.open_connection(*stage.door_at)
    writer.write(GET[:-3])
    writer.write_eof()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_reset_while_aiohttp_works(stage, tools) -> None:
    stage.world.gate = asyncio.Event()
    for request in (GET, POST + GET, GET[:-1]):
        _, writer = await asyncio.open_connection(*stage.door_at)
        writer.write(request)
        await writer.drain()
        await asyncio.sleep(0.02)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    await asyncio.sleep(0.05)
    assert stage.server.counts().open == 0
    stage.world.gate.set()
    await tools.settle()
    assert (await stage.feed(GET))[0].startswith(b"HTTP/1.1 200")


async def test_an_answer_is_kept_though_its_client_left(stage, tools) -> None:
    stage.world.gate = asyncio.Event()
    front, wire = stage.wire()
    front.data_received(GET)
    await tools.settle()
    wire.close()
    stage.world.gate.set()
    await tools.settle()
    assert stage.world.lookups == 1
    assert not stage.runner.server.connections


# time


def beat(server: HttpServer, seconds: int) -> None:
    """Let time pass at the door."""
    for _ in range(seconds):
        server.second()
        for front in server.connections:
            front.sweep(server.tick)


async def test_idle_connections_end(stage, tools) -> None:
    front, wire = stage.wire()
    front.data_received(GET)
    await tools.settle()
    beat(stage.server, 59)
    assert not wire.closed
    front.data_received(GET)
    beat(stage.server, 59)
    assert not wire.closed
    beat(stage.server, 1)
    assert wire.closed
    assert stage.server.counts().timeouts == 1


async def test_slowloris_ends_though_it_sends(stage) -> None:
    front, wire = stage.wire()
    for n in range(10):
        assert not wire.closed
        front.data_received(b"GET /pks/lookup?search=alice HTTP/1.1\r\n" if not n else b"X-%d: y\r\n" % n)
        beat(stage.server, 1)
    assert wire.closed
    assert not wire.written


async def test_slow_bodies_end_though_they_are_sent(stage, tools) -> None:
    front, wire = stage.wire()
    front.data_received(POST[:-2])
    for _ in range(60):
        assert not wire.closed
        front.data_received(b"")
        beat(stage.server, 1)
        await tools.settle(2)
    assert wire.closed


async def test_waiting_for_a_lookup_is_not_idle(stage, tools) -> None:
    stage.world.gate = asyncio.Event()
    front, wire = stage.wire()
    front.data_received(GET)
    await tools.settle()
    beat(stage.server, 500)
    assert not wire.closed
    stage.world.gate.set()
    await tools.settle()
    assert bodies(wire.read()) == [b"alice 1\n"]


async def test_stalled_readers_end_and_slow_ones_do_not(stage) -> None:
    stage.world.padding = 100_000
    await stage.feed(GET)
    for reads, closed in ((False, True), (True, False)):
        front, wire = stage.wire(high=64 * 1024)
        front.data_received(GET)
        for _ in range(40):
            beat(stage.server, 10)
            wire.unread -= 1000 if reads else 0
        assert wire.aborted == closed
        wire.abort()
        await asyncio.sleep(0)


async def test_idle_exchanges_are_given_back(stage, tools) -> None:
    front, wire = stage.wire()
    front.data_received(COLD)
    await tools.settle()
    assert len(stage.runner.server.connections) == 1
    beat(stage.server, SPARE)
    await tools.settle()
    assert not stage.runner.server.connections
    assert not wire.closed
    front.data_received(COLD)
    await tools.settle()
    assert len(bodies(wire.read())) == 2


# limits, draining


async def test_connections_of_one_client_are_limited(world, staging) -> None:
    async with staging(world, HttpLimits(3)) as stage:
        held = [await asyncio.open_connection(*stage.door_at) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert await stage.talk(GET) == (b"", True)
        assert stage.server.counts().refused == 1
        for _, writer in held:
            writer.close()
        await asyncio.sleep(0.02)
        assert (await stage.talk(GET, quiet=0.1))[0]
    async with staging(world, HttpLimits(1, Trust([ipaddress.ip_network("127.0.0.0/8")]))) as stage:
        held = [await asyncio.open_connection(*stage.door_at) for _ in range(5)]
        await asyncio.sleep(0.02)
        assert stage.server.counts().refused == 0
        for _, writer in held:
            writer.close()


async def test_draining_ends_idle_connections_and_lets_answers_finish(world, staging) -> None:
    async with staging(world) as stage:
        idle = await asyncio.open_connection(*stage.door_at)
        half = await asyncio.open_connection(*stage.door_at)
        half[1].write(GET[:-1])
        busy = await asyncio.open_connection(*stage.door_at)
        sticky = await asyncio.open_connection(*stage.door_at)
        sticky[1].write(POST)
        assert b"hi\n" in await sticky[0].read(1000)
        world.gate = asyncio.Event()
        busy[1].write(GET + GET)
        sticky[1].write(OTHER)
        while world.lookups < 2:
            await asyncio.sleep(0.01)
        closing = asyncio.create_task(stage.server.close(5))
        assert await asyncio.wait_for(idle[0].read(), 1) == b""
        assert await asyncio.wait_for(half[0].read(), 1) == b""
        with pytest.raises(OSError):
            await asyncio.open_connection(*stage.door_at)
        assert not closing.done()
        world.gate.set()
        assert bodies(await asyncio.wait_for(busy[0].read(), 1))[0] == b"alice 1\n"
        assert bodies(await asyncio.wait_for(sticky[0].read(), 1)) == [b"bob 1\n"]
        await asyncio.wait_for(closing, 1)
        for _, writer in (idle, half, busy, sticky):
            writer.close()


async def test_draining_ends_in_time(world, staging) -> None:
    world.gate = asyncio.Event()
    async with staging(world) as stage:
        busy = await asyncio.open_connection(*stage.door_at)
        busy[1].write(GET)
        while not world.lookups:
            await asyncio.sleep(0.01)
        await asyncio.wait_for(stage.server.close(0.1), 1)
        with contextlib.suppress(ConnectionError):
            assert await busy[0].read() == b""
        busy[1].close()
        world.gate.set()


async def test_hits_are_told(world, staging) -> None:
    told: list[int] = []
    async with staging(world, tell=told.append) as stage:
        await stage.feed(GET)
        await stage.feed(GET + GET.replace(b"GET", b"HEAD"))
        stage.server.second()
        assert sum(told) == 2


# sockets


async def test_unix_and_ipv6_listeners(stage, tmp_path) -> None:
    path = tmp_path / "hkp.sock"
    await stage.server.open(Listener(unix=path))
    assert (await stage.server.open(Listener("::1", 0)))[0][0] == "::1"
    port = (await stage.server.open(Listener("::1", 0)))[0][1]
    for opening in (asyncio.open_unix_connection(str(path)), asyncio.open_connection("::1", port)):
        reader, writer = await opening
        for _ in range(3):
            writer.write(GET + COLD)
            said = b""
            while len(bodies(said)) < 2 or not said.endswith(b"\n"):
                said += await asyncio.wait_for(reader.read(1000), 2)
        writer.close()
    assert stage.hot.counts().hits == 5


async def test_tls_listener(stage, tmp_path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=k.test", "-addext", "subjectAltName=DNS:k.test", "-keyout", "key", "-out", "crt"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    with pytest.raises(ValueError, match="certificate"):
        await stage.server.open(Listener("127.0.0.1", 0, tls=True))
    stage.server.tls = server
    port = (await stage.server.open(Listener("127.0.0.1", 0, tls=True)))[0][1]
    client = ssl.create_default_context(cafile=tmp_path / "crt")
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=client, server_hostname="k.test", limit=1 << 20
    )
    stage.world.padding = 100_000
    for _ in range(3):
        writer.write(GET + COLD)
        await asyncio.wait_for(reader.readuntil(b"GET /echo?1 \n"), 5)
    writer.write(GET.replace(b"1.1", b"1.0"))
    assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"#")
    writer.close()
    assert stage.hot.counts().hits == 2


def resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


async def test_ten_thousand_connections(world, staging) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 21_000), max(hard, 21_000)))
    room = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(10_000, (room - 500) // 2)
    print(f"{count} connections (open files: {room})")
    assert count >= 400
    loop = asyncio.get_running_loop()
    async with staging(world, HttpLimits(20_000)) as stage:
        await stage.feed(GET)
        gc.collect()
        before = resident()
        clients = []
        try:
            for n in range(count):
                client = socket.socket()
                client.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    # another address for every thousand: one has not enough ports
                    client.bind((f"127.0.0.{2 + n // 1000}", 0))
                    await loop.sock_connect(client, stage.door_at)
                clients.append(client)
            while stage.server.counts().open < count:
                await asyncio.sleep(0.01)
            for client in clients:
                await loop.sock_sendall(client, GET)
            await asyncio.sleep(0)
            for client in clients:
                assert (await asyncio.wait_for(loop.sock_recv(client, 1000), 5)).endswith(b"alice 1\n")
            grown = resident() - before
            print(f"{grown / count:.0f} octets for each")
            assert grown * 10_000 / count < 200 << 20
        finally:
            for client in clients:
                client.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_foreign_connection_stays_foreign_after_back_pressure(stage, tools) -> None:
    stage.world.padding = 80_000
    await stage.feed(GET)
    front, wire = stage.wire(high=64 * 1024)
    front.data_received(GET.replace(b"Host: k", b"Host: k\r\nContent-Length: 0"))
    await tools.settle()
    assert wire.full
    wire.read()
    await tools.settle()
    front.data_received(GET)
    await tools.settle()
    assert stage.hot.counts().hits == 0
    assert wire.read().endswith(b"#")
