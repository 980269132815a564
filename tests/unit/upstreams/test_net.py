"""The network guard: which names and addresses strangers may make us ask."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Sequence

import pytest

from keyserver.upstreams import net
from keyserver.upstreams.host import is_inside
from keyserver.upstreams.net import (
    SPECIAL_USE,
    Names,
    NoSuchHost,
    NotInside,
    NotPublic,
    Resolved,
    Service,
    is_global,
    template_host,
)

PUBLIC = """8.8.8.8 1.1.1.1 185.125.188.26 100.63.255.255 100.128.0.1 172.15.0.1 172.32.0.1 192.0.1.1 223.255.255.255
2606:4700::1111 2620:2d:4000:1007::43 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 64:ff9b:1::8.8.8.8 64:ff9b:1:abcd::8.8.8.8
2002:808:808::1 2a00:1450::1""".split()  # noqa: SIM905

NOT_PUBLIC = """0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.255 169.254.169.254 172.16.0.1
172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.1.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::ffff:127.0.0.1 ::ffff:10.1.2.3 ::ffff:169.254.169.254 ::127.0.0.1 ::8.8.8.8 100::1 fe80::1 fe80::1%eth0
2606:4700::1111%eth0 fc00::1 fd12::1 fec0::1 ff02::1 ff0e::1 2001:db8::1 3fff::1 2001:2::1 2001:10::1 5f00::1
64:ff9b::10.0.0.1 64:ff9b::127.0.0.1 64:ff9b:1::192.168.0.1 64:ff9b:1:808:8:800:: 64:ff9b:1::1:7f00:1 64:ff9b:2::8.8.8.8
2002:7f00:1::1 2002:a00:1::1 2002:c0a8:101::1 4000::1""".split()  # noqa: SIM905


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_global(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_global(ipaddress.ip_address(address))


def test_teredo_is_judged_by_server_and_client() -> None:
    def teredo(server: str, client: str) -> ipaddress.IPv6Address:
        hidden = int(ipaddress.IPv4Address(client)) ^ 0xFFFFFFFF
        return ipaddress.IPv6Address(0x20010000 << 96 | int(ipaddress.IPv4Address(server)) << 64 | hidden)

    assert is_global(teredo("65.54.227.120", "8.8.8.8"))
    assert not is_global(teredo("65.54.227.120", "127.0.0.1"))
    assert not is_global(teredo("10.0.0.1", "8.8.8.8"))


@pytest.mark.parametrize(
    ("template", "domain", "host"),
    [
        ("keys.{domain}", "partner.de", "keys.partner.de"),
        ("keys.{domain}", "PARTNER.de", "keys.partner.de"),
        ("keys.{domain}", "xn--bcher-kva.de", "keys.xn--bcher-kva.de"),
        ("{domain}", "partner.de", "partner.de"),
        ("{domain}.keys.partner.de", "other.net", "other.net.keys.partner.de"),
        ("keys.{domain}", "testing.de", "keys.testing.de"),
        ("keys.{domain}", "local.de", "keys.local.de"),
    ],
)
def test_templates_are_filled(template: str, domain: str, host: str) -> None:
    assert template_host(template, domain) == host


@pytest.mark.parametrize(
    "domain",
    [
        *("a." + name for name in sorted(SPECIAL_USE)),
        *sorted(SPECIAL_USE),
        *("127.0.0.1", "[127.0.0.1]", "::1", "[::1]", "1.2.3", "a.1", "a.0x7f", "a.0x", "[ipv6:::1]", "2130706433"),
        *("partner", "", ".", "partner.", ".de", "a..de", "-a.de", "a-.de", "a_b.de", "bücher.de", "a b.de", "a.de\n"),
        *("a.de:80", "a.de/x", "u@a.de", "a%2ede.de", "a.de#", "{domain}.de", "a.de\0", "keys.LOCALHOST"),
        *("a" * 64 + ".de", ".".join(["a" * 60] * 4) + ".de" + "x" * 10),
    ],
)
def test_domains_that_no_template_takes(domain: str) -> None:
    assert template_host("keys.{domain}", domain) is None
    assert template_host("{domain}", domain) is None


def test_the_whole_name_is_at_most_253_characters() -> None:
    domain = ".".join(["a" * 49] * 5)  # 249
    assert template_host("{domain}", domain) == domain
    assert template_host("k.{domain}", domain) == "k." + domain
    assert template_host("keys.{domain}", domain) is None


def test_special_names_are_an_argument_for_tests_only() -> None:
    assert template_host("keys.{domain}", "partner.test", frozenset()) == "keys.partner.test"
    assert template_host("keys.{domain}", "127.0.0.1", frozenset()) is None


class Zone:
    """A name service made of a table; notes what it was asked."""

    def __init__(self, table: dict[str, list[str] | OSError], services: dict[str, list[Service]] | None = None) -> None:
        self.table, self.targets, self.asked = table, services or {}, list[str]()

    async def lookup(self, host: str, port: int) -> list[str]:
        """Addresses, or the error that the table holds."""
        self.asked.append(host)
        found = self.table.get(host, [])
        if isinstance(found, OSError):
            raise found
        return found

    async def services(self, name: str) -> list[Service]:
        """SRV records."""
        return self.targets.get(name, [])


async def test_templates_resolve_without_search_list_and_configured_names_with_it() -> None:
    zone = Zone({"keys.partner.de.": ["8.8.8.8"], "keyserver": ["10.0.0.1"]})
    names = Names(zone.lookup)
    assert await names.guarded_addresses("keys.partner.de", 443) == ("8.8.8.8",)
    assert await names.guarded_addresses("keyserver", 443, in_full=True) == ("10.0.0.1",)
    assert zone.asked == ["keys.partner.de.", "keyserver"]


async def test_only_public_addresses_are_kept() -> None:
    zone = Zone(
        {"mixed.de.": ["127.0.0.1", "8.8.8.8", "::ffff:10.0.0.1", "8.8.8.8"], "private.de.": ["10.0.0.1", "::1"]}
    )
    names = Names(zone.lookup)
    assert await names.guarded_addresses("mixed.de", 443) == ("8.8.8.8",)
    with pytest.raises(NotPublic):
        await names.guarded_addresses("private.de", 443)
    assert await names.guarded_addresses("private.de", 443, allow_private=True) == ("10.0.0.1", "::1")


@pytest.mark.parametrize("address", [*PUBLIC, "0.0.0.0", "64:ff9b:1:808:8:800::", "::8.8.8.8", "100.64.0.1", "ff02::1"])
def test_what_is_not_surely_inside_is_outside(address: str) -> None:
    assert not is_inside(ipaddress.ip_address(address))


async def test_inside_public_addresses_are_dropped_even_of_names_written_in_full() -> None:
    table = {"mixed.lan": ["8.8.8.8", "10.0.0.1", "fd00::1", "::ffff:127.0.0.1"], "public.de": ["8.8.8.8", "2a00::1"]}

    async def lookup(host: str, port: int) -> Sequence[str]:
        return table[host]

    names = Names(lookup, inside=True)
    kept = ("10.0.0.1", "fd00::1", "::ffff:127.0.0.1")
    assert await names.guarded_addresses("mixed.lan", 80, in_full=True) == kept
    for allowed in (False, True):
        with pytest.raises(NotInside):
            await names.guarded_addresses("public.de", 80, allowed, in_full=True)
    with pytest.raises(NotPublic):  # a redirect's host, which must be public
        await names.guarded_addresses("10.0.0.1", 80)


async def test_literals_are_not_looked_up() -> None:
    zone = Zone({})
    names = Names(zone.lookup)
    assert await names.guarded_addresses("127.0.0.1", 80, in_full=True) == ("127.0.0.1",)
    with pytest.raises(NotPublic):
        await names.guarded_addresses("[::1]", 80)
    assert not zone.asked


async def test_no_address_is_no_host_and_trouble_is_trouble() -> None:
    names = Names(Zone({"broken.de.": socket.gaierror(socket.EAI_AGAIN, "try again")}).lookup)
    with pytest.raises(NoSuchHost):
        await names.resolve("nowhere.de", 80)
    with pytest.raises(socket.gaierror):
        await names.resolve("broken.de", 80)


async def test_many_addresses_are_cut() -> None:
    names = Names(Zone({"many.de.": [f"8.8.8.{n}" for n in range(200)]}).lookup)
    assert len(await names.resolve("many.de", 80)) == net.MAX_ADDRESSES


async def test_the_system_knows_localhost_with_and_without_a_final_dot() -> None:
    names = Names()
    assert "127.0.0.1" in await names.resolve("localhost", 80, in_full=True)
    assert "127.0.0.1" in await names.resolve("localhost", 80)  # glibc itself does not find `localhost.`


async def test_a_name_that_the_system_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NoSuchHost):
        await Names().resolve("nowhere.invalid", 80)


async def test_slow_name_servers_are_bounded_and_hold_up_nobody_who_gave_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release, running = threading.Event(), []

    def stuck(host: str, *_: object, **__: object) -> list[object]:
        running.append(host)
        release.wait(5)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    names = Names(threads=2)
    waiting = [asyncio.create_task(names.resolve(f"slow{n}.de", 80)) for n in range(5)]
    while len(running) < 2:
        await asyncio.sleep(0.001)
    waiting[0].cancel()  # its thread goes on, and so does its place
    await asyncio.sleep(0.01)
    assert len(running) == 2
    release.set()
    assert await asyncio.gather(*waiting[1:]) == [("8.8.8.8",)] * 4
    assert waiting[0].cancelled()


async def test_services_best_first_and_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [Service("c.de", 3, 20, 0), Service("a.de", 1, 10, 1), Service("b.de", 2, 10, 9)]
    names = Names(srv=Zone({}, {"_x._tcp.de": records}).services)
    assert [s.host for s in await names.services("_x._tcp.de")] == ["b.de", "a.de", "c.de"]
    assert await names.services("_y._tcp.de") == ()

    async def never(name: str) -> list[Service]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr(net, "SRV_TIMEOUT", 0.01)
    assert await Names(srv=never).services("_x._tcp.de") == ()


async def test_srv_lookup_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(net, "SRV_TIMEOUT", 0.05)
    assert tuple(await net.srv_lookup("_pgpkey-http._tcp.nowhere.invalid")) == ()
    assert tuple(await net.srv_lookup("_pgpkey-http._tcp." + "a" * 70 + ".invalid")) == ()


def test_answered_hosts_are_remembered_within_a_bound() -> None:
    answered = Resolved(most=3)
    for host in ("a", "b", "c", "a", "d"):
        answered.add(host)
    assert [host for host in "abcd" if host in answered] == ["a", "c", "d"]
    assert len(answered) == 3
