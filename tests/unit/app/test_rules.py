"""What faces go by, out of the configuration."""

from __future__ import annotations

from pathlib import Path

from keyserver.app.rules import face_rules, lookup_rules
from keyserver.config import load
from keyserver.model import View

TEXT = """
[policy]
internal_domains = ["example.org"]
[[view]]
name = "gateways"
hkp_listen = ["127.0.0.1:11372"]
wkd_relay = true
[[view]]
name = "mail"
hkp_listen = ["127.0.0.1:11373"]
answer_mailflow = true
"""


def test_whose_directory_a_view_is(tmp_path: Path) -> None:
    file = tmp_path / "keyserver.toml"
    file.write_text(TEXT)
    rules = face_rules(load(file))
    assert rules.own_domains == ("example.org", "*.example.org")
    assert rules.relaying == frozenset({"gateways"})


def test_a_view_stays_a_directorys_under_the_rules_of_the_moment(tmp_path: Path) -> None:
    file = tmp_path / "keyserver.toml"
    file.write_text(TEXT)
    rules = lookup_rules(load(file), {})
    assert rules.view(View("mail", directory=True)) == View("mail", answer_mailflow=True, directory=True)
    assert rules.view(View("mail")) == View("mail", answer_mailflow=True)
