"""A real LDAP directory for tests: OpenLDAP's slapd in a temporary directory, on loopback ports of its own.

    from support.directory import Slapd, person, key_entry

    with Slapd(tmp_path, entries=[*people_base("dc=example,dc=org"), person(...)]) as directory:
        directory.url                       # ldap://127.0.0.1:<port>
        directory.stop(); directory.start() # the same ports again

What it holds is given as entries: `(dn, {attribute: value or values})`, text or octets, loaded before it starts. The
suffixes of its databases are the entries that have no parent among them, so several trees are simply given together.
GnuPG's two schema versions, the commercial keyservers' names and Active Directory's are known besides inetOrgPerson.

Options: `authority`: TLS certificates (see `Authority`), then StartTLS works and `tls_url` exists; `password`: of
`cn=admin,<first suffix>`; `anonymous=False`: only who has bound may read; `root_dse`: attributes added to the rootDSE,
or None: it is hidden; `referral`: where questions outside its suffixes are sent (result 10); `directives`: further
lines of slapd.conf before the databases, such as "sizelimit 5".
"""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from support.ports import free_port
from support.tls import Authority, Issued

Value = str | bytes
Entry = tuple[str, Mapping[str, Value | Sequence[Value]]]

STARTS = 5  # attempts: a port that was free may be taken when slapd comes to it
WAIT = 10.0  # seconds for slapd to answer

# Attribute types and classes by the names and OIDs that GnuPG and the commercial keyservers use. Names without a
# published OID get one below 1.1, the arc for such things.
_TEXT = "EQUALITY caseIgnoreMatch SUBSTR caseIgnoreSubstringsMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15"
_IA5 = "SYNTAX 1.3.6.1.4.1.1466.115.121.1.26"
_OCTETS = "SYNTAX 1.3.6.1.4.1.1466.115.121.1.40"
_PGP = "1.3.6.1.4.1.3401.8.2."
_GPG = "1.3.6.1.4.1.11591.2.4.1."
_OWN = "1.1.2.1."
_ATTRIBUTES = (
    (_PGP + "8", "pgpBaseKeySpaceDN", f"{_TEXT} SINGLE-VALUE"),
    (_PGP + "9", "pgpSoftware", f"{_TEXT} SINGLE-VALUE"),
    (_PGP + "10", "pgpVersion", f"{_TEXT} SINGLE-VALUE"),
    (_PGP + "11", "pgpKey", f"{_OCTETS} SINGLE-VALUE"),  # IA5 in GnuPG's; octets here, so that binary can be tried
    (_PGP + "12", "pgpCertID", f"{_TEXT} SINGLE-VALUE"),
    (_PGP + "13", "pgpDisabled", f"{_TEXT} SINGLE-VALUE"),
    (_PGP + "14", "pgpKeyID", f"{_TEXT} SINGLE-VALUE"),
    (_PGP + "15", "pgpKeyType", f"{_TEXT} SINGLE-VALUE"),
    (_PGP + "16", "pgpUserID", _TEXT),
    (_PGP + "17", "pgpKeyCreateTime", f"{_TEXT} ORDERING caseIgnoreOrderingMatch SINGLE-VALUE"),
    (_PGP + "18", "pgpSignerID", _TEXT),
    (_PGP + "19", "pgpRevoked", f"{_TEXT} SINGLE-VALUE"),
    (_PGP + "20", "pgpSubKeyID", _TEXT),
    (_PGP + "21", "pgpKeySize", f"{_TEXT} ORDERING caseIgnoreOrderingMatch SINGLE-VALUE"),
    (_PGP + "22", "pgpKeyExpireTime", f"{_TEXT} ORDERING caseIgnoreOrderingMatch SINGLE-VALUE"),
    (_GPG + "1", "gpgFingerprint", f"{_TEXT} SINGLE-VALUE"),
    (_GPG + "2", "gpgSubFingerprint", _TEXT),
    (_GPG + "3", "gpgMailbox", _TEXT),
    (
        "2.25.199660594409512629373420944291166133754",
        "keyserverCanEncrypt",
        "EQUALITY booleanMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.7 SINGLE-VALUE",
    ),
    (_OWN + "1", "baseKeySpaceDN", f"{_TEXT} SINGLE-VALUE"),
    (_OWN + "2", "version", f"{_TEXT} SINGLE-VALUE"),
    (_OWN + "3", "software", f"{_TEXT} SINGLE-VALUE"),
    (_OWN + "4", "pgpKeyV2", f"{_OCTETS} SINGLE-VALUE"),
    ("1.2.840.113556.1.2.210", "proxyAddresses", _TEXT),
    ("1.2.840.113556.1.4.656", "userPrincipalName", _TEXT),
    ("1.2.840.113556.1.2.206", "targetAddress", _TEXT),
    (
        "2.16.840.1.113730.3.1.13",
        "mailLocalAddress",
        f"EQUALITY caseIgnoreIA5Match SUBSTR caseIgnoreIA5SubstringsMatch {_IA5}",
    ),
    (_OWN + "6", "mozillaSecondEmail", _TEXT),
    ("1.2.840.113556.1.4.484", "defaultNamingContext", f"{_TEXT} SINGLE-VALUE"),
    ("1.2.840.113556.1.4.1464", "supportedCapabilities", "SYNTAX 1.3.6.1.4.1.1466.115.121.1.38"),
)
_CLASSES = (
    f"( {_PGP}23 NAME 'pgpServerInfo' SUP top STRUCTURAL MUST cn "
    "MAY ( pgpBaseKeySpaceDN $ pgpSoftware $ pgpVersion $ baseKeySpaceDN $ version $ software ) )",
    f"( {_PGP}24 NAME 'pgpKeyInfo' SUP top STRUCTURAL MUST pgpCertID MAY ( cn $ pgpKey $ pgpKeyV2 $ pgpDisabled $ "
    "pgpKeyID $ pgpKeyType $ pgpUserID $ pgpKeyCreateTime $ pgpSignerID $ pgpRevoked $ pgpSubKeyID $ pgpKeySize $ "
    "pgpKeyExpireTime $ gpgFingerprint $ gpgSubFingerprint $ gpgMailbox ) )",
    f"( {_OWN}7 NAME 'keyserverCertificate' SUP top AUXILIARY MUST keyserverCanEncrypt )",
    f"( {_OWN}5 NAME 'adUser' SUP top AUXILIARY MAY proxyAddresses )",
    "( 1.2.840.113556.1.5.9 NAME 'user' SUP top AUXILIARY MAY ( userPrincipalName $ proxyAddresses $ targetAddress $ "
    "email $ mailLocalAddress $ mozillaSecondEmail ) )",
)
_INDEXED = "mail,pgpCertID,pgpSubKeyID,pgpKeyID,gpgFingerprint,gpgSubFingerprint,gpgMailbox,proxyAddresses"


class Slapd:
    """One slapd; see the module. A context manager, or `start` and `stop` by hand."""

    def __init__(
        self,
        folder: Path,
        entries: Iterable[Entry] = (),
        *,
        authority: Authority | None = None,
        certificate: Issued | None = None,
        password: str = "",
        anonymous: bool = True,
        root_dse: Mapping[str, Value | Sequence[Value]] | None = {},
        referral: str = "",
        directives: Sequence[str] = (),
    ) -> None:
        """`certificate`: what it shows; without one `authority` issues a good one. Nothing is started yet."""
        self.folder = Path(folder)
        self.entries = [(dn, dict(attributes)) for dn, attributes in entries]
        self.suffixes = _suffixes(self.entries)
        self.admin = f"cn=admin,{self.suffixes[0]}" if password else ""
        self.password = password
        self.authority = authority
        self.certificate = certificate or (authority.issue() if authority else None)
        self.port, self.tls_port = 0, 0
        self._anonymous, self._root_dse, self._referral = anonymous, root_dse, referral
        self._directives = directives
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded = False

    def __enter__(self) -> Slapd:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """`ldap://127.0.0.1:port`."""
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        """`ldaps://127.0.0.1:port`."""
        return f"ldaps://127.0.0.1:{self.tls_port}"

    def start(self) -> None:
        """Start it, on the ports it had before if it ran before. Returns when it answers."""
        if not self._loaded:
            self._load()
        for _ in range(STARTS):
            fresh = not self.port
            if fresh:
                self.port, self.tls_port = free_port(), free_port() if self.certificate else 0
            if self._run():
                return
            if fresh:
                self.port = self.tls_port = 0
        raise RuntimeError(f"slapd did not start: {(self.folder / 'log').read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Stop it; what it holds stays."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _run(self) -> bool:
        listeners = f"{self.url}/" + (f" {self.tls_url}/" if self.certificate else "")
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_program("slapd"), "-d", "0", "-f", str(self.folder / "slapd.conf"), "-h", listeners],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + WAIT
        while time.monotonic() < until and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self._process.poll() is None
            except OSError:
                time.sleep(0.02)
        self.stop()
        return False

    def _load(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "names.schema").write_text(_schema())
        (self.folder / "root.ldif").write_text(ldif([("", self._root_dse or {})]))
        (self.folder / "slapd.conf").write_text("\n".join(self._configuration()) + "\n")
        for number in range(len(self.suffixes)):
            (self.folder / f"data{number + 1}").mkdir()
        for number, suffix in enumerate(self.suffixes, 1):
            mine = [entry for entry in self.entries if _below(entry[0], suffix)]
            done = subprocess.run(
                [_program("slapadd"), "-q", "-f", str(self.folder / "slapd.conf"), "-n", str(number)],
                input=ldif(mine).encode(),
                capture_output=True,
            )
            if done.returncode:
                raise RuntimeError(f"slapadd refused the entries: {done.stderr.decode(errors='replace')[-2000:]}")
        self._loaded = True

    def _configuration(self) -> list[str]:
        lines = [f"include /etc/ldap/schema/{name}.schema" for name in ("core", "cosine", "inetorgperson")]
        lines += [f"include {self.folder}/names.schema", "modulepath /usr/lib/ldap", "moduleload back_mdb"]
        lines += [f"pidfile {self.folder}/pid", f"argsfile {self.folder}/args", "loglevel 0", "threads 4"]
        if self.certificate:
            lines += [f"TLSCertificateFile {self.certificate.certificate}"]
            lines += [f"TLSCertificateKeyFile {self.certificate.key}"]
        if self.authority:
            lines += [f"TLSCACertificateFile {self.authority.ca_file}"]
        if self._root_dse:
            lines += [f"rootDSE {self.folder}/root.ldif"]
        if self._referral:
            lines += [f"referral {self._referral}"]
        lines += self._directives
        if self._root_dse is None:
            lines += ['access to dn.base="" by * none']
        lines += ["access to * by * read" if self._anonymous else "access to * by users read by anonymous auth"]
        for number, suffix in enumerate(self.suffixes, 1):
            lines += ["", "database mdb", f'suffix "{suffix}"', f"directory {self.folder}/data{number}"]
            lines += [f"maxsize {64 << 20}", f"index {_INDEXED} eq", "index objectClass eq", "dbnosync"]
            if self.password and number == 1:
                lines += [f'rootdn "{self.admin}"', f"rootpw {self.password}"]
        return lines


def base_entry(dn: str) -> Entry:
    """An entry for others to stand below, by its first RDN: dc, o, ou or c (anything else: an extensible object)."""
    kind, _, value = dn.partition(",")[0].partition("=")
    classes = {
        "dc": ["dcObject", "organization"],
        "o": ["organization"],
        "ou": ["organizationalUnit"],
        "c": ["country"],
    }
    extra = {"o": value} if kind.lower() == "dc" else {}
    return dn, {"objectClass": classes.get(kind.lower(), ["extensibleObject"]), kind: value, **extra}


def person(base: str, address: str, **attributes: Value | Sequence[Value]) -> Entry:
    """An inetOrgPerson below `base`. Write `;binary` as `__binary`: `userCertificate__binary=[der, …]`."""
    name = address.partition("@")[0] or "nobody"
    given = {key.replace("__", ";"): value for key, value in attributes.items()}
    common = {"cn": name, "sn": name, "mail": address}
    classes = ["inetOrgPerson", "adUser"] if "proxyAddresses" in given else ["inetOrgPerson"]
    return f"cn={dn_value(name)},{base}", {"objectClass": classes, **common, **given}


def server_info(base: str, keyspace: str, *, software: str = "GnuPG", version: str = "2") -> Entry:
    """The entry by which GnuPG finds a keyspace; `software` and `version` choose the schema."""
    return f"cn=pgpServerInfo,{base}", {
        "objectClass": "pgpServerInfo",
        "cn": "pgpServerInfo",
        "pgpBaseKeySpaceDN": keyspace,
        "pgpSoftware": software,
        "pgpVersion": version,
    }


def commercial_info(keyspace: str) -> Entry:
    """The root-level entry of a commercial keyserver."""
    return "cn=pgpServerInfo", {
        "objectClass": "pgpServerInfo",
        "cn": "pgpServerInfo",
        "baseKeySpaceDN": keyspace,
        "software": "PGP Keyserver",
        "version": "7.0",
    }


def key_entry(
    keyspace: str,
    fingerprint: str,
    key: Value | None,
    addresses: Sequence[str] = (),
    *,
    subkeys: Sequence[str] = (),
    schema: int = 2,
    disabled: bool = False,
    **attributes: Value | Sequence[Value],
) -> Entry:
    """An OpenPGP certificate in a keyspace, as gpg writes it. `subkeys`: fingerprints; `schema` 1 knows neither."""
    short = _key_id(fingerprint)
    entry: dict[str, Value | Sequence[Value]] = {
        "objectClass": "pgpKeyInfo",
        "pgpCertID": short,
        "pgpKeyID": short[-8:],
        "pgpUserID": [f"Somebody <{a}>" for a in addresses],
        "pgpSubKeyID": [_key_id(s) for s in subkeys],
        "pgpDisabled": "1" if disabled else "0",
        "pgpRevoked": "0",
    }
    if key is not None:
        entry["pgpKey"] = key
    if schema == 2:
        entry |= {"gpgFingerprint": fingerprint, "gpgSubFingerprint": list(subkeys), "gpgMailbox": list(addresses)}
    entry |= attributes
    return f"pgpCertID={short},{keyspace}", {name: value for name, value in entry.items() if value != []}


def reference(dn: str, url: str) -> Entry:
    """An entry that sends searchers to another server (RFC 3296)."""
    kind, _, value = dn.partition(",")[0].partition("=")
    return dn, {"objectClass": ["referral", "extensibleObject"], kind: value, "ref": url}


def dn_value(text: str) -> str:
    """An attribute value for a DN (RFC 4514 section 2.4), everything but letters and digits as `\\xx`."""
    return "".join(c if c.isalnum() and c.isascii() else "".join(f"\\{o:02x}" for o in c.encode()) for c in text)


def ldif(entries: Iterable[Entry]) -> str:
    """Entries as LDIF (RFC 2849), every value in base64."""
    blocks = []
    for dn, attributes in entries:
        lines = [f"dn:: {_base64(dn)}" if dn else "dn:"]
        for name, values in attributes.items():
            for value in [values] if isinstance(values, str | bytes) else values:
                lines.append(f"{name}:: {_base64(value)}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _base64(value: Value) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def _key_id(fingerprint: str) -> str:
    return fingerprint[-16:] if len(fingerprint) == 40 else fingerprint[:16]


def _suffixes(entries: Sequence[Entry]) -> list[str]:
    names = [dn for dn, _ in entries]
    return [dn for dn in names if not any(dn != other and _below(dn, other) for other in names)]


def _below(dn: str, other: str) -> bool:
    return dn.lower() == other.lower() or dn.lower().endswith("," + other.lower())


def _schema() -> str:
    lines = [f"attributetype ( {oid} NAME '{name}' {rest} )" for oid, name, rest in _ATTRIBUTES]
    return "\n".join([*lines, *(f"objectclass {text}" for text in _CLASSES)]) + "\n"


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        raise RuntimeError(f"{name} is not installed (Debian package slapd)")
    return path
