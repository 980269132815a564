"""Name constraints bind every address that a certificate is found by, in whatever form it stands there.

The chains are real; openssl gives its verdict on each, and where ours differs the table says who is right.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography import x509

from keyserver import smime
from support import x509odd
from support.x509 import BEGINS, EMAIL, YEAR, Issued, authority, issue, name, rsa_key

NOW = BEGINS + YEAR
ROOT = authority("Root")
ANCHORS = smime.Anchors([ROOT.certificate])
MAILBOX = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.9")


def utf8(address: str) -> x509.OtherName:
    """An SmtpUTF8Mailbox."""
    octets = address.encode()
    return x509.OtherName(MAILBOX, bytes((12, len(octets))) + octets)


def mail(text: str) -> x509.RFC822Name:
    return x509.RFC822Name._init_without_validation(text)


def host(text: str) -> x509.DNSName:
    return x509.DNSName(text)


def subject(**parts: str) -> x509.Name:
    return name("Bob", **parts)


def principal(text: str) -> x509.OtherName:
    octets = text.encode()
    return x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), bytes((12, len(octets))) + octets)


def directory(**parts: str) -> x509.DirectoryName:
    return x509.DirectoryName(subject(**parts))


Names = Sequence[x509.GeneralName]


class Case(NamedTuple):
    permitted: Names
    excluded: Names
    names: Names
    subject: x509.Name
    good: bool
    openssl: str = ""  # why its verdict is another


HERE, BOB = mail("evil.com"), subject()
PARTNER = subject(email="bob@partner.example")
INSIDE = subject(email="bob@evil.com")
COMPANY = directory(organization="Evil  inc")
EMPLOYEE = subject(organization="EVIL Inc", email="bob@evil.com")
DOT = "openssl 3.0 knows no leading dot for an SmtpUTF8Mailbox"
LOCAL = "openssl knows no mailboxes for an SmtpUTF8Mailbox; RFC 9598 section 6 only deprecates them"
CLOSED = "fails closed: what cannot be compared is refused"
CASE = "we index local parts in lower case, so that they are compared so"

CASES: dict[str, Case] = {
    # the ways past a CA that is constrained to evil.com
    "inside": Case([HERE], [], [mail("bob@evil.com")], BOB, True),
    "plainly outside": Case([HERE], [], [mail("bob@partner.example")], BOB, False),
    "outside as SmtpUTF8Mailbox": Case([HERE], [], [utf8("bob@partner.example")], BOB, False),
    "outside as SmtpUTF8Mailbox beside one inside": Case(
        [HERE], [], [mail("bob@evil.com"), utf8("bób@partner.example")], BOB, False
    ),
    "outside in the subject beside a DNS name": Case([HERE], [], [host("evil.com")], PARTNER, False),
    "outside in the subject beside a URI": Case(
        [HERE], [], [x509.UniformResourceIdentifier("https://evil.com/")], PARTNER, False
    ),
    "outside in the subject, nothing beside": Case([HERE], [], [], PARTNER, False),
    "outside in the subject beside an address inside": Case([HERE], [], [mail("bob@evil.com")], PARTNER, False),
    "no address beside one inside": Case([HERE], [], [mail("bob@evil.com"), mail("nobody")], BOB, False),
    "outside by an otherName nobody reads": Case([HERE], [], [mail("b@evil.com"), principal("b@x.example")], BOB, True),
    "inside as SmtpUTF8Mailbox": Case([HERE], [], [utf8("bób@evil.com")], BOB, True),
    "inside in the subject beside a DNS name": Case([HERE], [], [host("evil.com")], INSIDE, True),
    "inside in the subject, nothing beside": Case([HERE], [], [], INSIDE, True),
    # hosts, domains, mailboxes
    "a host is not what is below it": Case([HERE], [], [utf8("bob@sub.evil.com")], BOB, False),
    "nor what ends like it": Case([HERE], [], [utf8("bob@notevil.com")], BOB, False),
    "a domain is what is below it": Case([mail(".evil.com")], [], [mail("bob@sub.evil.com")], BOB, True),
    "a domain, in the subject": Case([mail(".evil.com")], [], [], subject(email="bob@sub.evil.com"), True),
    "a domain, as SmtpUTF8Mailbox": Case([mail(".evil.com")], [], [utf8("bób@sub.evil.com")], BOB, True, DOT),
    "a domain is not its host": Case([mail(".evil.com")], [], [utf8("bob@evil.com")], BOB, False),
    "hosts without case": Case([mail("EVIL.com")], [], [utf8("bób@Evil.Com")], BOB, True),
    "a mailbox": Case([mail("bob@evil.com")], [], [mail("bob@evil.com")], BOB, True),
    "a mailbox, as SmtpUTF8Mailbox": Case([mail("bob@evil.com")], [], [utf8("bob@evil.com")], BOB, True, LOCAL),
    "another mailbox": Case([mail("bob@evil.com")], [], [utf8("carol@evil.com")], BOB, False),
    "a mailbox in another case": Case([mail("Bob@evil.com")], [], [], subject(email="bob@evil.com"), True, CASE),
    "A-label and U-label": Case([mail("xn--mller-kva.example")], [], [utf8("bób@müller.example")], BOB, True),
    "A-label and another U-label": Case([mail("xn--mller-kva.example")], [], [utf8("bób@möller.example")], BOB, False),
    "any of several": Case([mail("other.example"), HERE], [], [utf8("bób@evil.com")], BOB, True),
    "none of several": Case([mail("other.example"), HERE], [], [utf8("bób@third.example")], BOB, False),
    # what is excluded
    "excluded host": Case([], [mail("partner.example")], [utf8("bób@partner.example")], BOB, False),
    "excluded host, other case": Case([], [mail("PARTNER.example")], [utf8("bób@partner.example")], BOB, False),
    "excluded host, in the subject": Case([], [mail("partner.example")], [host("evil.com")], PARTNER, False),
    "excluded domain": Case([], [mail(".example")], [mail("bob@partner.example")], BOB, False),
    "excluded domain, as SmtpUTF8Mailbox": Case([], [mail(".example")], [utf8("bób@a.example")], BOB, False, DOT),
    "excluded mailbox": Case([], [mail("bob@partner.example")], [], PARTNER, False),
    "excluded mailbox, other case": Case([], [mail("BOB@partner.example")], [], PARTNER, False, CASE),
    "not excluded": Case([], [mail("partner.example")], [utf8("bób@evil.com")], BOB, True),
    "excluded within permitted": Case([mail(".evil.com")], [mail("x.evil.com")], [utf8("b@x.evil.com")], BOB, False),
    "excluded: all": Case([], [mail("")], [utf8("bób@evil.com")], BOB, False, CLOSED),
    "excluded: what is no host": Case([], [mail("..")], [utf8("bób@evil.com")], BOB, False, CLOSED),
    "excluded: an asterisk": Case([], [mail("*.partner.example")], [mail("b@x.partner.example")], BOB, False, CLOSED),
    "permitted: what is no host": Case([mail("")], [], [utf8("bób@evil.com")], BOB, False),
    "permitted: what is no mailbox": Case([mail("@evil.com")], [], [utf8("bób@evil.com")], BOB, False),
    # constraints of other forms
    "a host name's constraint binds no address": Case([host("evil.com")], [], [mail("b@partner.example")], BOB, True),
}


def chain(case: Case, critical: bool = True) -> tuple[Issued, Issued]:
    """A CA below the root with these constraints, and what it issued."""
    constraint = x509.NameConstraints(case.permitted or None, case.excluded or None)
    middle = authority("Middle", ROOT, extensions=[(constraint, critical)])
    usage = "digital_signature key_encipherment"
    leaf = issue(case.subject, issuer=middle, emails=case.names, key=rsa_key(), usage=usage, eku=EMAIL)
    return middle, leaf


def openssl_verifies(folder: Path, middle: Issued, leaf: Issued, root: Issued = ROOT) -> bool:
    for issued, file in ((root, "root.pem"), (middle, "middle.pem"), (leaf, "leaf.pem")):
        (folder / file).write_bytes(issued.pem)
    words = ["-attime", str(NOW), "-CAfile", str(folder / "root.pem"), "-untrusted", str(folder / "middle.pem")]
    done = subprocess.run(["openssl", "verify", *words, str(folder / "leaf.pem")], capture_output=True, text=True)
    return done.returncode == 0


@pytest.mark.parametrize("which", CASES)
def test_verdicts_beside_those_of_openssl(which: str, tmp_path: Path) -> None:
    case = CASES[which]
    middle, leaf = chain(case)
    assert ANCHORS.chained(leaf.der, [middle.der], NOW) is case.good
    theirs = openssl_verifies(tmp_path, middle, leaf)
    assert (theirs is not case.good) is bool(case.openssl), f"openssl says {theirs}"


@pytest.mark.parametrize("which", CASES)
def test_constraints_of_the_anchor_itself_and_of_two_cas(which: str) -> None:
    case = CASES[which]
    constraint = x509.NameConstraints(case.permitted or None, case.excluded or None)
    root = authority("Narrow root", extensions=[(constraint, False)])
    below, lower = authority("Below", root), None
    lower = authority("Lower", below)
    usage = "digital_signature key_encipherment"
    for issuer in (root, below, lower):
        leaf = issue(case.subject, issuer=issuer, emails=case.names, key=rsa_key(), usage=usage, eku=EMAIL)
        assert smime.Anchors([root.certificate]).chained(leaf.der, [below.der, lower.der], NOW) is case.good


@pytest.mark.parametrize(
    ("permitted", "excluded", "names", "who", "good"),
    [
        ([COMPANY], [], [mail("bob@evil.com")], EMPLOYEE, True),
        ([COMPANY], [], [host("evil.com")], EMPLOYEE, True),
        ([COMPANY], [], [host("evil.com")], subject(organization="Partner", email="bob@partner.example"), False),
        ([COMPANY], [], [], PARTNER, False),
        ([], [COMPANY], [], EMPLOYEE, False),
        ([], [COMPANY], [], subject(organization="Partner", email="bob@partner.example"), True),
        ([COMPANY], [], [mail("b@evil.com"), directory(organization="Partner")], EMPLOYEE, False),
        ([utf8("bob@evil.com")], [], [mail("bob@evil.com")], BOB, True),
        ([utf8("evil.com")], [], [mail("bob@partner.example")], BOB, False),
        ([], [utf8("partner.example")], [mail("bob@partner.example")], BOB, False),
        ([HERE, utf8("partner.example")], [], [mail("bob@partner.example")], BOB, False),  # each form by itself
        ([principal("evil.com")], [], [mail("b@evil.com"), principal("b@x.example")], BOB, False),
        ([principal("evil.com")], [], [mail("b@evil.com")], BOB, True),
        ([x509.UniformResourceIdentifier("evil.com")], [], [mail("b@evil.com")], BOB, True),
        (
            [x509.UniformResourceIdentifier("evil.com")],
            [],
            [mail("b@evil.com"), x509.UniformResourceIdentifier("https://evil.com/")],
            BOB,
            False,
        ),
    ],
)
def test_forms_that_the_library_leaves_out(
    permitted: Names, excluded: Names, names: Names, who: x509.Name, good: bool
) -> None:
    """Not critical, as the library refuses all critical constraints of these forms, whatever they say."""
    middle, leaf = chain(Case(permitted, excluded, names, who, good), critical=False)
    assert ANCHORS.chained(leaf.der, [middle.der], NOW) is good


@pytest.mark.parametrize(
    "value",
    [
        "30 0E A0 0C 30 0A 81 05 612E636F6D 80 01 01",  # a minimum
        "30 0E A0 0C 30 0A 81 05 612E636F6D 81 01 05",  # a maximum
        "30 0B A0 09 30 07 81 09 612E636F6D",  # cut off
        "30 0B A2 09 30 07 81 05 612E636F6D",  # neither permitted nor excluded
        "04 01 61",
    ],
)
def test_constraints_that_cannot_be_read_allow_nothing(value: str) -> None:
    constraint = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.30"), bytes.fromhex(value))
    middle = authority("Middle", ROOT, extensions=[(constraint, False)])
    leaf = issue(BOB, issuer=middle, emails=["bob@a.com"], key=rsa_key(), eku=EMAIL)
    assert not ANCHORS.chained(leaf.der, [middle.der], NOW)


def test_many_cas_with_many_constraints_are_soon_done_with() -> None:
    """Hundreds of subtrees are honest, thousands are refused; and both by sixty CAs at once."""
    usual, flood = ([mail(f"{n}.example") for n in range(count)] for count in (500, 2000))
    inside, outside = [mail("bob@499.example")], [utf8(f"bób{n}@partner.example") for n in range(100)]
    for permitted, found, good in ((usual, inside, True), (usual, outside, False), (flood, inside, False)):
        middle, leaf = chain(Case(permitted, [], found, BOB, good))
        constraint = x509.NameConstraints(permitted, None)
        others = [authority("Middle", ROOT, key=middle.key, extensions=[(constraint, True)]).der for _ in range(60)]
        begun = time.process_time()
        assert smime.Anchors([ROOT.certificate]).chained(leaf.der, [middle.der, *others], NOW) is good
        assert time.process_time() - begun < 2.0


def test_another_path_that_is_not_constrained_is_taken() -> None:
    """A second certificate of the same CA without the constraint may vouch (RFC 5280 section 6)."""
    case = CASES["outside as SmtpUTF8Mailbox"]
    middle, leaf = chain(case)
    wide = authority("Middle", ROOT, key=middle.key)
    assert smime.Anchors([ROOT.certificate]).chained(leaf.der, [middle.der, wide.der], NOW)


def test_what_the_chain_library_cannot_load_has_no_chain() -> None:
    anchors = smime.Anchors([x509odd.root().certificate])
    corpus = x509odd.corpus()
    now = 1_790_000_000
    for odd in ("control", "subject-bidi", "teletex-latin1", "no-expiry-9999"):
        assert anchors.chained(corpus[odd], [], now)
    for odd in ("critical-false-encoded", "printable-at-sign", "names-twice", "version-7", "names-garbage", "a-ca"):
        assert not anchors.chained(corpus[odd], [], now)
