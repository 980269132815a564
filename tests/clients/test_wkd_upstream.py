"""gpg finds by HKP what only a domain's Web Key Directory has: nginx, with a directory that GnuPG's tool made."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

import keyserver.upstreams.net
import keyserver.upstreams.wkd.upstream
from keyserver.app import serve
from keyserver.config import load
from keyserver.upstreams.net import NoSuchHost
from support.openpgp import Made, make
from support.ports import free_port
from support.running import Gpg
from support.tls import Authority
from support.web_key_directory import install

ADVANCED, DIRECT = "advanced-firm.com", "direct-firm.com"
NGINX = """
daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 64; }}
http {{
  access_log {at}/access.log; default_type application/octet-stream;
  client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c; uwsgi_temp_path {at}/d;
  scgi_temp_path {at}/e; ssl_certificate {certificate}; ssl_certificate_key {key};
  server {{
    listen 127.0.0.1:{port} ssl; server_name openpgpkey.{advanced};
    location /.well-known/openpgpkey/ {{ alias {at}/wkd/; }}
  }}
  server {{
    listen 127.0.0.1:{port} ssl; server_name {direct};
    location /.well-known/openpgpkey/ {{ alias {at}/wkd/{direct}/; }}
  }}
}}
"""


@contextlib.asynccontextmanager
async def nginx(folder: Path, authority: Authority) -> AsyncIterator[int]:
    """The web server of both domains; its port."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program, "this test needs nginx (Debian: nginx-light)"
    issued = authority.issue((f"openpgpkey.{ADVANCED}", DIRECT))
    port = free_port()
    (folder / "nginx.conf").write_text(
        NGINX.format(
            at=folder, port=port, advanced=ADVANCED, direct=DIRECT, certificate=issued.certificate, key=issued.key
        )
    )
    command = [program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "start.log")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        async with asyncio.timeout(20):
            while True:
                assert process.poll() is None, (folder / "start.log").read_text()
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection("127.0.0.1", port))[1].close()
                    break
                await asyncio.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait(10)


async def test_gpg_finds_what_is_in_web_key_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All parts are real but the name server, which no configuration can replace, and the port."""
    there = {f"openpgpkey.{ADVANCED}.", f"{ADVANCED}.", f"{DIRECT}."}

    def lookup(host: str, port: int) -> Sequence[str]:
        if host in there:
            return ["127.0.0.1"]
        raise NoSuchHost("no such host")

    monkeypatch.setattr(keyserver.upstreams.net, "blocking_lookup", lookup)
    addresses = {f"Paul.Panther@{ADVANCED}": ADVANCED, f"mary+keys@{DIRECT}": DIRECT}
    certificates = {address: make([f"Somebody <{address}>", "Another <ceo@other-firm.com>"]) for address in addresses}
    for address, certificate in certificates.items():
        install(tmp_path / "wkd", certificate.octets, address)
    authority = Authority(tmp_path / "ca")
    file, lines, stop = tmp_path / "keyserver.toml", [], asyncio.Event()  # type: ignore[var-annotated]
    file.write_text(
        f'[hkp]\nlisten = ["127.0.0.1:0"]\n[ldap]\nlisten = []\n[admin]\nlisten = ""\n'
        f'[cache]\ndatabase = "sqlite:///{tmp_path}/keyserver.db"\n'
        f'[[upstream]]\nname = "wkd"\nurl = "wkd:"\nallow_private = true\ntimeout = "10s"\n'
        f'tls_ca_file = "{authority.ca_file}"\n'
    )
    async with contextlib.AsyncExitStack() as stack:
        async with nginx(tmp_path, authority) as port:
            monkeypatch.setattr(keyserver.upstreams.wkd.upstream, "PORT", port)
            running = asyncio.create_task(serve(load(file), stop, ready=lines.append))
            stack.push_async_callback(lambda: running)  # type: ignore[arg-type, return-value]
            stack.callback(stop.set)
            while not lines:
                assert not running.done(), running
                await asyncio.sleep(0.01)
            server = f"hkp://127.0.0.1:{lines[0].rpartition(':')[2]}"
            await located(tmp_path / "g1", server, certificates)
        await located(tmp_path / "g2", server, certificates)  # the web server has stopped
    asked = (tmp_path / "access.log").read_text().splitlines()
    assert len(asked) == 3, asked
    assert sum(" 404 " in line for line in asked) == 1


async def located(home: Path, server: str, certificates: dict[str, Made]) -> None:
    """gpg has them all by address, and hears of an absence where there is none."""
    locate = ("--keyserver", server, "--auto-key-locate", "clear,keyserver", "--locate-external-keys")
    with Gpg(home) as gpg:
        for address, certificate in certificates.items():
            found = await asyncio.to_thread(gpg.run, *locate, address)
            assert certificate.fingerprint in found.stdout
            assert "ceo@other-firm.com" not in found.stdout, "the directory does not speak for it"
        for nobody in (f"nobody@{ADVANCED}", "eve@third-firm.com"):
            refused = await asyncio.to_thread(gpg.run, *locate, nobody, check=False)
            assert "No data" in refused.stderr
