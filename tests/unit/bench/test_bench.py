"""The benchmark's own arithmetic, table and picture from fixed numbers, and its smallest measurement for real."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import hostile, hostile_ldap, rows
from bench.__main__ import main
from bench.certificates import make
from bench.client import Client, Wanted
from bench.figures import OURS, Figure, Load, Row, compared, contest, percentile, ratio
from bench.ldap_client import ends, search
from bench.load import read_wrk
from bench.picture import draw
from bench.run import MEASUREMENTS
from bench.service import Service, fill, lookup
from bench.table import Report, as_json, text
from bench.upstream import Scripted
from keyserver.model import Certificate, Validity
from keyserver.openpgp import armor, clean
from keyserver.wire import ldap
from support.openpgp import new_key

NOW = 1_800_000_000
WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 32 connections
  Latency Distribution
     50%  220.00us
     75%    1.00ms
     90%    2.00ms
     99%    6.21ms
  52168 requests in 1.00s, 280.00MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
  Non-2xx or 3xx responses: 7
Requests/sec:  52168.00
"""


def load(rate: int, p99: float = 2.0, cpu: float = 1.0) -> Load:
    return Load(rate, 1.0, 0.5, p99, cpu)


def rounds() -> dict[str, list[Load]]:
    return {OURS: [load(100), load(300), load(200)], "nginx": [load(100), load(100), load(50)]}


def report() -> Report:
    found = [
        *compared("one key <&>", rounds(), {"nginx": 2.5}),
        Row("memory", OURS, Figure(6.4, "KB", most=6.5)),
        Row("only told", OURS, Figure(1.0, "s"), note="a note"),
    ]
    return Report("a machine <&>", "so and so", tuple(found))


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    assert ratio(rounds(), OURS, "nginx") == 3.0


def test_contestants_take_turns_and_nobody_always_follows_the_same() -> None:
    order: list[str] = []

    def runner(name: str) -> Load:
        order.append(name)
        return load(1)

    contest({name: lambda name=name: runner(name) for name in "abc"}, 3)
    assert "".join(order) == "abcbcacab"


def test_met_or_not() -> None:
    assert Figure(2.0, least=2.0).met is True
    assert Figure(1.99, least=2.0).met is False
    assert Figure(20.1, "ms", most=20).met is False
    assert Figure(5.0).met is None
    assert Figure(0.75, "× nginx", least=0.95).asked == "at least 0.95 × nginx"


def test_percentile() -> None:
    assert percentile([], 0.5) == 0
    assert percentile(list(range(100)), 0.99) == 99
    assert percentile([3, 1, 2], 0.5) == 2


def test_wrk_is_read_with_its_errors() -> None:
    seen = read_wrk(WRK, 0.5)
    assert (seen.requests, seen.p50, seen.p99, seen.errors, seen.cpu) == (52168, 0.22, 6.21, 11, 0.5)
    assert read_wrk(WRK, 0.5, expect_errors=True).errors == 4
    with pytest.raises(RuntimeError, match="nothing that can be read"):
        read_wrk("unable to connect", 0)


def test_errors_are_named_in_the_table() -> None:
    loads = {OURS: [Load(10, 1.0, 1.0, 1.0, errors=3)]}
    assert compared("x", loads, {})[0].note == "3 of 10 failed"


def test_the_table_says_what_is_met() -> None:
    table = text(report())
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert ["", "nginx", "100", "0.500", "2.00", "10000.0", "3 × nginx", "at least 2.5 × nginx", "met"] in lines
    assert "2 of 2 figures met" in table
    assert "- only told, keyserver: a note" in table


def test_json_holds_every_row() -> None:
    read = json.loads(as_json(report()))
    assert [row["who"] for row in read["rows"]] == [OURS, "nginx", OURS, OURS]
    assert read["rows"][2]["met"] is True
    assert read["rows"][3]["met"] is None


def test_the_picture_is_xml_and_names_the_machine() -> None:
    drawing = ElementTree.fromstring(draw(report()))
    words = [element.text or "" for element in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert "a machine <&>" in words
    assert any("3.00 ×" in word for word in words)
    bars = list(drawing.iter("{http://www.w3.org/2000/svg}rect"))
    assert len(bars) == 2
    assert float(bars[0].get("width", 0)) == 2 * float(bars[1].get("width", 0))


@pytest.mark.parametrize(("size", "least", "most"), [(0, 500, 700), (5145, 5000, 5300), (8192, 8000, 8400)])
def test_certificates_are_good_and_have_their_size(size: int, least: int, most: int) -> None:
    made = make("somebody", size)
    (cleaned,) = clean(made.octets, NOW)
    assert isinstance(cleaned, Certificate)
    assert (cleaned.proof.validity, cleaned.proof.can_encrypt) == (Validity.VALID, True)
    assert cleaned.fingerprint == made.fingerprint
    assert {user_id.address for user_id in cleaned.proof.user_ids} == set(made.addresses)
    assert least <= len(armor(cleaned.octets)) <= most


def test_hostile_inputs_are_large_and_the_false_signatures_are_tried() -> None:
    """If they were dropped at first sight, the figure beside them would mean nothing."""
    key = new_key(seed="hostile")
    assert len(hostile.poisoned(key)) > 14_000_000
    (cleaned, *_) = clean(hostile.false_signatures(key, 200_000), NOW)
    assert isinstance(cleaned, Certificate)
    assert len(cleaned.octets) < 1000
    assert min(map(len, hostile_ldap.messages().values())) > 500


def test_the_ldap_client_knows_a_whole_reply() -> None:
    reply = ldap.envelope(1, ldap.entry(b"cn=x", b"")) + ldap.envelope(1, ldap.result(ldap.DONE, 0))
    assert ends(reply) == len(reply)
    assert ends(reply + b"\x30") == len(reply)
    assert all(ends(reply[:cut]) is None for cut in range(len(reply)))
    message = ldap.decode(search("A" * 40), 0, len(search("A" * 40)))
    assert isinstance(message.operation, ldap.SearchRequest)


async def test_rows_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "FEW", 50)
    monkeypatch.setattr(rows, "LOOKS", 20)
    times = await rows.compare(tmp_path, 150, 1)
    assert {count: len(one[0]) for count, one in times.items()} == {50: 20, 150: 20}


def test_the_smallest_measurement(tmp_path: Path) -> None:
    """The real service, its upstream and our client: a hit, a miss, a known negative."""
    hit, miss = make("hit", 5145), make("miss")
    place = tmp_path / "service"
    place.mkdir()
    fill(place, [hit], ["nobody@absent.example"])
    with ExitStack() as stack:
        upstream = Scripted(stack, tmp_path / "upstream", 0.0, frozenset())
        upstream.put(miss.fingerprint, miss.octets)
        service = Service(stack, place, upstream.url, frozenset())
        service.warm([lookup(hit.fingerprint)])
        service.warm([lookup("nobody@absent.example")], expected=404)
        wanted = Wanted(service.port, 0.5, 2, [lookup(hit.fingerprint)], [lookup(miss.fingerprint)], every=10)
        seen = Client(wanted).result()
        assert service.running.memory() > 10_000_000
        assert service.running.cpu() > 0
    assert (seen.misses, seen.errors) == (1, 0)
    assert seen.hits > 10
    assert 0 < seen.hit_p50 <= seen.hit_p99 <= seen.hit_worst


def test_only_names_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--only", "everything"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert all(name in said for name in MEASUREMENTS)
