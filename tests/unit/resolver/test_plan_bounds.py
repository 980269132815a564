"""Numbers and bounds of a search's plan: who is asked, what outcomes add up to, and when a host counts as ill."""

from __future__ import annotations

from dataclasses import replace

import pytest

from keyserver.model import Absent, Failed, Fault, Found, Kind, Rate, Raw, UpstreamSpec, View
from keyserver.policy import Terms
from keyserver.query import ByAddress, ByFingerprint, ByKeyId, ByText
from keyserver.resolver.plan import Health, Hold, Question, after, combine, held, rate_of, tiers_of

FAILED, BUSY = Failed("it is down"), Failed("not now", Fault.BUSY, 7.0)
KEY = ByFingerprint("AA" * 20)
ALICE = ByAddress("alice", "x.example")


def ill(*suspects: Question, trips: int = 0, until: float = 0.0) -> Health:
    return Health(suspects, trips, until, "it was down")


def several(n: int, client: str = "x") -> tuple[Question, ...]:
    return tuple(Question(f"q{i}", client) for i in range(n))


@pytest.mark.parametrize(("fault", "differing"), [(Fault.TRANSIENT, 4), (Fault.BUSY, 2), (Fault.CONFIGURATION, 2)])
def test_so_many_different_queries_must_fail(fault: Fault, differing: int) -> None:
    failed = Failed("no", fault)
    few = after(ill(*several(differing - 2)), failed, 100.0, 0.5, Question("new", "x"), alone=True)
    assert (few.trips, few.state(100.0), few.reason) == (0, "closed", "no")
    assert few.suspects == (*several(differing - 2), Question("new", "x"))
    enough = after(ill(*several(differing - 1)), failed, 100.0, 0.5, Question("new", "x"), alone=True)
    assert (enough.trips, enough.state(100.0)) == (1, "open")
    one_network = after(ill(*several(differing - 1)), failed, 100.0, 0.5, Question("new", "x"), alone=False)
    assert one_network.trips == 0
    two = after(ill(*several(differing - 1)), failed, 100.0, 0.5, Question("new", "y"), alone=False)
    assert two.trips == 1


def test_a_question_is_suspected_once_for_each_client_and_the_latest_are_remembered() -> None:
    by = Question("q0", "x")
    health = after(ill(*several(2), Question("q0", "y")), FAILED, 0.0, 0.5, by, alone=False)
    assert health.suspects == (Question("q1", "x"), Question("q0", "y"), by)
    full = after(ill(*several(16, "z")), FAILED, 0.0, 0.5, by, alone=False).suspects
    assert full == (*several(16, "z")[1:], by)


def test_a_pause_doubles_from_five_seconds_to_five_minutes_and_is_spread_by_a_quarter() -> None:
    def pause(trips: int, jitter: float) -> float:
        probe = ill(*several(4), trips=trips, until=50.0)
        closed = after(probe, FAILED, 100.0, jitter, Question("q"), alone=False)
        assert closed.trips == trips + 1
        return closed.closed_until - 100.0

    assert [pause(trips, 0.5) for trips in (0, 1, 2, 5, 6, 7, 100_000)] == [5, 10, 20, 160, 300, 300, 300]
    assert (pause(0, 0.0), pause(0, 1.0)) == (3.75, 6.25)
    probe = ill(*several(2), until=50.0)
    denied = Failed("403", Fault.CONFIGURATION)
    spread = [after(probe, denied, 100.0, j, Question("q"), alone=False).closed_until - 100.0 for j in (0, 0.5, 1)]
    assert spread == [450, 600, 750]
    assert after(probe, BUSY, 100.0, 1.0, Question("q"), alone=False).closed_until == 107.0, "as it has asked for"


def test_who_says_how_often_it_may_be_asked_pauses_at_its_first_not_now() -> None:
    asked = {"by": Question("q"), "alone": False, "counted": True}
    told_off = after(Health(), BUSY, 100.0, 0.5, **asked)  # type: ignore[arg-type]
    assert (told_off.trips, told_off.closed_until) == (1, 107.0)
    assert after(Health(), FAILED, 100.0, 0.5, **asked).trips == 0  # type: ignore[arg-type]
    assert after(Health(), BUSY, 100.0, 0.5, Question("q"), alone=False).trips == 0


def test_while_nobody_asks_it_a_late_failure_changes_no_pause() -> None:
    closed = ill(*several(4), trips=1, until=105.0)
    late = after(closed, FAILED, 104.9, 0.5, Question("late"), alone=True)
    assert (late.trips, late.closed_until, late.suspects[-1]) == (1, 105.0, Question("late"))
    assert after(closed, FAILED, 105.0, 0.5, Question("probe"), alone=True).trips == 2
    probed = after(ill(trips=1, until=105.0), FAILED, 105.0, 0.5, Question("probe"), alone=False)
    assert (probed.trips, probed.closed_until) == (2, 115.0), "one probe is enough, whoever asks"


def test_a_health_is_open_until_its_pause_is_over() -> None:
    assert [Health(closed_until=5.0).state(now) for now in (4.9, 5.0)] == ["open", "half-open"]
    assert Health().state(0.0) == Health().state(1e9) == "closed"


def test_a_query_is_held_from_its_third_failure_in_a_row() -> None:
    assert [held(Hold(failures), FAILED, 100.0) for failures in range(4)] == [
        Hold(1), Hold(2), Hold(3, 105.0), Hold(4, 110.0),
    ]  # fmt: skip
    assert held(Hold(10**6), FAILED, 100.0) == Hold(10**6 + 1, 160.0)
    assert held(Hold(), BUSY, 100.0) == Hold(1, 107.0)


def test_fingerprints_and_key_ids_may_have_a_rate_of_their_own() -> None:
    spec = UpstreamSpec("a", rate=Rate(1, 60), id_rate=Rate(5, 60))
    assert [rate_of(spec, query) for query in (KEY, ByKeyId("AA" * 8), ALICE)] == [
        spec.id_rate, spec.id_rate, spec.rate,
    ]  # fmt: skip
    assert rate_of(replace(spec, id_rate=None), KEY) == spec.rate
    assert rate_of(UpstreamSpec("a", id_rate=spec.id_rate), ALICE) is None
    assert rate_of(UpstreamSpec("a"), KEY) is None


def test_who_is_left_out_of_a_view_and_why() -> None:
    specs = [
        UpstreamSpec("public", 5, required=False),
        UpstreamSpec("owner", 10, by_owner=True),
        UpstreamSpec("lists", 10, domains=("x.example",), required=False),
        UpstreamSpec("other", 1, domains=("y.example", "z.example")),
        UpstreamSpec("x509", 1, kinds=frozenset({Kind.X509})),
    ]
    everybody = tiers_of(specs, ALICE, Terms())
    assert (everybody.names, everybody.optional) == (["public", "owner", "lists"], {"public", "lists"})
    assert [len(tier) for tier in everybody.tiers] == [1, 2]
    assert everybody.left_out == {
        "other": "it is only told addresses of y.example, z.example",
        "x509": "it has no openpgp certificates",
    }
    directory = tiers_of(specs, ALICE, Terms(), View(directory=True))
    assert directory.names == ["owner", "lists"]
    assert "directory" in directory.left_out["public"]
    assert directory.left_out["other"] == everybody.left_out["other"], "the first reason is said"
    domain = View(by_domain=True)
    assert tiers_of(specs, ALICE, Terms(), domain).names == ["lists"]
    by_key = tiers_of(specs, KEY, Terms(), domain)
    assert (by_key.names, by_key.left_out["public"]) == ([], "only local entries count")
    assert by_key.left_out["x509"] == everybody.left_out["x509"]
    assert tiers_of(specs, ByText("alice"), Terms()).names == ["public", "owner"]
    assert tiers_of(specs, KEY, Terms()).names == ["other", "public", "owner", "lists"]


def test_outcomes_add_up_in_the_order_of_the_upstreams() -> None:
    one, two = Raw(Kind.OPENPGP, b"1"), Raw(Kind.OPENPGP, b"2")
    absent = Absent("none")
    assert combine({"a": Found((one,)), "b": FAILED, "c": Found((two,))}) == Found((one, two))
    assert combine({"a": Found(()), "b": absent}) == Found(()), "found, whatever is left of it"
    assert combine({"a": FAILED, "b": BUSY}) == FAILED
    assert combine({"a": absent, "b": absent}) == Absent("every upstream said so")
    assert combine({"a": absent, "b": Absent("loop", remember=False)}) == Absent("every upstream said so", False)
    assert combine({"a": absent, "b": FAILED}, ["a"]) == FAILED, "that it need not speak excuses nobody else"
    both = combine({"a": absent, "b": FAILED, "c": BUSY}, ["b", "c"])
    assert both == Absent("none, without the word of b, c", False)
    assert combine({}) == Absent("every upstream said so")
