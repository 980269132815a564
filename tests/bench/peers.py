"""The peers: nginx and Varnish as caches in front of a scripted origin, SKS with certificates of its own.

Each is Debian's package, one worker unless asked for more, with a configuration of its own in a temporary folder. nginx
listens four times: Debian's defaults; *tuned* with open_file_cache (facts of the caching itself); the same without
tcp_nopush, which delays larger answers on kept connections; and a constant `return 200`.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from bench.certificates import Made, joined
from bench.machine import program
from bench.processes import Running
from support.ports import free_port

NGINX, TUNED, NO_PUSH, CONSTANT = "nginx", "nginx tuned", "nginx tuned, no tcp_nopush", "nginx return 200"
VARNISH, SKS = "varnish", "sks"

_LARGEST_PARAMETER = 2000  # octets of one parameter that nginx's parser takes: 4,096

_NGINX = """
worker_processes {workers};
{user}
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    access_log {folder}/access.log;
    gzip on;
    client_body_temp_path {folder}/body; fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi; proxy_temp_path {folder}/proxy;
    proxy_cache_path {folder}/cache levels=1:2 keys_zone=keys:20m max_size=2g inactive=1d;
    upstream origin {{ server 127.0.0.1:{origin}; keepalive 8; }}
    server {{ listen 127.0.0.1:{ports[0]} backlog=2048; {cached} }}
    server {{ listen 127.0.0.1:{ports[1]} backlog=2048; {cached} {tuned} }}
    server {{ listen 127.0.0.1:{ports[2]} backlog=2048; {cached} {tuned} tcp_nopush off; }}
    server {{ listen 127.0.0.1:{ports[3]} backlog=2048; {constant} default_type application/pgp-keys; }}
}}
"""
_CACHED = (
    "location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ''; "
    "proxy_cache keys; proxy_cache_key $request_uri; proxy_cache_valid 200 404 1d; }}"
)
_TUNED = "open_file_cache max=20000 inactive=1h; open_file_cache_valid 1h; open_file_cache_min_uses 1;"


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to compare with."""

    name: str
    port: int
    running: Running

    def warm(self, paths: Sequence[str], rounds: int = 2) -> None:
        """Ask for everything, so that it is cached (twice: the second time must be a hit)."""
        for _ in range(rounds):
            connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
            for path in paths:
                connection.request("GET", path)
                reply = connection.getresponse()
                reply.read()
                if reply.will_close:
                    connection.close()
            connection.close()


def nginx(
    stack: ExitStack, folder: Path, origin: int, body: bytes, cpus: frozenset[int], workers: int = 1
) -> dict[str, Peer]:
    """nginx with four listeners, by name; `body` is what `return 200` says."""
    ports = [free_port() for _ in range(4)]
    text = body.decode("ascii")
    pieces = [text[i : i + _LARGEST_PARAMETER] for i in range(0, len(text), _LARGEST_PARAMETER)]
    names = [f"piece{chr(97 + number)}" for number in range(len(pieces))]
    sets = "".join(f'set ${name} "{piece}"; ' for name, piece in zip(names, pieces, strict=True))
    constant = f'location / {{ {sets} return 200 "{"".join(f"${name}" for name in names)}"; }}'
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _NGINX.format(
            folder=folder,
            workers=workers,
            user="user root;" if os.geteuid() == 0 else "",
            origin=origin,
            ports=ports,
            cached=_CACHED.format(),
            tuned=_TUNED,
            constant=constant,
        )
    )
    command = [program("nginx"), "-c", str(configuration), "-p", str(folder), "-g", "daemon off;"]
    running = stack.enter_context(Running(command, folder / "log", cpus=cpus))
    running.listens(ports[3])
    return {
        name: Peer(name, port, running) for name, port in zip((NGINX, TUNED, NO_PUSH, CONSTANT), ports, strict=True)
    }


def varnish(stack: ExitStack, folder: Path, origin: int, cpus: frozenset[int]) -> Peer:
    """Varnish with Debian's defaults and memory enough for everything."""
    port = free_port()
    command = [program("varnishd"), "-j", "none", "-F", "-n", str(folder / "work"), "-a", f"127.0.0.1:{port}"]
    command += ["-b", f"127.0.0.1:{origin}", "-s", "malloc,512m", "-T", "none"]
    running = stack.enter_context(Running(command, folder / "log", cpus=cpus))
    running.listens(port)
    return Peer(VARNISH, port, running)


def sks(stack: ExitStack, folder: Path, certificates: Sequence[Made], cpus: frozenset[int]) -> Peer:
    """SKS with these certificates."""
    for name in ("etc/sks", "var/lib/sks/www", "var/log/sks", "var/run/sks", "var/spool/sks"):
        (folder / name).mkdir(parents=True)
    dump = folder / "dump.pgp"
    dump.write_bytes(joined(certificates))
    build = [program("sks"), "build", "-basedir", str(folder), "-stdoutlog", str(dump)]
    subprocess.run(build, cwd=folder, capture_output=True, timeout=300, check=True)
    port = free_port()
    command = [program("sks"), "db", "-basedir", str(folder), "-hkp_address", "127.0.0.1", "-hkp_port", str(port)]
    command += ["-hostname", "localhost", "-disable_mailsync", "-stdoutlog"]
    running = stack.enter_context(Running(command, folder / "log", cpus=cpus, folder=folder))
    running.listens(port)
    return Peer(SKS, port, running)
