"""Names, questions and answers of DANE, without a network."""

from __future__ import annotations

import contextlib
import struct
import time

import dns.flags
import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.model import Kind, Malformed
from keyserver.query import ByAddress, parse
from keyserver.upstreams.dane.message import MAX_RECORDS, Question, certificate_in, hashed, question_for, read
from keyserver.upstreams.dane.transport import answers
from support.nameserver import Asked, alias, record, reply

HUGH = "c93f1e400f26708f98cb19d936620da35eec8f72e57f9eec01c1afd6"


def question(address: str, kind: Kind = Kind.OPENPGP) -> Question:
    query = parse(address, kind)
    assert isinstance(query, ByAddress)
    found = question_for(query)
    assert found is not None
    return found


def asked(question: Question) -> Asked:
    return Asked(dns.message.from_wire(question.octets()), "tcp", 1)


def test_the_vectors_of_the_documents() -> None:
    """RFC 7929 section 3, RFC 8162 section 3."""
    assert question("hugh@example.com").name.to_text() == f"{HUGH}._openpgpkey.example.com."
    assert question("hugh@example.com").type == 61
    assert question("hugh@example.com", Kind.X509).name.to_text() == f"{HUGH}._smimecert.example.com."
    assert question("hugh@example.com", Kind.X509).type == 53


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("Hugh@Example.COM", "hugh@example.com"),
        ('"hugh"@example.com', "hugh@example.com"),
        ('"hugh\\ x"@example.com', '"hugh x"@example.com'),
        ("jo\u0308rg@example.com", "jörg@example.com"),
        ("hugh@M\u00fcller.example", "hugh@xn--mller-kva.example"),
    ],
)
def test_one_address_has_one_name(written: str, same: str) -> None:
    assert question(written) == question(same)


def test_quotes_are_no_part_of_what_is_hashed() -> None:
    """RFC 7929 section 3: enclosing quotes and literal quoting are removed."""
    assert question('"hugh x"@example.com').name.labels[0].decode() == hashed("hugh x")
    assert hashed('"a\\"b\\\\c"') == hashed('a"b\\c')


def test_a_domain_too_long_for_the_name_has_none() -> None:
    labels = ".".join(["a" * 60] * 3)
    assert question_for(ByAddress("hugh", f"{labels}.example")) is None
    assert question_for(ByAddress("hugh", ".".join(["a" * 60] * 2) + ".example")) is not None


def test_what_is_asked() -> None:
    ids = set()
    for checked in (True, False):
        message = dns.message.from_wire(question("hugh@example.com").octets(checked=checked))
        assert message.flags & (dns.flags.RD | dns.flags.AD | dns.flags.QR) == dns.flags.RD | dns.flags.AD
        assert bool(message.flags & dns.flags.CD) is not checked
        assert message.ednsflags & dns.flags.DO
        assert message.payload == 1232
        ids.add(message.id)
    assert len({question("hugh@example.com").octets()[:2] for _ in range(50)} | ids) > 40


def test_an_answer_is_matched_to_its_question() -> None:
    q = question("hugh@example.com").octets()
    good = reply(Asked(dns.message.from_wire(q), "udp", 1)).to_wire()
    assert answers(q, good)
    assert answers(q, good[:12] + good[12:].replace(b"example", b"eXamPLE"))
    wrong = [
        b"",
        good[:11],
        bytes([good[0] ^ 1]) + good[1:],  # another ID
        good[:2] + bytes([good[2] & 0x7F]) + good[3:],  # a question
        good[:2] + bytes([good[2] | 0x28]) + good[3:],  # another opcode
        good[:4] + b"\0\2" + good[6:],  # two questions
        good[:4] + b"\0\0" + good[6:],  # none, and yet no error
        good.replace(b"example", b"exampla"),
        good.replace(b"\0\x3d\0\1", b"\0\x10\0\1"),  # another type
        good[:40],
    ]
    assert [answers(q, octets) for octets in wrong] == [False] * len(wrong)
    assert answers(q, q[:2] + bytes([0x81, 0x05]) + bytes(8)), "REFUSED by a server that repeats nothing"


def test_records_are_taken_at_the_name_or_where_its_aliases_lead() -> None:
    q = question("hugh@example.com")
    name = q.name.to_text()
    own, elsewhere = record(name, "OPENPGPKEY", b"one"), record("there.test.", "OPENPGPKEY", b"two")
    for sets, found in (
        ([own], [b"one"]),
        ([elsewhere], []),
        ([alias(name, "there.test."), elsewhere], [b"two"]),
        ([elsewhere, alias("b.test.", "there.test."), alias(name, "b.test.")], [b"two"]),
        ([alias(name, "nowhere.test."), elsewhere], []),
    ):
        answer = read(q, reply(asked(q), *sets).to_wire())
        assert [certificate_in(r) for r in answer.records] == found


@pytest.mark.parametrize("names", [["a."], ["a.", "b."], [f"n{i}." for i in range(40)]])
def test_aliases_without_end(names: list[str]) -> None:
    q = question("hugh@example.com")
    chain = [q.name.to_text(), *names]
    sets = [alias(one, other) for one, other in zip(chain, [*chain[1:], names[0]], strict=True)]
    with pytest.raises(Malformed, match="aliases without end"):
        read(q, reply(asked(q), *sets).to_wire())


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (bytes([3, 0, 0]) + b"DER", b"DER"),
        (bytes([1, 0, 0]) + b"DER", b"DER"),
        (bytes([0, 0, 0]) + b"DER", b""),  # an authority
        (bytes([2, 0, 0]) + b"DER", b""),
        (bytes([3, 1, 0]) + b"DER", b""),  # a public key
        (bytes([3, 0, 1]) + bytes(32), b""),  # a hash
        (bytes([3, 1, 2]) + bytes(64), b""),
        (bytes([255, 0, 0]) + b"DER", b""),
    ],
)
def test_only_a_whole_certificate_of_a_person_counts(data: bytes, found: bytes) -> None:
    q = question("chris@example.com", Kind.X509)
    (one,) = read(q, reply(asked(q), record(q.name.to_text(), "SMIMEA", data)).to_wire()).records
    assert certificate_in(one) == found


def test_a_record_that_cannot_be_read_spoils_no_other() -> None:
    q = question("chris@example.com", Kind.X509)
    short_hash, good = bytes([3, 0, 1]) + b"short", bytes([3, 0, 0]) + b"DER"
    answer = read(q, reply(asked(q), record(q.name.to_text(), "SMIMEA", short_hash, good)).to_wire())
    assert answer.damaged
    assert [certificate_in(r) for r in answer.records] == [b"DER"]


def test_a_message_that_ends_early_denies_nothing() -> None:
    q = question("hugh@example.com")
    whole = reply(asked(q), record(q.name.to_text(), "OPENPGPKEY", b"octets")).to_wire()
    for length in range(12, len(whole)):
        try:
            answer = read(q, whole[:length])
        except Malformed:
            continue
        assert answer.damaged or answer.records, length


def test_more_records_than_anybody_needs_are_not_read() -> None:
    q = question("hugh@example.com")
    most = record(q.name.to_text(), "OPENPGPKEY", *(struct.pack("!H", n) for n in range(MAX_RECORDS - 1)))
    assert len(read(q, reply(asked(q), most).to_wire(max_size=65535)).records) == MAX_RECORDS - 1
    many = record(q.name.to_text(), "OPENPGPKEY", *(struct.pack("!H", n) for n in range(1000)))
    with pytest.raises(Malformed, match="more than 256 records"):
        read(q, reply(asked(q), many).to_wire(max_size=65535))


def test_names_that_point_at_themselves_or_everywhere_are_read_in_no_time() -> None:
    q = question("hugh@example.com")
    head = bytearray(reply(asked(q)).to_wire()[:12])
    head[6:12] = struct.pack("!3H", 255, 0, 0)
    section = q.octets()[12:-11]
    start = 12 + len(section)
    ladder = b"\1a" + b"".join(b"\1a" + struct.pack("!H", 0xC000 | 12) for _ in range(50))
    for name in (struct.pack("!H", 0xC000 | start), struct.pack("!H", 0xFFFF), ladder):
        rest = (name + struct.pack("!HHIH", 5, 1, 0, len(name)) + name) * 255
        began = time.perf_counter()
        with contextlib.suppress(Malformed):
            read(q, bytes(head) + section + rest[: 65535 - start])
        assert time.perf_counter() - began < 1


@given(st.binary(max_size=200), st.integers(0, 200))
def test_whatever_comes_is_read_or_malformed(noise: bytes, at: int) -> None:
    q = question("hugh@example.com")
    whole = reply(asked(q), record(q.name.to_text(), "OPENPGPKEY", b"octets"), alias("a.", "b.")).to_wire()
    at = 12 + at % (len(whole) - 12)
    for octets in (whole[:at] + noise, whole[:at] + noise + whole[at + len(noise) :], whole[:12] + noise):
        with contextlib.suppress(Malformed):
            read(q, octets)
