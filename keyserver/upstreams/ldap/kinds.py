"""What kind of directory this is, which filter it understands, and where certificates stand in its entries.

A keyspace is found as GnuPG does it (dirmngr's LDAP engine): the rootDSE names the contexts, `cn=pgpServerInfo` below
one of them says where keys are and by which schema; commercial keyservers have `cn=pgpServerInfo` at the root.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from keyserver.model import Fault, Found, Kind, Raw
from keyserver.openpgp.armor import read_armor
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText, Query, spellings
from keyserver.upstreams.ldap.link import LdapResult, LinkError

BASE, SUBTREE = "BASE", "SUBTREE"
ANYTHING = "(objectClass=*)"
SERVER_INFO = "cn=pgpServerInfo"
ACTIVE_DIRECTORY = "1.2.840.113556.1.4.800"  # in supportedCapabilities, MS-ADTS section 3.1.1.3.4.3
MAX_CONTEXTS = 8  # naming contexts that are looked into
MAX_VALUES = 200  # certificates of one answer
MAX_DN = 1024  # characters
NO_CERTIFICATE = "a value that is no certificate"
_ROOT_ATTRIBUTES = ("namingContexts", "defaultNamingContext", "supportedCapabilities")
_INFO_ATTRIBUTES = ("pgpBaseKeySpaceDN", "pgpVersion", "pgpSoftware", "baseKeySpaceDN", "version", "software")
_UNABLE = (3, 11, 51, 52, 80)  # results that say nothing about what the server holds

PGP_ATTRIBUTES = ("pgpKey", "pgpKeyV2")
X509_ATTRIBUTES = (
    "userCertificate;binary",
    "userCertificate",
    "userSMIMECertificate;binary",
    "userSMIMECertificate",
)
_PLAIN = re.compile(r"[^A-Za-z0-9@._+=-]")


class Style(StrEnum):
    """The schema of a keyspace."""

    GNUPG_2 = "GnuPG schema 2"
    GNUPG_1 = "GnuPG schema 1"
    PGP = "PGP.com style"
    NONE = "no OpenPGP keyspace"


@dataclass(frozen=True, slots=True)
class Directory:
    """What was found out about a server."""

    style: Style = Style.NONE
    keyspace: str = ""  # the DN below which keys are
    contexts: tuple[str, ...] = ()  # its naming contexts, the default one first
    active_directory: bool = False


class SearchCall(Protocol):
    """One search; see `Link.search`."""

    def __call__(
        self, base: str, scope: str, text: str, attributes: Sequence[str], *, via: str = "", paged: bool = False
    ) -> LdapResult: ...


def discover(search: SearchCall, base: str, *, keyspace: bool = True) -> Directory:
    """Find out what a server is; `base` is the DN in its URL. Without `keyspace` only its contexts are looked at.

    Raises LinkError, also for results that mean "ask later": nothing is concluded from those.
    """
    root = _able(search("", BASE, ANYTHING, _ROOT_ATTRIBUTES))
    contexts = _texts(root, "defaultnamingcontext") + _texts(root, "namingcontexts")
    contexts = list(dict.fromkeys(c for c in contexts if c))[:MAX_CONTEXTS]
    active = ACTIVE_DIRECTORY in _texts(root, "supportedcapabilities")
    places = [base, parent(base)] if base else contexts
    style, where = Style.NONE, ""
    for info in [*(f"{SERVER_INFO},{place}" for place in places if place), SERVER_INFO] if keyspace else []:
        style, where = _keyspace(_able(search(info, BASE, ANYTHING, _INFO_ATTRIBUTES)), rooted=info == SERVER_INFO)
        if style is not Style.NONE:
            break
    return Directory(style, where, tuple(contexts), active)


def parent(dn: str) -> str:
    """The DN above: what follows the first comma that is not escaped or quoted (RFC 4514 section 2.4), or ""."""
    quoted = escaped = False
    for at, character in enumerate(dn):
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            return dn[at + 1 :].strip()
    return ""


def escape(value: str) -> str:
    """A value for a filter (RFC 4515 section 3): everything outside a small alphabet as `\\xx`, so nothing can act."""
    return _PLAIN.sub(lambda found: "".join(f"\\{octet:02x}" for octet in found[0].encode("utf-8", "replace")), value)


def openpgp_filter(query: Query, style: Style) -> str | None:
    """The filter that asks this keyspace, or None: it cannot be asked that."""
    match query:
        case ByFingerprint(fingerprint=fingerprint) if style is Style.GNUPG_2:
            return f"(|(gpgFingerprint={escape(fingerprint)})(gpgSubFingerprint={escape(fingerprint)}))"
        case ByFingerprint(fingerprint=fingerprint):
            # v4: the last 64 bits, v6: the first (RFC 9580 section 5.5.4); the resolver checks the fingerprint
            found = _by_key_id(fingerprint[-16:] if len(fingerprint) == 40 else fingerprint[:16])
        case ByKeyId(key_id=key_id):
            found = _by_key_id(key_id)
        case ByAddress():
            return _by_address(query, style)
        case ByText(text=text):
            found = f"(pgpUserID=*{escape(text)}*)"
        case _:
            return None
    return f"(&{found}(pgpDisabled=0))" if style is Style.PGP else found


def x509_filter(query: ByAddress, template: str, active_directory: bool) -> str:
    """The filter that asks for an address's certificates: the configured one, or what the directory understands."""
    if template:
        return fill(template, query)
    return fill("(|(mail={address})(proxyAddresses=smtp:{address}))" if active_directory else "(mail={address})", query)


def fill(template: str, query: ByAddress) -> str:
    """A filter with `{address}`, `{local}` and `{domain}` put in, escaped, in each spelling of the domain."""

    def filled(spelling: ByAddress) -> str:
        parts = {"address": spelling.address, "local": spelling.local, "domain": spelling.domain}
        return re.sub(r"\{(address|local|domain)\}", lambda found: escape(parts[found[1]]), template)

    return _any(filled(spelling) for spelling in spellings(query))


def base_name(attribute: str) -> str:
    """An attribute's lower-case name without options (`;binary`, Active Directory's `;range=0-1499`)."""
    return attribute.partition(";")[0].lower()


def holds_openpgp(attribute: str) -> bool:
    """Whether an attribute is one of those that hold OpenPGP certificates."""
    return base_name(attribute).startswith("pgpkey")


def openpgp_values(replies: Iterable[LdapResult], attributes: Sequence[str] = PGP_ATTRIBUTES) -> Found:
    """The OpenPGP certificates in entries, each octet sequence once, and which values could not be read.

    A value is armored text, as GnuPG's schema has it, or binary (`read_armor` takes both).
    """
    found: dict[bytes, None] = {}
    damaged: list[str] = []
    for value in _values(replies, attributes):
        armored = read_armor(value)
        found |= dict.fromkeys(armored.blocks)
        damaged += armored.damaged or (() if armored.blocks else (NO_CERTIFICATE,))
        if len(found) + len(damaged) >= MAX_VALUES:
            break
    return Found(tuple(Raw(Kind.OPENPGP, octets) for octets in found), tuple(dict.fromkeys(damaged)))


def x509_values(replies: Iterable[LdapResult], attributes: Sequence[str] = X509_ATTRIBUTES) -> Found:
    """The X.509 certificates (DER) and PKCS#7 blobs in entries, each once; damaged where there are other values alone.

    Both begin with a SEQUENCE. Exchange's own tag and length records in userSMIMECertificate (MS-OXOABK) do not, and
    may stand beside certificates.
    """
    values = list(itertools.islice(_values(replies, attributes), MAX_VALUES))
    found = dict.fromkeys(value for value in values if value[0] == 0x30)
    damaged = (NO_CERTIFICATE,) if values and not found else ()
    return Found(tuple(Raw(Kind.X509, octets) for octets in found), damaged)


def _values(replies: Iterable[LdapResult], attributes: Sequence[str]) -> Iterable[bytes]:
    wanted = {base_name(attribute) for attribute in attributes}
    for reply in replies:
        for entry in reply.entries:
            for name, values in entry.items():
                if base_name(name) in wanted:
                    yield from (value for value in values if value)


def _by_key_id(key_id: str) -> str:
    return f"(|(pgpCertID={escape(key_id)})(pgpSubKeyID={escape(key_id)}))"


def _by_address(query: ByAddress, style: Style) -> str:
    """Disabled keys are left out, revoked ones are not: their revocations are news."""
    if style is Style.PGP:
        return f"(&{fill('(pgpUserID=*<{address}>*)', query)}(pgpDisabled=0))"
    if style is Style.GNUPG_2:
        return f"(&{fill('(gpgMailbox={address})', query)}(!(pgpDisabled=1)))"
    return f"(&{fill('(|(pgpUserID=*<{address}>*)(pgpUserID={address}))', query)}(!(pgpDisabled=1)))"


def _any(filters: Iterable[str]) -> str:
    parts = list(filters)
    return parts[0] if len(parts) == 1 else f"(|{''.join(parts)})"


def _keyspace(reply: LdapResult, *, rooted: bool) -> tuple[Style, str]:
    """What a server-info entry announces. GnuPG speaks schema 2 only with software `GnuPG` and a version above 1."""
    named = _texts(reply, "pgpbasekeyspacedn")
    where = next(iter(named + _texts(reply, "basekeyspacedn")), "")
    if not where or len(where) > MAX_DN:
        return Style.NONE, ""
    if rooted or not named:
        return Style.PGP, where
    software = next(iter(_texts(reply, "pgpsoftware")), "").strip().lower()
    version = re.match(r"\s*(\d{1,6})", next(iter(_texts(reply, "pgpversion")), ""))
    if software == "gnupg" and version and int(version[1]) > 1:
        return Style.GNUPG_2, where
    return Style.GNUPG_1, where


def _texts(reply: LdapResult, name: str) -> list[str]:
    return [v.decode("utf-8", "replace")[:MAX_DN] for entry in reply.entries[:1] for v in entry.get(name, [])]


def _able(reply: LdapResult) -> LdapResult:
    if reply.code in _UNABLE and not reply.entries:
        raise LinkError(reply.reason, Fault.BUSY if reply.code == 51 else Fault.TRANSIENT)
    return reply
