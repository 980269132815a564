"""The same addresses through us and by GnuPG's own client from a Web Key Directory: every difference has its rule.

The directory was made by GnuPG's tool, with some files that administrators have left there by mistake, and is served by
nginx; dirmngr asks it, and a service that has no other upstream. Names, port and TLS are real in a mount namespace."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest

from keyserver.upstreams.wkd.upstream import MAX_BODY
from support.daemons import running
from support.differing import Tally, World, compare, fetched, held, parted, proved, unwrapped
from support.names import among
from support.openpgp import CREATED, USER_ID, armored, make, new_key, packet
from support.ports import free_port
from support.running import KEYSERVER, Service
from support.tls import Authority
from support.web_key_directory import asking, install, place

WHERE = "127.0.0.46"
DEBIAN, ADVANCED, DIRECT = "debian.org", "advanced-firm.com", "direct-firm.com"
BROKEN = {
    "page-firm.com": "return 200 '<html>Welcome</html>'",
    "down-firm.com": "return 500",
    "shut-firm.com": "return 403",
}
STRANGE = "strange-firm.com"
"""Its certificate is of an authority that nobody knows."""
NOBODY = "gone-firm.com"
"""No host of it has an address."""

NGINX = """
daemon off; master_process off; pid {at}/pid; error_log {at}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; default_type application/octet-stream; server_names_hash_bucket_size 128;
  client_body_temp_path {at}/a; proxy_temp_path {at}/b; fastcgi_temp_path {at}/c; uwsgi_temp_path {at}/d;
  scgi_temp_path {at}/e; ssl_certificate {certificate}; ssl_certificate_key {key};
  server {{ listen 127.0.0.1:{probe}; }}
  {servers}
}}
"""
SERVER = "server {{ listen {where}:443 ssl; server_name {name}; {more} {{ {what}; }} }}"


class Among(Service):
    """A service in a mount namespace."""

    before: Sequence[str] = ()

    def command(self, *words: str) -> list[str]:
        return [*self.before, *KEYSERVER, *words]


def odd(domain: str) -> Mapping[str, bytes]:
    """Local part -> what an administrator has put there by hand."""

    def of(*users: str, seed: str = "") -> bytes:
        return make([f"<{user}@{domain}>" for user in users], seed=f"{domain} {users} {seed}").octets

    bare = new_key(seed=f"bare {domain}", created=CREATED).packet()
    several = of("several") + of("several", seed="second") + of("another")
    return {
        "several": several,
        "doubled": of("doubled") * 2,
        "others": of("others", "boss", "ceo"),
        "foreign": make([f"<foreign@{domain}>", "<ceo@other-firm.com>"], seed=f"foreign {domain}").octets,
        "wrong": of("somebody"),
        "revoked": make([f"<revoked@{domain}>"], seed=f"revoked {domain}", revoked=1).octets,
        "expired": make([f"<expired@{domain}>"], seed=f"expired {domain}", expires=1000).octets,
        "unsigned": bare + packet(USER_ID, f"<unsigned@{domain}>".encode()),
        "nameless": bare,
        "armored": armored(of("armored")).encode(),
        "page": b"<html><body>Not found</body></html>",
        "empty": b"",
        "garbage": random.Random(domain).randbytes(2000),
        "cut": of("cut")[:-30],
        "big": of("big") + packet(USER_ID, b"x" * (300 << 10)),
    }  # fmt: skip


ORDINARY = ["joe", "Paul.Panther", "mary+keys", "j\u00f6rg", "o'brien", "100%", "under_score", "many.dots.in.it", "x"]


def directories(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Fills them; every certificate, and every address."""
    certificates, addresses = held(), list[str]()
    for octets in list(certificates.values()):
        proof = proved(octets)
        for user in proof.user_ids if proof else ():
            if user.address and user.address.endswith(f"@{DEBIAN}") and not user.revoked:
                install(folder, octets, user.address)
                addresses.append(user.address)
    for domain in (ADVANCED, DIRECT, STRANGE, *BROKEN):
        for local in ORDINARY:
            octets = make(
                [f"Somebody <{local}@{domain}>", "Another <ceo@other-firm.com>"], seed=f"{local}@{domain}"
            ).octets
            install(folder, octets, f"{local}@{domain}")
            certificates |= parted(octets)
            addresses.append(f"{local}@{domain}")
    for domain in (ADVANCED, DIRECT):
        for local, octets in odd(domain).items():
            place(folder, f"{local}@{domain}").write_bytes(octets)
            certificates |= unwrapped(octets)
            addresses.append(f"{local}@{domain}")
    (folder / ADVANCED / "policy").write_text("mailbox-only\n")
    return certificates, [*addresses, f"joe@{NOBODY}"]


@contextlib.contextmanager
def served(folder: Path, authority: Authority) -> Iterator[list[str]]:
    """nginx on port 443; gives the names that it answers for."""
    strange = Authority(folder / "strange", "Unknown CA").issue((f"openpgpkey.{STRANGE}",))
    servers = []
    names = [f"openpgpkey.{domain}" for domain in (DEBIAN, ADVANCED, STRANGE, *BROKEN)] + [DIRECT]
    for name in names:
        domain = name.removeprefix("openpgpkey.")
        path = "/.well-known/openpgpkey/" + (f"{domain}/" if name != domain else "")
        more, what = f"location {path}", f"alias {folder}/wkd/{domain}/"
        if domain in BROKEN:
            more, what = "location /", f"default_type text/html; {BROKEN[domain]}"
        if domain == STRANGE:
            more = f"ssl_certificate {strange.certificate}; ssl_certificate_key {strange.key}; {more}"
        servers.append(SERVER.format(where=WHERE, name=name, more=more, what=what))
    issued, probe = authority.issue([name for name in names if STRANGE not in name]), free_port()
    configuration = NGINX.format(
        at=folder, certificate=issued.certificate, key=issued.key, probe=probe, servers="\n  ".join(servers)
    )
    (folder / "nginx.conf").write_text(configuration)
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "start.log")]
    with running(command, probe, folder / "nginx.log"):
        yield names


def spelt(addresses: Sequence[str], many: int) -> Iterator[str]:
    """Addresses in their own spelling and others, and such as nobody has."""
    chance = random.Random(2)
    for _ in range(many):
        address = chance.choice(addresses)
        local, _, domain = address.partition("@")
        yield chance.choice(
            [
                address,
                address,
                address.upper(),
                f"{local.title()}@{domain}",
                f"{local}@{domain.upper()}",
                f"no-{address}",
            ]
        )


@pytest.mark.soak
async def test_every_difference_to_a_web_key_directory_has_a_rule(
    tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    many = pytestconfig.getoption("--questions")
    authority, tally = Authority(tmp_path / "ca"), Tally()
    certificates, addresses = directories(tmp_path / "wkd")
    world = World(certificates)
    settings = {"cache.deadline": '"30s"', "limits.misses_per_minute": "1000000"}
    config = (
        f'[[upstream]]\nname = "wkd"\nurl = "wkd:"\nallow_private = true\ntimeout = "20s"\n'
        f'tls_ca_file = "{authority.ca_file}"\n'
    )
    service = Among(tmp_path, config=config, settings=settings)
    async with contextlib.AsyncExitStack() as stack:
        names = stack.enter_context(served(tmp_path, authority))
        before = stack.enter_context(among(tmp_path / "names", dict.fromkeys(names, WHERE), authority.ca_file))
        ask = await stack.enter_async_context(asking(tmp_path, before))
        service.before = before
        stack.enter_context(service)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for address in spelt(addresses, many):
            sent = await ask(address)
            theirs = unwrapped(sent) if len(sent) <= MAX_BODY else {}  # gpg takes no more of its dirmngr
            url = f"http://127.0.0.1:{service.port()}/pks/lookup?op=get&options=mr&search={quote(address)}"
            compare(tally, address, theirs, (await fetched(session, url)).found, world)
    tally.show(f"Web Key Directory, {many:,} questions", capsys)
    tally.check()
