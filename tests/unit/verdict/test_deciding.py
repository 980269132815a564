"""What counts as yes, no and unknown, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyserver import openpgp, smime
from keyserver.domains import DomainRule
from keyserver.model import (
    PASSED_OVER,
    Answer,
    Answered,
    Certificate,
    Entry,
    How,
    Kind,
    Source,
    State,
    Step,
    Voucher,
)
from keyserver.usable import ends_by, unusable
from keyserver.verdict.deciding import REJECTED, Kinds, Policy, Word, decide
from keyserver.verdict.named import NamedPolicy
from support import x509
from support.openpgp import CREATED, Made, make

NOW = CREATED + 100_000
DAY = 86400
ALICE = "alice@example.org"
FINE = make([f"Alice <{ALICE}>"], seed="alice")
SIGN_ONLY = make([f"Alice <{ALICE}>"], encryption=None, seed="sign only")
EXPIRED = make([f"Alice <{ALICE}>"], expires=1000, seed="expired")
REVOKED = make([f"Alice <{ALICE}>"], revoked=1, revoked_at=CREATED + 10, seed="revoked")
SHORT = make([f"Alice <{ALICE}>"], expires=100_000 + DAY, seed="short")
SHORT_SUBKEY = make([f"Alice <{ALICE}>"], subkey_expires=100_000 + DAY, seed="short subkey")


def entry(fingerprint: str, kind: Kind = Kind.OPENPGP, **given: object) -> Entry:
    values: dict[str, object] = {
        "source": Source.KEYSERVER,
        "origin": "ubuntu",
        "cached_at": NOW - 5,
        "seen_at": NOW - 5,
    }
    return Entry(fingerprint=fingerprint, kind=kind, octets=b"", **{**values, **given})  # type: ignore[arg-type]


def pgp(made: Made, **given: object) -> Answered:
    (certificate,) = openpgp.clean(made.octets, NOW)
    assert isinstance(certificate, Certificate)
    return Answered(certificate, (entry(certificate.fingerprint, **given),))


def mail(**given: object) -> Answered:
    (certificate,) = smime.clean(x509.person(ALICE, begins=CREATED, ends=CREATED + 1000 * DAY).der, NOW)
    assert isinstance(certificate, Certificate), certificate
    return Answered(certificate, (entry(certificate.fingerprint, Kind.X509, **given),))


def found(*certificates: Answered, **given: object) -> Answer:
    names = frozenset({"n"})
    answer = Answer(State.FOUND, How.HIT, "cached", tuple(certificates), names, until=NOW + 900, keep=True)
    return replace(answer, **given)  # type: ignore[arg-type]


ABSENT = Answer(State.ABSENT, How.MISS, "it answered 404", names=frozenset({"a"}), until=NOW + 60, keep=True)
FAILED = Answer(State.FAILED, How.MISS, "it is down", final=False, missing=("ubuntu",))
OPENPGP = Policy(kinds=Kinds.OPENPGP)


def test_yes_says_which_certificate_and_where_it_is_from() -> None:
    verdict = decide(ALICE, OPENPGP, {Kind.OPENPGP: found(pgp(FINE))}, NOW)
    assert verdict.word is Word.YES
    (one,) = verdict.certificates
    assert (one.fingerprint, one.source, one.origin, one.since) == (
        FINE.fingerprint,
        Source.KEYSERVER,
        "ubuntu",
        NOW - 5,
    )
    assert (verdict.keep, verdict.until, verdict.names) == (True, NOW + 900, frozenset({"n"}))


@pytest.mark.parametrize(
    ("made", "why"),
    [(SIGN_ONLY, "no key for encryption"), (EXPIRED, "expired"), (REVOKED, "revoked")],
    ids=["sign only", "expired", "revoked"],
)
def test_what_cannot_encrypt_is_no_yes_and_the_reason_is_said(made: Made, why: str) -> None:
    verdict = decide(ALICE, OPENPGP, {Kind.OPENPGP: found(pgp(made))}, NOW)
    assert (verdict.word, verdict.certificates) == (Word.NO, ())
    assert why in verdict.reason
    assert made.fingerprint in verdict.reason
    assert decide(ALICE, OPENPGP, {Kind.OPENPGP: found(pgp(made), pgp(FINE))}, NOW).word is Word.YES


def test_nobody_has_one_is_no_and_a_silent_upstream_is_unknown() -> None:
    none = decide(ALICE, OPENPGP, {Kind.OPENPGP: ABSENT}, NOW)
    assert (none.word, none.reason, none.until) == (Word.NO, "nobody has a certificate for it", NOW + 60)
    unknown = decide(ALICE, OPENPGP, {Kind.OPENPGP: FAILED}, NOW)
    assert (unknown.word, unknown.reason, unknown.missing, unknown.keep) == (
        Word.UNKNOWN,
        "it is down",
        ("ubuntu",),
        False,
    )


def test_no_is_reject_where_the_rule_of_its_domain_says_so() -> None:
    rule = DomainRule("example.org", must_encrypt=True, reject_text="call us: +49 1")
    rejected = decide(ALICE, OPENPGP, {Kind.OPENPGP: ABSENT}, NOW, rule)
    assert (rejected.word, rejected.text, rejected.keep) == (Word.REJECT, "call us: +49 1", True)
    assert rejected.reason == "nobody has a certificate for it; the rule for example.org lets no mail leave in clear"
    named = NamedPolicy(OPENPGP, "smtp:[gateway]")
    assert named.told(rejected) == "error:5.7.1 call us: +49 1"
    assert decide(ALICE, OPENPGP, {Kind.OPENPGP: ABSENT}, NOW, replace(rule, reject_text="")).text == REJECTED
    assert decide(ALICE, OPENPGP, {Kind.OPENPGP: FAILED}, NOW, rule).word is Word.UNKNOWN
    assert decide(ALICE, OPENPGP, {Kind.OPENPGP: found(pgp(FINE))}, NOW, rule).word is Word.YES
    assert decide(ALICE, OPENPGP, {Kind.OPENPGP: ABSENT}, NOW, DomainRule("example.org")).word is Word.NO


def test_what_is_known_and_of_no_use_is_unknown_where_a_better_one_may_be_elsewhere() -> None:
    silent = {"final": False, "keep": False, "missing": ("ubuntu",)}
    assert decide(ALICE, OPENPGP, {Kind.OPENPGP: found(pgp(EXPIRED), **silent)}, NOW).word is Word.UNKNOWN
    assert decide(ALICE, OPENPGP, {Kind.OPENPGP: found(pgp(FINE), **silent)}, NOW).word is Word.YES


def test_what_is_cached_and_passed_over_is_the_reason() -> None:
    step = Step(0.1, "cache", PASSED_OVER, "ABCD: seen in mail whose sender was not authenticated")
    verdict = decide(ALICE, OPENPGP, {Kind.OPENPGP: replace(ABSENT, steps=(step,))}, NOW)
    assert "sender was not authenticated" in verdict.reason


FOUND_PGP, FOUND_MAIL = found(pgp(FINE)), found(mail())


@pytest.mark.parametrize(
    ("kinds", "pgp_", "mail_", "word"),
    [
        (Kinds.EITHER, FOUND_PGP, ABSENT, Word.YES),
        (Kinds.EITHER, ABSENT, FOUND_MAIL, Word.YES),
        (Kinds.EITHER, FOUND_PGP, FAILED, Word.YES),
        (Kinds.EITHER, ABSENT, FAILED, Word.UNKNOWN),
        (Kinds.EITHER, ABSENT, ABSENT, Word.NO),
        (Kinds.BOTH, FOUND_PGP, FOUND_MAIL, Word.YES),
        (Kinds.BOTH, FOUND_PGP, FAILED, Word.UNKNOWN),
        (Kinds.BOTH, FOUND_PGP, ABSENT, Word.NO),
        (Kinds.BOTH, FAILED, ABSENT, Word.NO),
        (Kinds.BOTH, FAILED, FAILED, Word.UNKNOWN),
    ],
)
def test_kinds_together(kinds: Kinds, pgp_: Answer, mail_: Answer, word: Word) -> None:
    verdict = decide(ALICE, Policy(kinds=kinds), {Kind.OPENPGP: pgp_, Kind.X509: mail_}, NOW)
    assert verdict.word is word
    assert bool(verdict.certificates) == (word is Word.YES)


BY_GATEWAY = found(pgp(FINE, source=Source.LOCAL, origin="admin"), by_domain="example.org")
GATEWAY_IN_VAIN = replace(ABSENT, by_domain="example.org")
GATEWAY_FAILED = replace(FAILED, by_domain="example.org")
IN_VAIN = replace(ABSENT, in_vain=True)


@pytest.mark.parametrize(
    ("kinds", "mail_", "word"),
    [
        (Kinds.EITHER, ABSENT, Word.YES),
        (Kinds.EITHER, GATEWAY_IN_VAIN, Word.YES),
        (Kinds.EITHER, GATEWAY_FAILED, Word.YES),
        (Kinds.EITHER, FAILED, Word.UNKNOWN),
        (Kinds.EITHER, IN_VAIN, Word.NO),
        (Kinds.BOTH, ABSENT, Word.NO),
        (Kinds.BOTH, FOUND_MAIL, Word.NO),
        (Kinds.BOTH, GATEWAY_FAILED, Word.UNKNOWN),
        (Kinds.BOTH, replace(FOUND_MAIL, by_domain="example.org"), Word.YES),
    ],
)
def test_a_domains_certificate_counts_only_beside_a_finished_absence(kinds: Kinds, mail_: Answer, word: Word) -> None:
    """Of whatever kind: it takes no mail from an owner who has a certificate, or who may have one."""
    verdict = decide(ALICE, Policy(kinds=kinds), {Kind.OPENPGP: BY_GATEWAY, Kind.X509: mail_}, NOW)
    assert verdict.word is word
    assert {one.by_domain for one in verdict.certificates} == ({"example.org"} if word is Word.YES else set())


def test_an_own_certificate_of_another_kind_takes_its_place() -> None:
    either = decide(ALICE, Policy(), {Kind.OPENPGP: BY_GATEWAY, Kind.X509: FOUND_MAIL}, NOW)
    assert [(one.kind, one.by_domain) for one in either.certificates] == [(Kind.X509, "")]


def test_chained_counts_only_a_certificate_with_a_good_chain() -> None:
    policy = Policy(chained=True)
    loose, good = found(mail()), found(mail(chained=True))
    assert decide(ALICE, policy, {Kind.OPENPGP: FOUND_PGP, Kind.X509: loose}, NOW).word is Word.NO
    assert decide(ALICE, policy, {Kind.OPENPGP: ABSENT, Kind.X509: good}, NOW).word is Word.YES


def test_approved_counts_local_entries_and_approvals_for_this_address() -> None:
    policy = replace(OPENPGP, approved=True)

    def word(**given: object) -> Word:
        return decide(ALICE, policy, {Kind.OPENPGP: found(pgp(FINE, **given))}, NOW).word

    assert word() is Word.NO
    assert word(source=Source.LOCAL) is Word.YES
    assert word(vouchers=(Voucher(ALICE, approved=True),)) is Word.YES
    assert word(vouchers=(Voucher("bob@example.org", approved=True),)) is Word.NO


@pytest.mark.parametrize("made", [SHORT, SHORT_SUBKEY], ids=["certificate", "subkey"])
def test_it_must_still_be_valid_for_so_long_and_the_verdict_turns_when_it_is_not(made: Made) -> None:
    answers = {Kind.OPENPGP: found(pgp(made), until=NOW + 10 * DAY)}
    week = replace(OPENPGP, valid_for=7 * DAY)
    assert decide(ALICE, week, answers, NOW).word is Word.NO
    hour = decide(ALICE, replace(OPENPGP, valid_for=3600), answers, NOW)
    assert (hour.word, hour.until) == (Word.YES, NOW + DAY - 3600)
    assert decide(ALICE, OPENPGP, answers, NOW).until == NOW + DAY


def test_unusable_at_an_instant() -> None:
    assert not unusable(pgp(FINE).certificate.proof)
    assert not ends_by(pgp(FINE).certificate.proof, NOW, NOW + DAY)
    assert ends_by(pgp(SHORT).certificate.proof, NOW, NOW + DAY) == "it expires"
    assert ends_by(pgp(SHORT_SUBKEY).certificate.proof, NOW, NOW + DAY) == "its key for encryption expires"
