"""What stands in conf/cluster: each file read by who reads it, and its topology started without containers."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from support.daemons import program, running
from support.openpgp import make
from support.ports import free_port
from support.postgres import Cluster
from support.running import ROOT, Service, read_reply
from support.scripted import Scripted, key

CONF = ROOT / "conf" / "cluster"
MADE = [make([f"c{n} <c{n}@example.org>"], seed=f"c{n}") for n in range(12)]
EMPTY = b"a"  # of a password file that nobody asks for
AHEAD = "COPY public.tidied (single, xid) FROM stdin;\nt\t4000000000"


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """One whose role has the time-outs of the file."""
    with Cluster() as cluster:
        cluster.sql((CONF / "timeouts.sql").read_text())
        yield cluster


def accepted(*command: str | Path) -> str:
    """What it says about a file that it accepts."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout + done.stderr


def haproxy_file(folder: Path, port: int, nodes: Sequence[Service], ldap: int) -> Path:
    """The file, at ports of this machine."""
    text = (CONF / "haproxy.cfg").read_text()
    text = text.replace("bind :11371", f"bind 127.0.0.1:{port}").replace("bind :1389", f"bind 127.0.0.1:{ldap}")
    text = text.replace("check port 11371", "check").replace(" resolvers names", "")
    for name, node in zip(("one", "two"), nodes, strict=True):
        text = text.replace(f"{name}:11371", f"127.0.0.1:{node.port()}")
        text = text.replace(f"{name}:1389", f"127.0.0.1:{node.port('ldap')} check port {node.port()}")
    file = folder / "haproxy.cfg"
    file.write_text(text)
    return file


def node(folder: Path, name: str, url: str, upstream: str) -> Service:
    """One by the file, with a directory, ports and an upstream of this machine."""
    place = folder / name
    place.mkdir()
    config = (CONF / "keyserver.toml").read_text().replace("hkps://keyserver.ubuntu.com", upstream)
    secret = folder / "database-password"
    secret.write_bytes(EMPTY)
    given = {
        "server.node": f'"{name}"',
        "server.state_dir": f'"{place}"',
        "ldap.listen": '["proxy:127.0.0.1:0"]',
        "limits.proxies": '["127.0.0.1/32"]',
        "cache.database": f'"{url}"',
        "cache.database_password_file": f'"{secret}"',
    }
    return Service(place, config=config, settings=given)


@contextmanager
def nodes(folder: Path, url: str, upstream: str) -> Iterator[list[Service]]:
    started: list[Service] = []
    try:
        for name in ("one", "two"):
            started.append(node(folder, name, url, upstream).start())
        yield started
    finally:
        for service in started:
            service.kill()


def test_the_compose_file_names_what_is_there() -> None:
    compose: dict[str, Any] = yaml.safe_load((CONF / "compose.yml").read_text())
    services = compose["services"]
    assert set(services) == {"database", "one", "two", "proxy"}
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (CONF / source).exists() if source.startswith(".") else source in compose["volumes"]
        assert set(service.get("depends_on", ())) <= set(services)
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
    assert services["one"]["environment"] != services["two"]["environment"]
    assert services["one"]["volumes"][1] != services["two"]["volumes"][1], "a state directory is one node's own"
    for name in ("one", "two"):
        assert (CONF / services[name]["build"]["context"] / services[name]["build"]["dockerfile"]).exists()
    servers = re.findall(r"server (\w+) (\w+):", (CONF / "haproxy.cfg").read_text())
    assert servers == [(name, name) for name in ("one", "two")] * 2


def test_the_compose_file_of_one_node_agrees_with_the_image() -> None:
    folder = ROOT / "conf" / "container"
    compose: dict[str, Any] = yaml.safe_load((folder / "compose.yml").read_text())
    recipe = (folder / "Containerfile").read_text()
    [service] = compose["services"].values()
    assert (folder / service["build"]["context"] / service["build"]["dockerfile"]).samefile(folder / "Containerfile")
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    [(name, place)] = [volume.split(":") for volume in service["volumes"]]
    assert name in compose["volumes"] and f"VOLUME {place}\n" in recipe
    inside = [port.rpartition(":")[2] for port in service["ports"]]
    assert f"EXPOSE {' '.join(inside)}\n" in recipe
    assert re.findall(r"^USER (.+)$", recipe, re.M) == ["10001:10001"]


def test_haproxy_and_nginx_accept_their_files(tmp_path: Path) -> None:
    assert "Configuration file is valid" in accepted(program("haproxy"), "-c", "-f", CONF / "haproxy.cfg")
    site = (CONF / "nginx.conf").read_text().replace("one:", "127.0.0.1:").replace("two:", "127.0.0.2:")
    temporary = " ".join(
        f"{kind}_temp_path {tmp_path}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = tmp_path / "nginx.conf"
    whole.write_text(f"pid {tmp_path}/pid; events {{}} http {{ access_log off; {temporary} {site} }}")
    assert "test is successful" in accepted(program("nginx"), "-t", "-c", whole, "-e", tmp_path / "log")


def test_a_node_accepts_its_file(tmp_path: Path) -> None:
    service = node(tmp_path, "one", "postgresql://keyserver@database/keyserver", "hkps://keyserver.ubuntu.com")
    assert "keyserver.ubuntu.com" in service.cli("check")
    two_hosts = re.search(r'^# database = ("postgresql:.*")$', (CONF / "keyserver.toml").read_text(), re.MULTILINE)
    assert two_hosts
    service.settings["cache.database"] = two_hosts[1]
    assert "keyserver.ubuntu.com" in service.cli("check")


def test_the_role_and_its_time_outs(tmp_path: Path, server: Cluster) -> None:
    secret = tmp_path / "secret"
    secret.write_text("it's one\n")
    text = (CONF / "database.sql").read_text().replace("/run/secrets/database-password", str(secret))
    file = tmp_path / "database.sql"
    file.write_text(text.replace("keyserver", "another"))
    accepted(
        "psql", "-X", "-v", "ON_ERROR_STOP=1", "-h", server.folder, "-p", str(server.port), "-U", "postgres", "-f", file
    )
    owner = "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'another'"
    assert server.sql(owner) == "another\tUTF8"
    said = dict(re.findall(r"^ALTER ROLE keyserver SET (\w+) = (.+);$", (CONF / "timeouts.sql").read_text(), re.M))
    assert len(said) == 9
    url = server.url("postgres", loopback=True)
    asked = [part for name in said for part in ("-c", f"SHOW {name}")]
    shown = accepted("psql", "-XAtq", *asked, url).split()
    plain = [_as_shown(name, value.strip("'")) for name, value in said.items()]
    assert shown == plain


async def test_a_dump_on_another_server_is_a_cache_as_before(tmp_path: Path, server: Cluster) -> None:
    """Its transactions have smaller numbers there: every poll would say that everything changed."""
    name = server.create()
    dump = tmp_path / "dump.sql"
    async with Scripted({made.fingerprint: key(made.octets) for made in MADE}) as upstream:
        with nodes(tmp_path, server.url(name, loopback=True), upstream.url) as (one, two):
            for made in MADE:
                assert (await one.lookup(made.fingerprint))[0] == 200
            assert two.stop() == one.stop() == 0
            place = ("-h", server.folder, "-p", str(server.port), "-U", "keyserver")
            accepted("pg_dump", *place, "-f", dump, name)
            # what a server says whose counter is far ahead of the new one's
            text = dump.read_text().replace("COPY public.tidied (single, xid) FROM stdin;\nt\t0", AHEAD)
            assert AHEAD in text
            dump.write_text(text)
            with Cluster() as other:
                restored = other.create()
                there = ("-h", other.folder, "-p", str(other.port), "-U", "keyserver", "-d", restored)
                accepted("psql", "-Xq", "-v", "ON_ERROR_STOP=1", *there, "-f", dump)
                one.settings["cache.database"] = f'"{other.url(restored, loopback=True)}"'
                one.start()
                for _ in range(2):  # the second time from memory, and that is not forgotten again and again
                    for made in MADE:
                        assert (await one.lookup(made.fingerprint))[1]["x-cache"] == "HIT"
                await asyncio.sleep(1.2)
                assert await _forgotten(one) == 0
                assert len(upstream.requests) == len(MADE)


async def test_haproxy_before_two_nodes_one_of_which_is_killed(tmp_path: Path, server: Cluster) -> None:
    url = server.url(server.create(), loopback=True)
    async with Scripted({made.fingerprint: key(made.octets) for made in MADE}) as upstream:
        with nodes(tmp_path, url, upstream.url) as (one, two):
            port, ldap = free_port(), free_port()
            command = ["haproxy", "-f", str(haproxy_file(tmp_path, port, (one, two), ldap))]
            with running(command, port, tmp_path / "haproxy.log"):
                for made in MADE:
                    assert await through(port, made.fingerprint) == 200
                assert len(upstream.requests) == len(MADE), "what one node has found, the other knows"
                assert await _hits(one) and await _hits(two), "both are asked"
                one.kill()
                for made in MADE:
                    assert await through(port, made.fingerprint) == 200
                asked = ["ldapsearch", "-x", "-LLL", "-H", f"ldap://127.0.0.1:{ldap}", "-b", "", "-s", "base"]
                assert "namingContexts" in accepted(*asked, "+")
                one.start()
                assert (await one.lookup(MADE[0].fingerprint))[1]["x-cache"] == "HIT"
                assert len(upstream.requests) == len(MADE)


async def _hits(service: Service) -> float:
    """Lookups that it has answered."""
    return await _metric(service, "keyserver_lookups_total")


async def _forgotten(service: Service) -> float:
    """Answers in memory that left because something behind them changed."""
    return await _metric(service, "keyserver_hot_forgotten_total")


async def _metric(service: Service, name: str) -> float:
    headers = {"Authorization": f"Bearer {service.token}"}
    _, _, body = await service.get("/metrics", headers=headers, face="admin")
    lines = [line for line in body.decode().splitlines() if line.startswith(name)]
    assert lines, body
    return sum(float(line.split()[-1]) for line in lines)


async def through(port: int, fingerprint: str) -> int:
    """The status of a lookup through the proxy, on a connection of its own."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /pks/lookup?op=get&search=0x{fingerprint} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, _, _ = await read_reply(reader)
        writer.close()
    return status


def _as_shown(name: str, value: str) -> str:
    """How PostgreSQL spells it."""
    return {"statement_timeout": "1min", "tcp_user_timeout": "5000"}.get(name, value)
