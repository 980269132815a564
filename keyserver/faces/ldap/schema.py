"""What the directory knows of attributes and object classes: names, rules, and the subschema that says so.

Attributes of OpenPGP entries follow GnuPG's schema (doc/ldap/gnupg-ldap-schema.ldif, version 2), those of people
RFC 4519, 2798 and 4523, and Active Directory's (MS-ADA). An attribute that is known here but in no entry is false in a
filter, an unknown one undefined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, auto
from functools import lru_cache

from keyserver.query import parse_address
from keyserver.wire.dn import TYPES, Dn, parse_dn
from keyserver.wire.ldap_text import prepare

REMEMBERED = 256  # addresses last read: a filter has the same one many times


class Rule(Enum):
    """How values of an attribute are compared."""

    TEXT = auto()  # without case, spaces collapsed (RFC 4518)
    HEX = auto()  # as text; `0x` before it is tolerated
    ADDRESS = auto()  # as text, and an address by its normalised form
    PROXY = auto()  # as an address, behind `smtp:`
    CLASS = auto()  # object class names and OIDs
    CATEGORY = auto()  # an object class, by its name or by the DN of its description
    TIME = auto()  # generalized time
    BOOLEAN = auto()  # TRUE or FALSE (RFC 4517 section 3.3.3); read in either case
    NONE = auto()  # not at all: only presence can be asked


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute type. `written` is its name in answers."""

    key: str
    written: bytes
    oid: str
    rule: Rule
    syntax: str = "15"  # below 1.3.6.1.4.1.1466.115.121.1.
    pieces: bool = True  # may be asked for by substrings
    ordered: bool = False
    operational: bool = False
    asked_only: bool = False  # given only when asked for by name
    single: bool = False
    binary: bool = False  # may carry the option `;binary` (RFC 4522)


def _a(name: str, oid: str, rule: Rule = Rule.TEXT, **more: bool | str) -> Attribute:
    return Attribute(name.lower(), name.encode(), oid, rule, **more)  # type: ignore[arg-type]


_PGP, _GPG = "1.3.6.1.4.1.3401.8.2.", "1.3.6.1.4.1.11591.2.4.1."
_PILOT, _NETSCAPE = "0.9.2342.19200300.100.1.", "2.16.840.1.113730.3.1."
_MICROSOFT = "1.2.840.113556.1."
_CAN_ENCRYPT, _CERTIFICATE = (  # UUIDs of our own (ITU-T X.667), unregistered
    "2.25.199660594409512629373420944291166133754",
    "2.25.91088173857795864663774000232562444440",
)

_PRESENT = (
    _a("objectClass", "2.5.4.0", Rule.CLASS, syntax="38", pieces=False),
    _a("cn", "2.5.4.3"),
    _a("sn", "2.5.4.4"),
    _a("givenName", "2.5.4.42"),
    _a("displayName", _NETSCAPE + "241", single=True),
    _a("mail", _PILOT + "3", Rule.ADDRESS, syntax="26"),
    _a("uid", _PILOT + "1", Rule.HEX),
    Attribute("usercertificate", b"userCertificate;binary", "2.5.4.36", Rule.NONE, "8", False, binary=True),
    _a("userSMIMECertificate", _NETSCAPE + "40", Rule.NONE, syntax="5", pieces=False, binary=True),
    _a("dc", _PILOT + "25", syntax="26", single=True),
    _a("c", "2.5.4.6", syntax="11", single=True),
    _a("o", "2.5.4.10"),
    _a("ou", "2.5.4.11"),
    _a("pgpBaseKeySpaceDN", _PGP + "8", Rule.NONE, syntax="12", pieces=False, single=True),
    _a("pgpSoftware", _PGP + "9", Rule.NONE, pieces=False, single=True),
    _a("pgpVersion", _PGP + "10", Rule.NONE, pieces=False, single=True),
    _a("pgpKey", _PGP + "11", Rule.NONE, syntax="26", pieces=False, single=True),
    _a("pgpCertID", _PGP + "12", Rule.HEX, single=True),
    _a("pgpDisabled", _PGP + "13", pieces=False, single=True),
    _a("pgpKeyID", _PGP + "14", Rule.HEX, single=True),
    _a("pgpKeyType", _PGP + "15", single=True),
    _a("pgpUserID", _PGP + "16"),
    _a("pgpKeyCreateTime", _PGP + "17", ordered=True, single=True),
    _a("pgpRevoked", _PGP + "19", pieces=False, single=True),
    _a("pgpSubKeyID", _PGP + "20", Rule.HEX),
    _a("pgpKeySize", _PGP + "21", ordered=True),
    _a("pgpKeyExpireTime", _PGP + "22", ordered=True, single=True),
    _a("gpgFingerprint", _GPG + "1", Rule.HEX),
    _a("gpgSubFingerprint", _GPG + "2", Rule.HEX),
    _a("gpgMailbox", _GPG + "3", Rule.ADDRESS),
    _a("keyserverCanEncrypt", _CAN_ENCRYPT, Rule.BOOLEAN, syntax="7", pieces=False, single=True),
    # PGP.com's names; their OIDs are nowhere published, so the subschema leaves them out
    _a("pgpKeyV2", "", Rule.NONE, pieces=False, asked_only=True),
    _a("baseKeySpaceDN", "", Rule.NONE, pieces=False),
    _a("version", ""),
    _a("software", ""),
    # where Active Directory and mail servers keep addresses: for filters, and for who asks by name
    _a("userPrincipalName", _MICROSOFT + "4.656", Rule.ADDRESS, asked_only=True),
    _a("proxyAddresses", _MICROSOFT + "2.210", Rule.PROXY, asked_only=True),
    _a("targetAddress", _MICROSOFT + "2.206", Rule.PROXY, asked_only=True),
    _a("otherMailbox", _MICROSOFT + "4.651", Rule.ADDRESS, asked_only=True),
    _a("email", "1.2.840.113549.1.9.1", Rule.ADDRESS, syntax="26", asked_only=True),
    _a("mailLocalAddress", _NETSCAPE + "13", Rule.ADDRESS, syntax="26", asked_only=True),
    _a("mailNickname", _MICROSOFT + "2.447", single=True, asked_only=True),
    _a("mozillaSecondEmail", "", Rule.ADDRESS, asked_only=True),
    _a("objectCategory", _MICROSOFT + "4.782", Rule.CATEGORY, syntax="12", pieces=False, single=True, asked_only=True),
    # of the directory itself (RFC 4512 sections 3.4, 4.2, 5.1; RFC 3045)
    _a("modifyTimestamp", "2.5.18.2", Rule.TIME, syntax="24", pieces=False, ordered=True, operational=True),
    _a("subschemaSubentry", "2.5.18.10", Rule.NONE, syntax="12", pieces=False, operational=True),
    _a("namingContexts", "1.3.6.1.4.1.1466.101.120.5", Rule.NONE, syntax="12", pieces=False, operational=True),
    _a("supportedLDAPVersion", "1.3.6.1.4.1.1466.101.120.15", syntax="27", pieces=False, operational=True),
    _a("supportedExtension", "1.3.6.1.4.1.1466.101.120.7", syntax="38", pieces=False, operational=True),
    _a("supportedControl", "1.3.6.1.4.1.1466.101.120.13", syntax="38", pieces=False, operational=True),
    _a("supportedFeatures", "1.3.6.1.4.1.4203.1.3.5", syntax="38", pieces=False, operational=True),
    _a("vendorName", "1.3.6.1.1.4", syntax="15", operational=True),
    _a("vendorVersion", "1.3.6.1.1.5", syntax="15", operational=True),
    _a("attributeTypes", "2.5.21.5", Rule.NONE, syntax="3", pieces=False, operational=True),
    _a("objectClasses", "2.5.21.6", Rule.NONE, syntax="37", pieces=False, operational=True),
)
_ABSENT = (  # what mail programs also ask for: known, and in no entry of ours
    _a("title", "2.5.4.12"),
    _a("description", "2.5.4.13"),
    _a("telephoneNumber", "2.5.4.20", syntax="50"),
    _a("mobile", _PILOT + "41", syntax="50"),
    _a("homePhone", _PILOT + "20", syntax="50"),
    _a("l", "2.5.4.7"),
    _a("st", "2.5.4.8"),
    _a("street", "2.5.4.9"),
    _a("postalCode", "2.5.4.17"),
    _a("departmentNumber", _NETSCAPE + "2"),
    _a("employeeNumber", _NETSCAPE + "3", single=True),
    _a("initials", "2.5.4.43"),
    _a("physicalDeliveryOfficeName", "2.5.4.19"),
    _a("serialNumber", "2.5.4.5"),
    _a("pgpSignerID", _PGP + "18"),
    _a("sAMAccountName", _MICROSOFT + "4.221", single=True),
    _a("sAMAccountType", _MICROSOFT + "4.302", syntax="27", pieces=False, ordered=True, single=True),
    _a("userAccountControl", _MICROSOFT + "4.8", syntax="27", pieces=False, ordered=True, single=True),
    _a("groupType", _MICROSOFT + "4.750", syntax="27", pieces=False, ordered=True, single=True),
    _a("legacyExchangeDN", _MICROSOFT + "4.655", single=True),
    _a("showInAddressBook", _MICROSOFT + "4.644", syntax="12", pieces=False),
    _a("msExchHideFromAddressLists", _MICROSOFT + "4.7000.102.73", syntax="7", pieces=False, single=True),
    _a("memberOf", _MICROSOFT + "2.102", syntax="12", pieces=False),
    _a("company", _MICROSOFT + "2.146", single=True),
    _a("department", _MICROSOFT + "2.141", single=True),
    Attribute("cacertificate", b"cACertificate;binary", "2.5.4.37", Rule.NONE, "8", False, binary=True),
)
NEVER = frozenset(a.key for a in _ABSENT)
"""Keys of attributes that no entry of ours has."""

KNOWN = {a.key: a for a in (*_PRESENT, *_ABSENT)}
_NAMES = KNOWN | {a.oid: a for a in KNOWN.values() if a.oid}
_NAMES |= {
    alias: KNOWN[key]
    for alias, key in (
        ("commonname", "cn"),
        ("surname", "sn"),
        ("gn", "givenname"),
        ("rfc822mailbox", "mail"),
        ("emailaddress", "email"),
        ("pkcs9email", "email"),
        ("mailalternateaddress", "maillocaladdress"),
        ("userid", "uid"),
        ("domaincomponent", "dc"),
        ("organizationname", "o"),
        ("organizationalunitname", "ou"),
        ("countryname", "c"),
        ("localityname", "l"),
        ("stateorprovincename", "st"),
        ("streetaddress", "street"),
    )
}
_RDN_TYPES = TYPES | {name: attribute.key for name, attribute in _NAMES.items()}
ADDRESSES = frozenset(a.key for a in KNOWN.values() if a.rule in (Rule.ADDRESS, Rule.PROXY))
"""Keys of attributes that hold addresses."""

CLASSES = {
    "top": "2.5.6.0",
    "person": "2.5.6.6",
    "organizationalperson": "2.5.6.7",
    "inetorgperson": "2.16.840.1.113730.3.2.2",
    "user": _MICROSOFT + "5.9",
    "pkiuser": "2.5.6.21",
    "domain": "0.9.2342.19200300.100.4.13",
    "organization": "2.5.6.4",
    "organizationalunit": "2.5.6.5",
    "country": "2.5.6.2",
    "subschema": "2.5.20.1",
    "extensibleobject": "1.3.6.1.4.1.1466.101.120.111",
    "pgpserverinfo": _PGP + "23",
    "pgpkeyinfo": _PGP + "24",
    "keyservercertificate": _CERTIFICATE,
}
_CLASS_OF_OID = {oid: name for name, oid in CLASSES.items()}
_OBJECT_CLASSES = (
    "( 2.5.6.0 NAME 'top' ABSTRACT MUST objectClass )",
    "( 2.5.6.6 NAME 'person' SUP top STRUCTURAL MUST ( sn $ cn ) MAY ( telephoneNumber $ description ) )",
    "( 2.5.6.7 NAME 'organizationalPerson' SUP person STRUCTURAL MAY ( title $ ou $ st $ l ) )",
    "( 2.16.840.1.113730.3.2.2 NAME 'inetOrgPerson' SUP organizationalPerson STRUCTURAL"
    " MAY ( givenName $ displayName $ mail $ uid $ userCertificate $ userSMIMECertificate ) )",
    f"( {_MICROSOFT}5.9 NAME 'user' SUP top AUXILIARY MAY ( userPrincipalName $ proxyAddresses $ targetAddress $"
    " otherMailbox $ email $ mailLocalAddress $ mailNickname $ objectCategory ) )",
    "( 2.5.6.21 NAME 'pkiUser' SUP top AUXILIARY MAY userCertificate )",
    f"( {_PGP}23 NAME 'pgpServerInfo' DESC 'An OpenPGP public keyblock store' SUP top STRUCTURAL"
    " MUST ( cn $ pgpBaseKeySpaceDN ) MAY ( pgpSoftware $ pgpVersion ) )",
    f"( {_PGP}24 NAME 'pgpKeyInfo' DESC 'An OpenPGP public keyblock' SUP top STRUCTURAL MUST ( pgpCertID $ pgpKey )"
    " MAY ( pgpDisabled $ pgpKeyID $ pgpKeyType $ pgpUserID $ pgpKeyCreateTime $ pgpSignerID $ pgpRevoked $"
    " pgpSubKeyID $ pgpKeySize $ pgpKeyExpireTime $ gpgFingerprint $ gpgSubFingerprint $ gpgMailbox ) )",
    f"( {_CERTIFICATE} NAME 'keyserverCertificate' DESC 'Can anybody encrypt with it now?' SUP top AUXILIARY"
    " MUST keyserverCanEncrypt )",
)


def find(description: str) -> tuple[Attribute, bool] | None:
    """(attribute, asked with `;binary`) of an attribute description, by name or OID; None for what we do not know,
    an option that the attribute does not take included (RFC 4512 section 2.5)."""
    if found := _NAMES.get(description.lower()):
        return found, False
    name, *options = description.lower().split(";")
    attribute = _NAMES.get(name)
    if attribute is None or options != ["binary"] or not attribute.binary:
        return None
    return attribute, True


def read_dn(text: str) -> Dn:
    """A distinguished name, its types by any name or OID known here. Raises BadDn."""
    return parse_dn(text, _RDN_TYPES)


@lru_cache(REMEMBERED)
def address_form(text: str) -> str | None:
    """An address as it is compared: prepared but for its case, which is the address rule's affair (`ß` stays)."""
    return parse_address(prepare(text, case=True).strip(" "))


def proxy_form(text: str) -> str | None:
    """An address behind `smtp:` in either case, or without it, as proxy addresses are compared."""
    address = address_form(_SMTP.sub("", text))
    return f"smtp:{address}" if address else None


def normal(rule: Rule, value: bytes) -> str | None:
    """A value in the form in which values of its attribute are equal, or None where its syntax does not admit it."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    if rule is Rule.TIME:
        return _time(text)
    prepared = prepare(text).strip(" ")
    if rule is Rule.BOOLEAN:
        return prepared if prepared in ("true", "false") else None
    if rule is Rule.HEX:
        return prepared.removeprefix("0x")
    if rule is Rule.ADDRESS:
        return address_form(text) or prepared
    if rule is Rule.PROXY:
        return proxy_form(text) or prepared
    if rule is Rule.CLASS:
        return _CLASS_OF_OID.get(prepared, prepared)
    if rule is Rule.CATEGORY:
        return _category(text)
    return prepared


_SMTP = re.compile(r"\A\s*smtp:", re.IGNORECASE)
_TIME = re.compile(r"(\d{10})(\d\d)?(\d\d)?(?:[.,](\d{1,6})\d*)?(Z|[+-]\d{2}(?:\d{2})?)\Z", re.ASCII)


def _time(text: str) -> str | None:
    """Generalized time (RFC 4517 section 3.3.13) as text that sorts; fractions of hours and minutes are not read."""
    match = _TIME.match(text)
    if not match:
        return None
    hours, minutes, seconds, fraction, zone = match.groups()
    try:
        instant = datetime.strptime(f"{hours}{minutes or '00'}{seconds or '00'}", "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        if zone != "Z":
            ahead = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:] or 0))
            instant = instant.replace(tzinfo=timezone(ahead if zone[0] == "+" else -ahead)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return f"{instant:%Y%m%d%H%M%S}.{(fraction or '').ljust(6, '0')}"


def _category(text: str) -> str:
    """What an object is, as Active Directory compares it: its users are of the category of persons."""
    named = _COMMON_NAME.match(text)
    name = prepare(named[1] if named else text).strip(" ")
    return "person" if name in _PERSONS else name


_COMMON_NAME = re.compile(r"\s*cn\s*=([^,]*)", re.IGNORECASE)
_PERSONS = frozenset({"user", "contact", "inetorgperson", "organizational-person", "organizationalperson"})


def attribute_types() -> Iterator[bytes]:
    """The subschema's descriptions of attributes (RFC 4512 section 4.1.2)."""
    rules = {
        Rule.TEXT: "caseIgnoreMatch",
        Rule.HEX: "caseIgnoreMatch",
        Rule.ADDRESS: "caseIgnoreMatch",
        Rule.PROXY: "caseIgnoreMatch",
        Rule.CATEGORY: "distinguishedNameMatch",
        Rule.CLASS: "objectIdentifierMatch",
        Rule.TIME: "generalizedTimeMatch",
        Rule.BOOLEAN: "booleanMatch",
    }
    for a in KNOWN.values():
        if not a.oid:
            continue
        name = a.written.decode().partition(";")[0]
        parts = [a.oid, f"NAME '{name}'"]
        if a.rule in rules:
            parts.append(f"EQUALITY {rules[a.rule]}")
        if a.ordered:
            parts.append(f"ORDERING {'generalizedTime' if a.rule is Rule.TIME else 'caseIgnore'}OrderingMatch")
        if a.pieces:
            parts.append("SUBSTR caseIgnoreSubstringsMatch")
        parts.append(f"SYNTAX 1.3.6.1.4.1.1466.115.121.1.{a.syntax}")
        if a.single:
            parts.append("SINGLE-VALUE")
        if a.operational:
            parts.append("NO-USER-MODIFICATION USAGE directoryOperation")
        yield f"( {' '.join(parts)} )".encode()


def object_classes() -> tuple[bytes, ...]:
    """The subschema's descriptions of object classes."""
    return tuple(text.encode() for text in _OBJECT_CLASSES)
