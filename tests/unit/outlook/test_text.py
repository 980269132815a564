"""The report in words: what is said, what is hidden, and that nothing hostile comes through."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes, policy

import pytest

from keyserver.model import Kind
from keyserver.outlook.pace import Slower
from keyserver.outlook.report import Report, ending_of, lists_of, no_longer_of, partner_of
from keyserver.outlook.text import SHOWN, mail_of, subject_of, text_of, told
from keyserver.resolver.revoked import Standing
from keyserver.store.recipients import DAY, Coverage, Ending, Lost

NOW = 1_800_000_000
FINGERPRINT = "AB" * 20
ENDING = Ending(FINGERPRINT, Kind.OPENPGP, NOW + 10 * DAY, "it expires", "partner.example", ("a@partner.example",), 3)
LOST = Lost("partner.example", NOW - DAY, FINGERPRINT, "it is revoked", "b@partner.example")
LIST = Standing("http://ca.example/crl", "Example CA", False, 1, NOW - 8 * DAY, NOW - DAY, NOW, 2, True, "it says 404")
EMPTY = Report(NOW, 30, True, (), (), (), (), ())
FULL = replace(
    EMPTY,
    ending=(ending_of(ENDING),),
    no_longer=no_longer_of([LOST], []),
    partners=(partner_of(Coverage("partner.example", 10, 6, 2, 2)), partner_of(Coverage("", 5, 0, 0, 5))),
    upstreams=(Slower("hkp", True, 900, 200, True, 0.25, 0.01, 100),),
    lists=tuple(lists_of([LIST], NOW)),
)


def test_what_ended_unasked_is_said_of_each_address_in_words_of_whatever_node() -> None:
    older = replace(ENDING, until=NOW - 2 * DAY, addresses=("a@partner.example", "c@partner.example"))
    newer = replace(ENDING, until=NOW, cause="its ink fades", addresses=())
    found = no_longer_of([LOST], [older, newer])
    assert [(one.since, one.identities, one.reason) for one in found] == [
        (NOW, (), "its ink fades"),
        (NOW - DAY, ("b@partner.example",), "it is revoked"),
        (NOW - 2 * DAY, ("a@partner.example",), "it is expired"),
        (NOW - 2 * DAY, ("c@partner.example",), "it is expired"),
    ]


def test_every_part_is_said() -> None:
    text = text_of(FULL, "gw1", str)
    for line in (
        "1 certificate in use ends in the next 30 days.",
        "- 2027-01-25 (in 10 days): a@partner.example and 2 more: it expires",
        f"  {FINGERPRINT}",
        "- b@partner.example, since 2027-01-14: it is revoked",
        "- partner.example: 6 of 10 (75%), 2 not known yet",
        "- all others: 0 of 5, 5 not known yet",
        "- hkp: answers take 900 ms (median; 200 ms before), 25% of questions fail (1% before)",
        "- Example CA: ended on 2027-01-14; it says 404",
    ):
        assert line in text.splitlines()
    assert subject_of(FULL) == "Keyserver: 1 certificate in use ends in the next 30 days"


def test_nothing_to_say_is_said() -> None:
    assert "Nothing ends in the next 30 days." in text_of(EMPTY, "gw1", str)
    assert "No recipient was asked for" in text_of(replace(EMPTY, known=False), "gw1", str)
    assert "in the next 1 day." in text_of(replace(EMPTY, days=1), "gw1", str)
    assert subject_of(EMPTY) == "Keyserver: nothing ends in the next 30 days"


def test_identities_go_by_the_logs_rule() -> None:
    text = text_of(FULL, "gw1", lambda text: f"#{len(text)}")
    said = str(told(FULL, lambda text: f"#{len(text)}"))
    for whole in (text, said):
        assert "a@" not in whole
        assert "b@" not in whole
        assert FINGERPRINT not in whole
        assert "#17" in whole
        assert "partner.example" in whole


def test_long_sections_are_cut_and_counted() -> None:
    many = replace(FULL, no_longer=no_longer_of([LOST] * (SHOWN + 7), []))
    assert "- and 7 more" in text_of(many, "gw1", str).splitlines()
    assert text_of(many, "gw1", str).count("- b@partner.example") == SHOWN


@pytest.mark.parametrize("hostile", ["x\r\nBcc: evil@example.org", "\u202egro.evil", "ü" * 400, "y" * 5000])
def test_hostile_names_stay_names(hostile: str) -> None:
    report = replace(FULL, ending=(ending_of(replace(ENDING, addresses=(hostile,), cause=hostile)),))
    octets = mail_of(report, text_of(report, "gw1", str), "keys@example.net", "ops@example.net")
    mail = message_from_bytes(octets, policy=policy.SMTP)
    assert mail["Bcc"] is None
    assert mail["To"] == "ops@example.net"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    assert octets.isascii()
    text = mail.get_content()
    assert "\u202e" not in text
    assert not any(line.startswith("Bcc") for line in text.splitlines())


@pytest.mark.parametrize(
    ("issued", "ends", "problem", "named"),
    [
        (-DAY, DAY, "", False),
        (-20 * 3600, 3600, "", True),  # in the last tenth of a day, and none has followed
        (-9 * DAY, DAY - 1, "", True),
        (-90 * DAY, DAY + 1, "", False),
        (-DAY, DAY - 1, "it says 404", True),
        (-DAY, 2 * DAY, "it says 404", False),
    ],
)
def test_lists_that_are_about_to_be_stale(issued: int, ends: int, problem: str, named: bool) -> None:
    one = replace(LIST, issued=NOW + issued, ends=NOW + ends, stale=False, problem=problem)
    assert bool(lists_of([one], NOW)) is named


def test_a_list_that_was_never_had() -> None:
    [one] = lists_of([replace(LIST, issued=0, ends=0)], NOW)
    assert one.stale
    assert "has not been had yet" in text_of(replace(EMPTY, lists=(one,)), "gw1", str)


def test_a_share_is_of_those_known() -> None:
    assert partner_of(Coverage("x", 10, 3, 1, 6)).share == 0.75
    assert partner_of(Coverage("x", 10, 0, 0, 10)).share == 0.0
