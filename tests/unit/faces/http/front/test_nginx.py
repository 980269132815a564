"""A real proxy in front, on connections that it keeps: replies stay with their requests, whatever shape those have."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

H = b"Host: k\r\n"
GET = b"GET /pks/lookup?search=alice HTTP/1.1\r\n" + H + b"\r\n"
NEG = b"GET /pks/lookup?search=nobody HTTP/1.1\r\n" + H + b"\r\n"
COLD = b"GET /echo?cold HTTP/1.1\r\n" + H + b"Cookie: a=b\r\n\r\n"
LAST = b"GET /echo?last HTTP/1.1\r\n" + H + b"Connection: close\r\n\r\n"
INNER = b"GET /echo?smuggled HTTP/1.1\r\n" + H + b"\r\n"

SHAPES = {
    "plain": GET,
    "head": GET.replace(b"GET", b"HEAD"),
    "mixed": GET + COLD + NEG + GET,
    "post with a request as body": b"POST /echo HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(INNER) + INNER,
    "get with a request as body": b"GET /echo HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(INNER) + INNER,
    "hot get with a request as body": GET[:-2] + b"Content-Length: %d\r\n\r\n" % len(INNER) + INNER,
    "chunked": b"POST /echo HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked with a request": b"POST /echo HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(INNER)
    + INNER + b"\r\n0\r\n\r\n",
    "length and chunked": b"POST /echo HTTP/1.1\r\n" + H + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n" + INNER,
    "two lengths": b"POST /echo HTTP/1.1\r\n" + H + b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n" + INNER,
    "odd coding": b"POST /echo HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n" + INNER,
    "space before colon": b"POST /echo HTTP/1.1\r\n" + H + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INNER,
    "obs-fold": GET[:-2] + b"X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n",
    "bare lf": GET.replace(b"\r\n", b"\n"),
    "bare cr": GET[:-2] + b"X-A: b\rTransfer-Encoding: chunked\r\n\r\n",
    "two hosts": GET[:-2] + b"Host: other\r\n\r\n",
    "absolute form": b"GET http://k/pks/lookup?search=alice HTTP/1.1\r\n" + H + b"\r\n",
    "http/1.0": GET.replace(b"1.1", b"1.0"),
    "upgrade": GET[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "crlf in target": b"GET /echo?%0d%0aContent-Length:%205 HTTP/1.1\r\n" + H + b"\r\n",
}  # fmt: skip

CONFIGURATION = """
daemon off; worker_processes 1; master_process off; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; default_type text/plain;
  client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c; uwsgi_temp_path {at}/d;
  scgi_temp_path {at}/e;
  upstream front {{ server 127.0.0.1:{front}; keepalive 1; }}
  upstream plain {{ server 127.0.0.1:{plain}; keepalive 1; }}
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host k; proxy_next_upstream off;
  proxy_pass_header Server; proxy_pass_header Date; proxy_request_buffering off;
  server {{ listen unix:{at}/front; location / {{ proxy_pass http://front; }} }}
  server {{ listen unix:{at}/plain; location / {{ proxy_pass http://plain; }} }}
}}
"""


@pytest.fixture
async def proxy(stage, tmp_path: Path) -> AsyncIterator[Path]:
    """A directory with nginx's two sockets: `front` leads to the door, `plain` to aiohttp."""
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert nginx, "this test needs nginx (Debian: nginx-light)"
    config = tmp_path / "conf"
    config.write_text(CONFIGURATION.format(at=tmp_path, front=stage.door_at[1], plain=stage.plain_at[1]))
    arguments = [nginx, "-c", str(config), "-e", str(tmp_path / "start.log")]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            if (tmp_path / "plain").exists():
                break
            assert process.poll() is None, (tmp_path / "start.log").read_text()
            await asyncio.sleep(0.01)
        yield tmp_path
    finally:
        process.terminate()
        process.wait(10)


async def through(path: Path, data: bytes) -> bytes:
    """What nginx says to `data` until it closes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


async def test_nginx_gets_the_same_from_front_and_aiohttp(stage, proxy, tools) -> None:
    """After every shape the same pooled connection serves somebody else, who must get his own answer."""
    for name, data in SHAPES.items():
        said = {}
        for side in ("front", "plain"):
            shaped = await through(proxy / side, data + LAST)
            victim = await through(proxy / side, GET + NEG + LAST)
            assert b"smuggled" not in victim, name
            said[side] = tools.canonical(shaped), tools.canonical(victim)
        assert said["front"] == said["plain"], name
        assert said["front"][1].count(b"alice 1\n") == 1, name
        assert said["front"][1].endswith(b"GET /echo?last \n"), name


async def test_pooled_connections_come_back_from_misses(stage, proxy) -> None:
    await through(proxy / "front", GET + LAST)
    before = stage.hot.counts().hits
    opened = stage.server.counts().opened
    for _ in range(20):
        await through(proxy / "front", COLD + GET + NEG + LAST)
    counts = stage.hot.counts()
    assert counts.hits - before == 20
    assert counts.negative_hits >= 19
    assert stage.server.counts().opened == opened
    assert stage.server.counts().foreign == 0
