"""A certificate is renewed under an open listener: by SIGHUP's hook, by itself, and never by a broken file."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from pathlib import Path

import pytest

from keyserver.listen.tls import LOOK, TlsCertificate
from support.tls import Authority


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def put(authority: Authority, folder: Path) -> tuple[Path, Path, bytes]:
    """A new certificate under the old names, as its DER."""
    issued = authority.issue()
    chain, key = folder / "chain.pem", folder / "key.pem"
    for new, place in ((issued.certificate, chain), (issued.key, key)):
        beside = folder / "new"
        beside.write_bytes(new.read_bytes())
        os.replace(beside, place)
    return chain, key, ssl.PEM_cert_to_DER_cert(chain.read_text().split("-----END")[0] + "-----END CERTIFICATE-----\n")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "ca").mkdir()
    return Authority(tmp_path / "ca")


async def shown(context: ssl.SSLContext, name: str | None = "localhost", times: int = 1) -> bytes:
    """The certificate that a new connection sees."""
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name or "127.0.0.1")
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    server.close()
    return bytes(der)


async def test_reload_and_broken_files(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chain, key, first = put(authority, tmp_path)
    certificate = TlsCertificate(chain, key, Clock())
    assert await shown(certificate.context) == first
    _, _, second = put(authority, tmp_path)
    assert await shown(certificate.context) == first  # not looked at yet
    assert certificate.reload()
    assert await shown(certificate.context) == second
    assert await shown(certificate.context, name=None) == second  # a client that names no server
    for broken in (
        b"",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        authority.ca_file.read_bytes(),
    ):
        chain.write_bytes(broken)  # the last one does not belong to the key
        caplog.clear()
        assert not certificate.reload()
        assert [r.levelname for r in caplog.records if r.levelno > logging.INFO] == ["ERROR"]
        assert await shown(certificate.context) == second
    chain.unlink()
    assert not certificate.reload()
    assert await shown(certificate.context) == second


async def test_a_renewal_is_noticed_within_a_minute(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    chain, key, first = put(authority, tmp_path)
    certificate = TlsCertificate(chain, key, clock)
    _, _, second = put(authority, tmp_path)
    clock.now += LOOK - 1
    assert await shown(certificate.context) == first
    clock.now += 1
    assert await shown(certificate.context) == second
    chain.write_text("half a fi")
    for _ in range(3):  # said once, not at every look
        clock.now += LOOK
        assert await shown(certificate.context) == second
    assert [r.levelname for r in caplog.records if r.levelno > logging.INFO] == ["ERROR"]
    _, _, third = put(authority, tmp_path)
    clock.now += LOOK
    assert await shown(certificate.context) == third


def test_files_that_cannot_be_used_do_not_start(authority: Authority, tmp_path: Path) -> None:
    chain, key, _ = put(authority, tmp_path)
    with pytest.raises(OSError):
        TlsCertificate(tmp_path / "none", key, Clock())
    with pytest.raises(ssl.SSLError):
        TlsCertificate(chain, chain, Clock())


def test_when_it_expires(authority: Authority, tmp_path: Path) -> None:
    """By what is served: files that cannot be used change nothing."""
    soon, later = authority.issue(ends=3), authority.issue(ends=300)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(soon.certificate.read_bytes())
    key.write_bytes(soon.key.read_bytes())
    certificate = TlsCertificate(chain, key, Clock())
    assert certificate.expires == pytest.approx(time.time() + 3 * 86400, abs=600)
    chain.write_bytes(later.certificate.read_bytes())
    certificate.look()  # the key is another one's
    assert certificate.expires == pytest.approx(time.time() + 3 * 86400, abs=600)
    key.write_bytes(later.key.read_bytes())
    certificate.look()
    assert certificate.expires == pytest.approx(time.time() + 300 * 86400, abs=600)
