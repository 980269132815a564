"""What revocation lists make of a certificate: revoked, good again, or not to be used for want of a list."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.x509 import ReasonFlags

from keyserver.app import hygiene_of
from keyserver.model import Certificate, Entry, Kind, Proof, Source, Validity, View
from keyserver.policy import Terms
from keyserver.query import Query, parse
from keyserver.resolver.revoked import Listed, Revocations, Standing
from keyserver.resolver.select import Selected, select
from keyserver.smime import ber
from keyserver.smime.crl import authority
from keyserver.smime.crl_reading import read_list
from keyserver.store.snapshot import Snapshot
from keyserver.usable import unusable
from support import x509 as made
from support.crls import ENDS, ISSUED, revocation_list

NOW = ISSUED + 1000
CA = made.authority("List CA")
OTHER = made.authority("Other CA")
ALICE = made.person("alice@example.org", CA, serial=7)
REVOKED = "revoked by CN=List CA on 2023-07-22 (key compromise)"


def listed(serials: Iterable[int] = (), *, ca: made.Issued = CA, fatal: bool = False, **options: int) -> Listed:
    of_list = dict.fromkeys(serials, ReasonFlags.key_compromise)
    issuer = authority(ca.der)
    return Listed(issuer, read_list(revocation_list(ca, of_list, **options), issuer, NOW), fatal)


class World:
    """The hygiene of X.509, and the lists behind it."""

    def __init__(self, *lists: Listed) -> None:
        self.revocations = Revocations()
        self.hygiene = hygiene_of(revocations=self.revocations)
        self.revocations.replace(lists)

    def proof(self, certificate: made.Issued = ALICE, now: int = NOW) -> Proof:
        return self.hygiene[Kind.X509].prove(certificate.der, now)

    def select(self, term: str, certificate: made.Issued = ALICE, view: View = View()) -> Selected:
        query: Query = parse(term, Kind.X509)
        entry = Entry(certificate.fingerprint, Kind.X509, certificate.der, Source.LOCAL, "x", NOW - 1, NOW - 1)
        return select(Snapshot((entry,)), query, view, NOW, Terms(), self.hygiene, None)


def test_on_the_list_it_is_revoked_and_answers_its_own_name_only() -> None:
    world = World(listed([7]))
    proof = world.proof()
    assert (proof.validity, proof.can_encrypt, proof.weak) == (Validity.REVOKED, False, frozenset())
    assert unusable(proof) == proof.barred == REVOKED and REVOKED in proof.marks
    selected = world.select("alice@example.org")
    assert not selected.certificates
    assert selected.passed_over == ((ALICE.fingerprint, REVOKED),)
    assert selected.withheld == (f"{ALICE.fingerprint}: {REVOKED}",)
    (answered,) = world.select(f"0x{ALICE.fingerprint}").certificates
    assert answered.certificate.proof.validity is Validity.REVOKED
    assert not world.select(f"0x{ALICE.fingerprint}", view=View(usable_only=True)).certificates
    gateway = View(by_domain=True)
    assert not world.select(f"0x{ALICE.fingerprint}", view=gateway).certificates, "nor for all of a domain"
    assert World().select(f"0x{ALICE.fingerprint}", view=gateway).certificates


def test_no_text_finds_it_either() -> None:
    texts = World(), World(listed([7]))
    found = [world.hygiene[Kind.X509].prove(ALICE.der, NOW) for world in texts]
    assert [proof.barred for proof in found] == ["", REVOKED]
    good, bad = (world.select("Alice") for world in texts)
    assert good.certificates and not bad.certificates


def test_reinstated_it_is_good_again_although_it_was_judged_before() -> None:
    world = World(listed([7]))
    assert world.proof().barred
    world.revocations.replace([listed([8])])
    assert world.proof().validity is Validity.VALID and world.select("alice@example.org").certificates
    world.revocations.replace([listed([7])])
    assert world.proof().barred
    world.revocations.replace([])
    assert not world.proof().barred


def test_only_the_very_key_that_signed_the_list_counts() -> None:
    """Somebody else may call himself List CA: his certificates are no concern of this list, nor this list's his."""
    namesake = made.authority("List CA")
    mallory = made.person("mallory@example.org", namesake, serial=7)
    world = World(listed([7]))
    assert world.proof(mallory).validity is Validity.VALID
    assert World(listed([7], ca=namesake)).proof().validity is Validity.VALID
    both = World(listed([8]), listed([7], ca=namesake))
    assert both.proof().validity is Validity.VALID and both.proof(mallory).validity is Validity.REVOKED
    assert World(listed([7], ca=OTHER)).proof().validity is Validity.VALID


def test_another_wrapper_around_what_was_signed_is_no_way_out() -> None:
    """The outer length written in more octets than it needs: another fingerprint, the same number and signature."""
    inner = ber.first(ALICE.der).content
    odd = b"\x30\x84" + len(inner).to_bytes(4, "big") + inner
    world = World(listed([7]))
    (certificate,) = world.hygiene[Kind.X509].clean(odd, NOW)
    assert isinstance(certificate, Certificate) and certificate.fingerprint != ALICE.fingerprint
    assert world.hygiene[Kind.X509].prove(certificate.octets, NOW).barred == REVOKED


def test_another_authority_later_is_asked_about_certificates_that_are_known() -> None:
    world = World(listed([7], ca=OTHER))
    assert not world.proof().barred
    world.revocations.replace([listed([7], ca=OTHER), listed([7])])
    assert world.proof().barred == REVOKED


def test_two_lists_of_one_authority_count_both() -> None:
    world = World(listed([1]), listed([7]))
    assert world.proof().barred == REVOKED


def test_a_list_whose_end_is_over_is_ignored_or_fatal() -> None:
    issuer = authority(CA.der)
    for fatal in (False, True):
        world = World(listed([8], fatal=fatal))
        assert world.proof(now=ENDS).validity is Validity.VALID
        assert world.proof(now=ENDS).turns == (ENDS + 1 if fatal else ALICE_ENDS + 1)
        over = world.proof(now=ENDS + 1)
        assert over.validity is (Validity.UNVERIFIABLE if fatal else Validity.VALID)
        assert over.can_encrypt is not fatal
        none = World(Listed(issuer, None, fatal)).proof()
        assert bool(none.barred) is fatal
    assert over.barred == "the revocation list of CN=List CA ended on 2032-07-19, and smime.crl says stale = fatal"
    assert none.barred == "no revocation list of CN=List CA is known, and smime.crl says stale = fatal"


def test_what_is_on_a_list_whose_end_is_over_stays_revoked() -> None:
    assert World(listed([7])).proof(now=ENDS + 1).barred == REVOKED


def test_openpgp_is_none_of_its_business_and_an_expired_certificate_stays_expired() -> None:
    world = World(listed([8], fatal=True))
    assert world.proof(now=ALICE_ENDS + 1).validity is Validity.EXPIRED


def test_how_a_list_stands_in_words() -> None:
    standing = Standing("http://crl.example", "CN=List CA", False, 1, ISSUED, ENDS, ISSUED, 0, False, "")
    assert standing.complaint == ""
    over = Standing("http://crl.example", "CN=List CA", False, 1, ISSUED, ENDS, ISSUED, 0, True, "it answered 404")
    assert over.complaint == "the revocation list of CN=List CA ended on 2032-07-19"
    never = Standing("http://crl.example", "CN=List CA", False, 0, 0, 0, 0, 1, True, "it answered 404")
    assert never.complaint == "the revocation list of CN=List CA has not been had yet"


ALICE_ENDS = made.BEGINS + 10 * made.YEAR
