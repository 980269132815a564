"""Real proxies in front: nginx by header, haproxy by header and by both versions of the PROXY protocol, with TLS."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.daemons import running
from support.ports import free_port
from support.proxied import held_apart, settings
from support.running import ROOT, Service
from support.scripted import NOT_FOUND, Scripted
from support.tls import Authority, Issued

pytestmark = pytest.mark.usefixtures("both_shapes")


PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
[LOCATION] = re.findall(r"^```nginx\n(.*?)^```", PAGE, re.S | re.M)
[BACKENDS] = re.findall(r"^```haproxy\n(.*?)^```", PAGE, re.S | re.M)

NGINX = """
daemon off; worker_processes 1; master_process off; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c; uwsgi_temp_path {at}/d;
  scgi_temp_path {at}/e;
  server {{
    listen 127.0.0.1:{port};
    {location}
  }}
}}
"""

HAPROXY = """
defaults
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend in
  mode {mode}
  bind 127.0.0.1:{port}
  default_backend keyserver
backend keyserver
  mode {mode}
  {option}
  server one {to} {server}
"""


def nginx(folder: Path, to: str) -> list[str]:
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "start.log")]


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    async with Scripted({"*": NOT_FOUND}) as found:
        yield found


@pytest.mark.parametrize("unix", [False, True])
async def test_nginx(tmp_path: Path, upstream: Scripted, unix: bool) -> None:
    place = tmp_path / "hkp.sock"
    listen = {"hkp.listen": f'["unix:{place}"]'} if unix else {}
    with Service(tmp_path, upstreams=[upstream.url], settings=settings(**listen)) as service:
        port = free_port()
        to = f"unix:{place}" if unix else f"127.0.0.1:{service.port()}"
        (tmp_path / "nginx.conf").write_text(
            NGINX.format(at=tmp_path, port=port, location=LOCATION.replace("127.0.0.1:11371", to))
        )
        with running(nginx(tmp_path, to), port, tmp_path / "log"):
            await held_apart(port)


def test_haproxy_takes_what_is_documented(tmp_path: Path) -> None:
    head = "defaults\n  timeout connect 5s\n  timeout client 10s\n  timeout server 10s\n"
    faces = (
        "frontend web\n  mode http\n  bind 127.0.0.1:1\n  default_backend keyserver\nfrontend directory\n  mode tcp\n"
    )
    (tmp_path / "haproxy.cfg").write_text(
        f"{head}{faces}  bind 127.0.0.1:2\n  default_backend keyserver_ldap\n{BACKENDS}"
    )
    done = subprocess.run(["haproxy", "-c", "-f", str(tmp_path / "haproxy.cfg")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_hits_through_a_proxy_come_from_memory(tmp_path: Path) -> None:
    """Whatever client each request names."""
    from support.openpgp import make
    from support.scripted import key

    alice = make(["Alice <alice@example.org>"])
    async with Scripted({"alice@example.org": key(alice.octets)}) as upstream:
        with Service(tmp_path, upstreams=[upstream.url], settings=settings()) as service:
            for _ in range(2):  # a miss, then a hit that memory keeps
                await service.lookup("alice@example.org")
            before = await _hits(service)
            for n in range(20):
                reply = await service.lookup("alice@example.org", headers={"X-Forwarded-For": f"203.0.113.{n}"})
                assert reply[1]["x-cache"] == "HIT"
            await asyncio.sleep(1.1)
            assert await _hits(service) - before >= 20


async def _hits(service: Service) -> float:
    headers = {"Authorization": f"Bearer {service.token}"}
    _, _, body = await service.get("/metrics", headers=headers, face="admin")
    lines = [line for line in body.decode().splitlines() if line.startswith("keyserver_hot_answers_total")]
    return sum(float(line.split()[-1]) for line in lines)


def haproxy(folder: Path, **how: str | int) -> list[str]:
    (folder / "haproxy.cfg").write_text(HAPROXY.format(**{"option": "", "server": "", **how}))
    return ["haproxy", "-f", str(folder / "haproxy.cfg")]


@pytest.mark.parametrize(
    ("header", "option"),
    [("x-forwarded-for", "option forwardfor"), ("forwarded", 'http-request set-header Forwarded "for=%[src]"')],
)
async def test_haproxy_by_header(tmp_path: Path, upstream: Scripted, header: str, option: str) -> None:
    with Service(tmp_path, upstreams=[upstream.url], settings=settings(**{"limits.proxy_header": header})) as service:
        port = free_port()
        command = haproxy(tmp_path, mode="http", port=port, option=option, to=f"127.0.0.1:{service.port()}")
        with running(command, port, tmp_path / "log"):
            await held_apart(port)


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
@pytest.mark.parametrize("tls", [False, True])
async def test_haproxy_by_the_proxy_protocol(tmp_path: Path, upstream: Scripted, version: str, tls: bool) -> None:
    """haproxy does not see into TLS; its own checks (LOCAL in version 2) are answered."""
    authority = Authority(tmp_path / "ca")
    issued = authority.issue()
    listen = {
        "hkp.listen": f'["proxy:{"tls:" if tls else ""}127.0.0.1:0"]',
        "hkp.tls_certificate": f'"{issued.certificate}"',
        "hkp.tls_key_file": f'"{issued.key}"',
    }
    with Service(tmp_path, upstreams=[upstream.url], settings=settings(**listen)) as service:
        port = free_port()
        command = haproxy(
            tmp_path, mode="tcp", port=port, to=f"127.0.0.1:{service.port()}", server=f"{version} check inter 200"
        )
        client = ssl.create_default_context(cafile=str(authority.ca_file)) if tls else None
        with running(command, port, tmp_path / "log"):
            await held_apart(port, client)


async def test_haproxy_before_ldap_and_the_administrator(tmp_path: Path, upstream: Scripted) -> None:
    listen = {"ldap.listen": '["proxy:127.0.0.1:0"]', "admin.listen": '"proxy:127.0.0.1:0"'}
    with Service(tmp_path, upstreams=[upstream.url], settings=settings(**listen)) as service:
        ports = {face: free_port() for face in ("ldap", "admin")}
        for face, port in ports.items():
            folder = tmp_path / face
            folder.mkdir()
            command = haproxy(
                folder, mode="tcp", port=port, to=f"127.0.0.1:{service.port(face)}", server="send-proxy-v2"
            )
            with running(command, port, folder / "log"):
                if face == "ldap":
                    done = await asyncio.to_thread(
                        subprocess.run,
                        ["ldapsearch", "-x", "-LLL", "-H", f"ldap://127.0.0.1:{port}", "-b", "", "-s", "base"],
                        capture_output=True, text=True, timeout=20,
                    )  # fmt: skip
                    assert done.returncode == 0, done.stderr
                else:
                    said = await asyncio.to_thread(_metrics, port, service.token)
                    assert b"keyserver_lookups" in said


def _metrics(port: int, token: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        head = f"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode())
        said = b""
        while piece := client.recv(65536):
            said += piece
        return said


# Certificates that are renewed


def put(issued: Issued, folder: Path) -> None:
    """As a tool that renews certificates does it: new files under the old names."""
    for new, name in ((issued.certificate, "chain.pem"), (issued.key, "key.pem")):
        (folder / "new").write_bytes(new.read_bytes())
        (folder / "new").replace(folder / name)


async def test_sighup_renews_certificates_and_loses_no_connection(tmp_path: Path) -> None:
    """It killed the service without a word."""
    authority = Authority(tmp_path / "ca")
    first, second = authority.issue(("localhost", "one.test")), authority.issue(("localhost", "two.test"))
    put(first, tmp_path)
    pair = {"tls_certificate": f'"{tmp_path}/chain.pem"', "tls_key_file": f'"{tmp_path}/key.pem"'}
    with Service(
        tmp_path,
        settings={
            "hkp.listen": '["127.0.0.1:0", "tls:127.0.0.1:0"]',
            "ldap.listen": '["127.0.0.1:0", "tls:127.0.0.1:0"]',
            "admin.listen": '"tls:127.0.0.1:0"',
            **{f"{face}.{name}": value for face in ("hkp", "ldap", "admin") for name, value in pair.items()},
        },
    ) as service:
        assert service.process is not None
        client = ssl.create_default_context(cafile=str(authority.ca_file))
        request = b"GET /healthz HTTP/1.1\r\nHost: k\r\n\r\n"

        async def seen() -> set[str]:
            """The names that a new connection sees, at every TLS listener and by StartTLS."""
            names = set()
            for face, number in (("hkp", 1), ("ldap", 1), ("admin", 0)):
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", service.port(face, number), ssl=client, server_hostname="localhost"
                )
                names.add(writer.get_extra_info("peercert")["subjectAltName"][1][1])
                writer.close()
            done = await asyncio.to_thread(
                subprocess.run,
                ["openssl", "s_client", "-starttls", "ldap", "-connect", f"127.0.0.1:{service.port('ldap')}", "-verify",
                 "1", "-CAfile", str(authority.ca_file)],
                input="", capture_output=True, text=True, timeout=20,
            )  # fmt: skip
            shown = await asyncio.to_thread(
                subprocess.run, ["openssl", "x509", "-noout", "-ext", "subjectAltName"],
                input=done.stdout, capture_output=True, text=True, timeout=20,
            )  # fmt: skip
            names |= {name for name in ("one.test", "two.test") if name in shown.stdout}
            return names

        async def hang_up() -> None:
            assert service.process is not None
            lines = len(service.log)
            service.process.send_signal(signal.SIGHUP)
            while not any(word in line for line in service.log[lines:] for word in ("was read again", "mistake")):
                assert service.process.poll() is None
                await asyncio.sleep(0.02)

        kept = [
            await asyncio.open_connection("127.0.0.1", service.port("hkp", 0)),
            await asyncio.open_connection("127.0.0.1", service.port("hkp", 1), ssl=client, server_hostname="localhost"),
        ]

        async def still_there() -> None:
            for reader, writer in kept:
                writer.write(request)
                assert (await asyncio.wait_for(reader.readuntil(b"ok\n"), 5)).startswith(b"HTTP/1.1 200")

        await still_there()
        assert await seen() == {"one.test"}
        put(second, tmp_path)
        await hang_up()
        await still_there()
        assert await seen() == {"two.test"}
        (tmp_path / "chain.pem").write_text("half a certific")
        await hang_up()
        await still_there()
        assert await seen() == {"two.test"}
        assert any("nothing was changed" in line for line in service.log)
        assert sum("OpenSSL says" in line and "key.pem" in line for line in service.log) == 3
        for _, writer in kept:
            writer.close()
        assert service.stop() == 0
