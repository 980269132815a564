"""The peers on LDAP: slapd with the entries themselves, and slapd caching them (back-ldap with pcache) in front of it.

The latter is what one would deploy instead of us. Both have GnuPG's schema, equality indexes and no log.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.certificates import Made
from bench.ldap_client import BASE, INFO, KEYS
from bench.machine import program
from bench.peers import Peer
from bench.processes import Running
from support.ldap_messages import GPG_ATTRIBUTES
from support.ports import free_port

SLAPD, PCACHE = "slapd", "slapd pcache"

_TEXT = "EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15"
_KEY = "SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE"
_PGP, _GPG = "1.3.6.1.4.1.3401.8.2", "1.3.6.1.4.1.11591.2.4.1"
_NAMES = {
    f"{_PGP}.8": "pgpBaseKeySpaceDN",
    f"{_PGP}.9": "pgpSoftware",
    f"{_PGP}.10": "pgpVersion",
    f"{_PGP}.11": "pgpKey",
    f"{_PGP}.12": "pgpCertID",
    f"{_PGP}.13": "pgpDisabled",
    f"{_PGP}.14": "pgpKeyID",
    f"{_PGP}.15": "pgpKeyType",
    f"{_PGP}.16": "pgpUserID",
    f"{_PGP}.17": "pgpKeyCreateTime",
    f"{_PGP}.19": "pgpRevoked",
    f"{_PGP}.20": "pgpSubKeyID",
    f"{_PGP}.21": "pgpKeySize",
    f"{_GPG}.1": "gpgFingerprint",
    f"{_GPG}.2": "gpgSubFingerprint",
    f"{_GPG}.3": "gpgMailbox",
}

_HEAD = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include {folder}/pgp.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload back_ldap
moduleload pcache
pidfile {folder}/pid
argsfile {folder}/args
loglevel 0
threads 4
access to * by * read
"""
_ITSELF = """
database mdb
suffix "{base}"
directory {folder}/data
maxsize 1073741824
dbnosync
index objectClass,gpgFingerprint,gpgSubFingerprint,gpgMailbox,pgpCertID eq
"""
_CACHING = """
database ldap
suffix "{base}"
rootdn "cn=admin,{base}"
uri ldap://127.0.0.1:{origin}
overlay pcache
pcache mdb 20000 2 100 3600
pcacheAttrset 0 {asked}
pcacheAttrset 1 {info}
pcacheTemplate (|(gpgFingerprint=)(gpgSubFingerprint=)) 0 86400
pcacheTemplate (objectClass=*) 1 86400
directory {folder}/data
maxsize 1073741824
dbnosync
index objectClass,gpgFingerprint,gpgSubFingerprint,gpgMailbox,pgpCertID,pcacheQueryID eq
"""


def directories(
    stack: ExitStack, folder: Path, keys: Mapping[str, tuple[Made, bytes]], cpus: frozenset[int]
) -> dict[str, Peer]:
    """Both, by name; `keys`: certificates and their armored octets by fingerprint."""
    itself = _start(stack, SLAPD, folder / "itself", _ITSELF, cpus, ldif=_ldif(keys))
    caching = _start(stack, PCACHE, folder / "caching", _CACHING, cpus, origin=itself.port)
    return {SLAPD: itself, PCACHE: caching}


def _start(
    stack: ExitStack,
    name: str,
    folder: Path,
    database: str,
    cpus: frozenset[int],
    *,
    ldif: str = "",
    origin: int = 0,
) -> Peer:
    (folder / "data").mkdir(parents=True)
    (folder / "pgp.schema").write_text(_schema())
    configuration = folder / "slapd.conf"
    values = {
        "folder": folder,
        "base": BASE,
        "origin": origin,
        "asked": " ".join(GPG_ATTRIBUTES),
        "info": " ".join(INFO),
    }
    configuration.write_text((_HEAD + database).format(**values))
    if ldif:
        command = [program("slapadd"), "-q", "-f", str(configuration)]
        subprocess.run(command, input=ldif.encode(), capture_output=True, check=True)
    port = free_port()
    command = [program("slapd"), "-d", "0", "-f", str(configuration), "-h", f"ldap://127.0.0.1:{port}/"]
    running = stack.enter_context(Running(command, folder / "log", cpus=cpus))
    running.listens(port)
    return Peer(name, port, running)


def _schema() -> str:
    lines = [
        f"attributetype ( {oid} NAME '{name}' {_KEY if name == 'pgpKey' else _TEXT} )" for oid, name in _NAMES.items()
    ]
    may = " $ ".join(["cn", *_NAMES.values()])
    for number, name in ((23, "pgpServerInfo"), (24, "pgpKeyInfo")):
        lines.append(f"objectclass ( {_PGP}.{number} NAME '{name}' SUP top STRUCTURAL MAY ( {may} ) )")
    return "\n".join(lines) + "\n"


def _ldif(keys: Mapping[str, tuple[Made, bytes]]) -> str:
    info = {"pgpBaseKeySpaceDN": [KEYS], "pgpSoftware": ["GnuPG"], "pgpVersion": ["2"]}
    blocks = [
        _block(BASE, {"objectClass": ["dcObject", "organization"], "o": ["keyserver"], "dc": ["keyserver"]}),
        _block(KEYS, {"objectClass": ["organizationalUnit"], "ou": ["PGP Keys"]}),
        _block(f"cn=pgpServerInfo,{BASE}", {"objectClass": ["pgpServerInfo"], "cn": ["pgpServerInfo"], **info}),
    ]
    for fingerprint, (made, armored) in keys.items():
        attributes = {
            "objectClass": ["pgpKeyInfo"],
            "gpgFingerprint": [fingerprint],
            "pgpCertID": [fingerprint[-16:]],
            "pgpKeyID": [fingerprint[-8:]],
            "pgpUserID": list(made.user_ids),
            "gpgMailbox": list(made.addresses),
            "pgpRevoked": ["0"],
            "pgpDisabled": ["0"],
            "pgpKeyType": ["EdDSA"],
            "pgpKeySize": ["00255"],
            "pgpKeyCreateTime": ["20200913122640Z"],
            "pgpKey": [armored.decode("ascii")],
        }
        blocks.append(_block(f"gpgFingerprint={fingerprint},{KEYS}", attributes))
    return "\n".join(blocks)


def _block(dn: str, attributes: Mapping[str, Sequence[str]]) -> str:
    lines = [f"{name}:: {base64.b64encode(v.encode()).decode()}" for name, values in attributes.items() for v in values]
    return "\n".join([f"dn: {dn}", *lines, ""])
