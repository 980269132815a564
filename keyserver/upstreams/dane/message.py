"""Questions and answers of DANE for mail (RFC 7929, RFC 8162) as DNS messages. Pure."""

from __future__ import annotations

import hashlib
import re
import struct
import unicodedata
from dataclasses import dataclass

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from keyserver.model import Kind, Malformed
from keyserver.query import ByAddress
from keyserver.upstreams.dane.transport import HEADER

PAYLOAD = 1232  # octets of a datagram that no path breaks up (the recommendation of DNS flag day 2020)
MAX_RECORDS = 256  # of one answer, all sections together
MAX_NAMES = 12  # that an alias may lead through (RFC 1034 section 3.6.2, RFC 6672)

PLACES = {
    Kind.OPENPGP: ("_openpgpkey", dns.rdatatype.OPENPGPKEY),
    Kind.X509: ("_smimecert", dns.rdatatype.SMIMEA),
}

_WHOLE = (0, 0)  # selector and matching type of a whole certificate (RFC 6698 sections 2.1.2, 2.1.3)
_END_ENTITY = (1, 3)  # usages PKIX-EE and DANE-EE; 0 and 2 are authorities (RFC 8162 section 2)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the name server."""

    name: dns.name.Name
    type: dns.rdatatype.RdataType

    def octets(self, *, checked: bool = True) -> bytes:
        """A message with a random ID, that asks for DNSSEC records and the AD bit (RFC 6840 section 5.7).

        Not `checked`: for what there is, good or not (the CD bit, RFC 4035 section 3.2.2)."""
        flags = dns.flags.RD | dns.flags.AD | (0 if checked else dns.flags.CD)
        query = dns.message.make_query(self.name, self.type, flags=flags, use_edns=0, want_dnssec=True, payload=PAYLOAD)
        return query.to_wire()


@dataclass(frozen=True, slots=True)
class Answer:
    """What the name server says."""

    rcode: dns.rcode.Rcode
    authentic: bool  # it has checked the signatures: the AD bit (RFC 4035 section 3.2.3)
    records: tuple[dns.rdata.Rdata, ...]  # of the name asked for, or of the one that it is an alias of
    damaged: bool  # something in it could not be read
    errors: tuple[dns.edns.EDECode, ...]  # RFC 8914


ROOT = Question(dns.name.root, dns.rdatatype.SOA)
"""Signed since 2010: who does not say AD to it does not validate."""


def question_for(query: ByAddress) -> Question | None:
    """Where the certificates of an address stand; None where its domain is too long for such a name."""
    label, type_ = PLACES[query.kind]
    try:
        return Question(dns.name.from_text(f"{hashed(query.local)}.{label}.{query.domain}."), type_)
    except dns.name.NameTooLong:
        return None


def hashed(local: str) -> str:
    """The first label: of SHA-256 over the local part, without its quotes, 28 octets (RFC 7929 section 3).

    The RFC hashes what is written; we hash lower case, in which our addresses come, as GnuPG does."""
    if local.startswith('"'):
        local = re.sub(r"\\(.)", r"\1", local[1:-1])
    return hashlib.sha256(unicodedata.normalize("NFC", local).encode()).digest()[:28].hex()


def read(question: Question, octets: bytes) -> Answer:
    """An answer that came to this question. Raises Malformed."""
    if sum(struct.unpack_from("!3H", octets, HEADER - 6)) > MAX_RECORDS:
        raise Malformed(f"more than {MAX_RECORDS} records")
    try:
        # what cannot be read is left out: a domain may hold one record that the library does not like beside good ones
        message = dns.message.from_wire(octets, continue_on_error=True)
        rcode = message.rcode()
        records = _followed(question, message)
    except Malformed:
        raise
    except Exception as error:  # whatever the library may raise over what strangers have written
        raise Malformed(f"a message that cannot be read ({type(error).__name__})") from None
    errors = tuple(option.code for option in message.options if isinstance(option, dns.edns.EDEOption))
    return Answer(rcode, bool(message.flags & dns.flags.AD), records, bool(message.errors), errors)


def certificate_in(record: dns.rdata.Rdata) -> bytes:
    """The octets of the certificate that a record holds whole; empty where it holds none of an end entity."""
    if record.rdtype == dns.rdatatype.OPENPGPKEY:
        return bytes(record.key)  # type: ignore[attr-defined]
    usage, *kind = record.usage, record.selector, record.mtype  # type: ignore[attr-defined]
    return bytes(record.cert) if tuple(kind) == _WHOLE and usage in _END_ENTITY else b""  # type: ignore[attr-defined]


def _followed(question: Question, message: dns.message.Message) -> tuple[dns.rdata.Rdata, ...]:
    """The records asked for, at the name or where its aliases in the same answer lead (a DNAME comes with a CNAME that
    was made by it)."""
    name = question.name
    for _ in range(MAX_NAMES):
        if found := message.get_rrset(message.answer, name, dns.rdataclass.IN, question.type):
            return tuple(found)
        alias = message.get_rrset(message.answer, name, dns.rdataclass.IN, dns.rdatatype.CNAME)
        if not alias:
            return ()
        name = alias[0].target
    raise Malformed("aliases without end")
