"""What stands in conf/proxy: each file run by its own program, with TLS, before a service by the file beside."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from keyserver.openpgp.armor import dearmor
from support.daemons import running
from support.openpgp import make
from support.ports import free_port
from support.proxied import MISSES, asked, held_apart, settings
from support.running import ROOT, Service
from support.scripted import NOT_FOUND, Scripted
from support.tls import Authority, Issued

CONF = ROOT / "conf" / "proxy"
FILES = {"caddyfile": "Caddyfile", "nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
"""By the language of their blocks in the documentation."""

ALICE = make(["Alice <alice@example.org>"], seed="alice", old=False)


@pytest.fixture
async def upstream() -> AsyncIterator[Scripted]:
    async with Scripted({"*": NOT_FOUND}) as found:
        yield found


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


def behind(folder: Path, upstream: Scripted) -> Service:
    """A service by the file for it, at ports of this machine."""
    listen = {"hkp.listen": '["127.0.0.1:0"]', "ldap.listen": '["proxy:127.0.0.1:0"]'}
    config = (CONF / "keyserver.toml").read_text()
    limits = settings(**listen)
    del limits["limits.proxies"]
    return Service(folder, upstreams=[upstream.url], settings=limits, config=config)


def at(name: str, service: Service) -> str:
    """A file, but for where it listens and whose certificate it has."""
    text = (CONF / name).read_text().replace("127.0.0.1:11371", f"127.0.0.1:{service.port()}")
    return text.replace("127.0.0.1:1389", f"127.0.0.1:{service.port('ldap')}")


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


def caddy(folder: Path, service: Service, issued: Issued, port: int) -> list[str]:
    ports = f"admin off\n\thttp_port {free_port()}\n\thttps_port {port}\n"
    text = replaced(
        at("Caddyfile", service),
        ("admin off\n", ports),
        ("keys.example.com, openpgpkey.example.com {", "localhost {\n\tbind 127.0.0.1"),
        ("# tls /etc/caddy/keys.example.com.pem", f"tls {issued.certificate}"),
        ("/etc/caddy/keys.example.com.key", str(issued.key)),
    )  # fmt: skip
    (folder / "Caddyfile").write_text(text)
    place = [f"HOME={folder}", f"XDG_DATA_HOME={folder}", f"XDG_CONFIG_HOME={folder}"]
    return ["env", *place, "caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


def nginx(folder: Path, service: Service, issued: Issued, port: int) -> list[str]:
    site = replaced(
        at("nginx.conf", service),
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("/etc/nginx/keys.example.com.pem", str(issued.certificate)),
        ("/etc/nginx/keys.example.com.key", str(issued.key)),
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; {temporary}\n{site} }}\n"
    )
    return ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "start.log")]


def haproxy(folder: Path, service: Service, issued: Issued, port: int, ldap: int = 0) -> list[str]:
    both = folder / "both.pem"
    both.write_bytes(issued.certificate.read_bytes() + issued.key.read_bytes())
    text = replaced(
        at("haproxy.cfg", service),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("bind :636", f"bind 127.0.0.1:{ldap or free_port()}"),
        ("/etc/haproxy/keys.example.com.pem", str(both)),
    )
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-f", str(folder / "haproxy.cfg")]


@pytest.mark.parametrize("proxy", [caddy, nginx, haproxy])
async def test_hkps_through_each(
    tmp_path: Path, upstream: Scripted, authority: Authority, proxy: Callable[[Path, Service, Issued, int], list[str]]
) -> None:
    """sq gets its key; each client is limited by itself; who is no proxy names nobody."""
    port = free_port()
    with behind(tmp_path, upstream) as service:
        command = proxy(tmp_path, service, authority.issue(), port)
        with running(command, port, tmp_path / "log"):
            (tmp_path / "alice.asc").write_text(ALICE.armored)
            await asyncio.to_thread(service.cli, "cache", "import", str(tmp_path / "alice.asc"))  # a hit, not limited
            # not by gpg, which verifies nobody who is called localhost
            words = ["sq", "keyserver", "--server", f"hkps://localhost:{port}", "get", ALICE.fingerprint]
            trust = os.environ | {"SSL_CERT_FILE": str(authority.ca_file)}
            got = await asyncio.to_thread(subprocess.run, words, capture_output=True, timeout=30, env=trust)
            assert dearmor(got.stdout) == (ALICE.octets,), got.stderr
            await held_apart(port, ssl.create_default_context(cafile=str(authority.ca_file)))
            forged = "X-Forwarded-For: 127.0.0.3\r\n"
            assert await asyncio.to_thread(asked, service.port(), range(200, 210), "127.0.2.2", forged) == MISSES


async def test_ldaps_through_haproxy(tmp_path: Path, upstream: Scripted, authority: Authority) -> None:
    port = free_port()
    with behind(tmp_path, upstream) as service:
        command = haproxy(tmp_path, service, authority.issue(), free_port(), port)
        with running(command, port, tmp_path / "log"):
            words = ["ldapsearch", "-x", "-LLL", "-H", f"ldaps://127.0.0.1:{port}", "-b", "", "-s", "base", "+"]
            trust = {"LDAPTLS_CACERT": str(authority.ca_file), "PATH": "/usr/bin"}
            done = await asyncio.to_thread(subprocess.run, words, capture_output=True, text=True, timeout=20, env=trust)
            assert done.returncode == 0 and "namingContexts" in done.stdout, done.stderr


@pytest.mark.parametrize("language", FILES)
def test_the_documentation_quotes_the_files(language: str) -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    [block] = re.findall(rf"^```{language}\n(.*?)^```", page, re.S | re.M)
    lines = [line.strip() for line in (CONF / FILES[language]).read_text().splitlines()]
    for part in block.strip().split("\n\n") if language == "haproxy" else [block]:
        wanted = [line.strip() for line in part.strip().splitlines()]
        assert any(lines[n : n + len(wanted)] == wanted for n in range(len(lines))), part
