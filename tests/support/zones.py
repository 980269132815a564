"""A DNS of our own on loopback: a signed root and zones below it, served by nsd, validated by unbound.

::

    with authority(folder, [Zone("secure.dane", [record(name, "OPENPGPKEY", octets)])]) as served:
        with unbound(folder, served) as port: ...               # validates, with our root as its trust anchor
        with unbound(folder, served, validates=False) as port: ...
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dns.dnssec
import dns.name
import dns.rdata
import dns.rdataset
import dns.rdatatype
import dns.rrset
import dns.zone
from cryptography.hazmat.primitives.asymmetric import ec
from dns.rdtypes.ANY.DNSKEY import DNSKEY

from support.daemons import running
from support.nameserver import record
from support.ports import free_port
from support.tls import Issued

DAY = 86400
ZONE_KEY = 257  # a key that signs keys and everything else (RFC 4034 section 2.1.1)


@dataclass
class Zone:
    """One zone below the root. `trust`: "right" (the root's DS is of its key), "wrong" (of another), or "none" (the
    root says, signed, that it has no key, and nothing in it is signed). `age`: days since its signatures, which hold
    30, were made. `altered`: what is served in place of the records that were signed."""

    origin: str
    records: Sequence[dns.rrset.RRset]
    trust: str = "right"
    age: int = 0
    altered: Sequence[dns.rrset.RRset] = ()
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def name(self) -> dns.name.Name:
        return dns.name.from_text(self.origin)

    @property
    def dnskey(self) -> DNSKEY:
        found = dns.dnssec.make_dnskey(self.key.public_key(), dns.dnssec.ECDSAP256SHA256, flags=ZONE_KEY)
        assert isinstance(found, DNSKEY)
        return found

    def delegation(self) -> list[dns.rrset.RRset]:
        """What the root says of it."""
        sets = [dns.rrset.from_text(self.name, 300, "IN", "NS", "ns.servers.")]
        if self.trust != "none":
            key = self.dnskey if self.trust == "right" else Zone(self.origin, ()).dnskey
            sets.append(dns.rrset.from_rdata(self.name, 300, dns.dnssec.make_ds(self.name, key, "SHA256")))
        return sets

    def text(self) -> str:
        """The zone file."""
        zone = dns.zone.Zone(self.name, relativize=False)
        soa = dns.rrset.from_text(self.name, 300, "IN", "SOA", "ns.servers. admin.servers. 1 3600 600 86400 60")
        with zone.writer() as writing:
            for rrset in (soa, dns.rrset.from_text(self.name, 300, "IN", "NS", "ns.servers."), *self.records):
                writing.add(rrset)
        if self.trust != "none":
            begin = int(time.time()) - self.age * DAY - 3600
            end = begin + 30 * DAY
            dns.dnssec.sign_zone(zone, keys=[(self.key, self.dnskey)], inception=begin, expiration=end)
        with zone.writer() as writing:
            for rrset in self.altered:
                writing.replace(rrset)
        return str(zone.to_text(relativize=False))


@dataclass(frozen=True)
class Served:
    """Where the zones are, and what may be trusted of them."""

    port: int
    anchor: str  # the root's key


@contextmanager
def authority(folder: Path, zones: Sequence[Zone]) -> Iterator[Served]:
    """nsd with these zones and a root above them, until the block ends."""
    glue = dns.rrset.from_text("ns.servers.", 300, "IN", "A", "127.0.0.1")
    root = Zone(".", [glue, *(rrset for zone in zones for rrset in zone.delegation())])
    port = free_port()
    lines = [
        "server:",
        f"  ip-address: 127.0.0.1@{port}",
        '  username: ""',
        '  chroot: ""',
        f'  zonesdir: "{folder}"',
        '  database: ""',
        *(f'  {name}: "{folder}/nsd.{name}"' for name in ("pidfile", "xfrdfile", "zonelistfile")),
        f'  xfrdir: "{folder}"',
        "  server-count: 1",
        "remote-control:",
        "  control-enable: no",
    ]
    for number, zone in enumerate((root, *zones)):
        (folder / f"{number}.zone").write_text(zone.text())
        lines += ["zone:", f'  name: "{zone.name}"', f'  zonefile: "{number}.zone"']
    (folder / "nsd.conf").write_text("\n".join(lines) + "\n")
    with running(["nsd", "-d", "-c", str(folder / "nsd.conf")], port, folder / "nsd.log"):
        yield Served(port, f". IN DNSKEY {root.dnskey.to_text()}")


@contextmanager
def unbound(folder: Path, served: Served, *, validates: bool = True, tls: Issued | None = None) -> Iterator[int]:
    """unbound above them, on the port that this gives; `tls`: it speaks DNS over TLS there."""
    port = free_port()
    lines = [
        "server:",
        f"  interface: 127.0.0.1@{port}",
        f'  directory: "{folder}"',
        '  username: ""',
        '  chroot: ""',
        '  pidfile: ""',
        "  use-syslog: no",
        "  do-ip6: no",
        "  do-not-query-localhost: no",
        "  ede: yes",
        "  num-threads: 1",
        f'  module-config: "{"validator " if validates else ""}iterator"',
    ]
    if validates:
        lines.append(f'  trust-anchor: "{served.anchor}"')
    if tls:
        lines += [f"  tls-port: {port}", f'  tls-service-key: "{tls.key}"', f'  tls-service-pem: "{tls.certificate}"']
    lines += ["remote-control:", "  control-enable: no"]
    lines += ["stub-zone:", '  name: "."', f"  stub-addr: 127.0.0.1@{served.port}"]
    file = folder / f"unbound-{port}.conf"
    file.write_text("\n".join(lines) + "\n")
    with running(["unbound", "-d", "-c", str(file)], port, file.with_suffix(".log")):
        yield port


def at(address: str, type_: str, *octets: bytes) -> dns.rrset.RRset:
    """The records that an address has (RFC 7929 section 3, RFC 8162 section 3; lower-case ASCII only)."""
    local, _, domain = address.partition("@")
    label = "_openpgpkey" if type_ == "OPENPGPKEY" else "_smimecert"
    return record(f"{hashlib.sha256(local.encode()).digest()[:28].hex()}.{label}.{domain}.", type_, *octets)
