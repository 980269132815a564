"""Names asked for: counted, taken once, and never more than a bound."""

from __future__ import annotations

from keyserver.faces import asked
from keyserver.faces.asked import AskedNames


def test_names_are_counted_until_they_are_taken() -> None:
    names = AskedNames()
    names.note("openpgp:email:alice@example.org")
    names.add({"openpgp:email:alice@example.org": 2, "openpgp:email:bob@example.org": 1})
    assert names.take() == {"openpgp:email:alice@example.org": 3, "openpgp:email:bob@example.org": 1}
    assert names.take() == {}


def test_beyond_the_bound_only_known_names_are_counted() -> None:
    names = AskedNames()
    names.add({f"openpgp:email:{number}@example.org": 1 for number in range(asked.MOST)})
    names.note("openpgp:email:new@example.org")
    names.note("openpgp:email:0@example.org")
    counts = names.take()
    assert len(counts) == asked.MOST
    assert "openpgp:email:new@example.org" not in counts
    assert counts["openpgp:email:0@example.org"] == 2
