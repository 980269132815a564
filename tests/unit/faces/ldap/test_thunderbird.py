"""What Thunderbird 153 sent, octet by octet, as tests/clients/test_thunderbird.py has it send."""

from __future__ import annotations

import pytest

from support.ldap_client import Client
from support.ldap_memory import Memory, serving
from support.x509 import person

ALICE, BOB, CAROL = (person(f"{name}@partner.example") for name in ("alice", "bob", "carol"))
BIND, UNBIND = bytes.fromhex("300c02010160070201030400 8000"), bytes.fromhex("3005 0201034200")
UNWILLING = 53

BASE = "041564633d6b65797365727665722c64633d6c6f63616c0a01020a0100"
TYPED = {
    "alice@partner.example": f"""3081b602010263 81b0 {BASE} 020164 020100 010100 a18185
        a41d0402636e30178115616c69636540706172746e65722e6578616d706c65
        a41f04046d61696c30178115616c69636540706172746e65722e6578616d706c65
        a4240409676976656e4e616d6530178115616c69636540706172746e65722e6578616d706c65
        a41d0402736e30178115616c69636540706172746e65722e6578616d706c65 3000""",
    "alice": f"""3074020102636f {BASE} 020164 020100 010100 a145
        a40d0402636e30078105616c696365 a40f04046d61696c30078105616c696365
        a4140409676976656e4e616d6530078105616c696365 a40d0402736e30078105616c696365 3000""",
    "alice partner": f"""30818e0201026381 88 {BASE} 020164 020100 010100 a15e
        a4160402636e30108105616c6963658107706172746e6572 a41704046d61696c300f810d616c69636520706172746e6572
        a4140409676976656e4e616d6530078105616c696365 a4150402736e300f810d616c69636520706172746e6572 3000""",
}
"""Of a recipient: the search while it is typed."""

ATTRIBUTES = "301804167573657263657274696669636174653b62696e617279"
ONE = f"""3064020102635f {BASE} 020102 020100 010100
    a31d04046d61696c0415616c69636540706172746e65722e6578616d706c65 {ATTRIBUTES}"""
FOUR = f"""3081c3020102 6381bd {BASE} 020108 020100 010100 a17b
    a31d04046d61696c0415616c69636540706172746e65722e6578616d706c65
    a31b04046d61696c0413626f6240706172746e65722e6578616d706c65
    a31e04046d61696c04166e6f626f647940706172746e65722e6578616d706c65
    a31d04046d61696c04156361726f6c40706172746e65722e6578616d706c65 {ATTRIBUTES}"""


def asked(search: str) -> tuple[int, list[dict[str, list[bytes]]]]:
    """The code, and the attributes of each entry; ends as Thunderbird ends it."""
    with serving(Memory(ALICE.der, BOB.der, CAROL.der)) as face, Client(face.port) as client:
        client.socket.sendall(BIND)
        assert client.result().code == 0
        client.socket.sendall(bytes.fromhex(search))
        answer = client.finish()
        client.socket.sendall(UNBIND)
        assert client.closed()
        return answer.code, [entry.attributes for entry in answer.entries]


def test_a_typed_address_is_completed() -> None:
    code, [entry] = asked(TYPED["alice@partner.example"])
    assert code == 0
    assert (entry["mail"], entry["cn"]) == ([b"alice@partner.example"], [b"Alice"])


@pytest.mark.parametrize("typed", ["alice", "alice partner"])
def test_parts_of_names_are_refused_which_it_shows_as_no_match(typed: str) -> None:
    assert asked(TYPED[typed]) == (UNWILLING, [])


def test_the_certificates_of_recipients_are_fetched() -> None:
    assert asked(ONE) == (0, [{"userCertificate;binary": [ALICE.der]}])
    code, entries = asked(FOUR)
    assert code == 0
    assert sorted(entry["userCertificate;binary"] for entry in entries) == sorted([x.der] for x in (ALICE, BOB, CAROL))
