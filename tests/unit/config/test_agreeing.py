"""Settings that nodes of one cache must agree in."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyserver.config import Config, load
from keyserver.config.agreeing import agreeing, differing

BASE = '[[upstream]]\nname = "u"\nurl = "hkp://keys.example.org"\n'


def read(folder: Path, text: str) -> Config:
    file = folder / "keyserver.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


@pytest.mark.parametrize(
    ("text", "key", "there"),
    [
        (BASE + '[cache]\nttl = "2d"', "cache.ttl", "2 days"),
        (BASE + '[cache]\nnegative_ttl = "1m"', "cache.negative_ttl", "1 minute"),
        (BASE + "[policy]\nanswer_mailflow = true", "policy.answer_mailflow", "true"),
        (BASE + '[policy]\ninternal_domains = ["b.example", "a.example"]', "policy.internal_domains", None),
        (BASE + "[smime]\nrequire_chain = true", "smime.require_chain", "true"),
        (BASE + "priority = 3", "upstream[u].priority", "3"),
        (BASE + 'domains = ["example.org"]', "upstream[u].domains", '["example.org"]'),
        (BASE + "[policy]\ndomain_authority = true", "policy.domain_authority", "true"),
    ],
)
def test_what_decides_answers_must_agree(tmp_path: Path, text: str, key: str, there: str | None) -> None:
    mine = agreeing(read(tmp_path, BASE))
    ((found, here, other),) = differing(mine, agreeing(read(tmp_path, text)))
    assert found == key
    assert here == mine[key]
    if there is not None:
        assert other == there


def test_an_upstream_that_only_one_has_is_a_difference(tmp_path: Path) -> None:
    found = differing(agreeing(read(tmp_path, "")), agreeing(read(tmp_path, BASE)))
    assert {key for key, here, there in found if here == "" != there} >= {"upstream[u].url"}


@pytest.mark.parametrize(
    "text",
    [
        BASE + '[server]\nnode = "b"',
        BASE + '[hkp]\nlisten = ["127.0.0.1:1"]',
        BASE + '[cache]\nmemory = "1 MiB"\nmax_size = "1 GiB"',
        BASE + 'timeout = "4s"\nproxy = "http://proxy.example.org:3128"',
        BASE + '[[view]]\nname = "v"\nanswer_mailflow = true',
    ],
)
def test_what_is_a_nodes_own_may_differ(tmp_path: Path, text: str) -> None:
    assert differing(agreeing(read(tmp_path, BASE)), agreeing(read(tmp_path, text))) == ()


def test_views_that_both_have_must_agree(tmp_path: Path) -> None:
    for name in ("answer_mailflow", "domain_certificates"):
        one, other = (BASE + f'[[view]]\nname = "v"\n{name} = {word}' for word in ("true", "false"))
        ((key, *_),) = differing(agreeing(read(tmp_path, one)), agreeing(read(tmp_path, other)))
        assert key == f"view[v].{name}"


def test_a_domains_certificate_that_only_one_has_is_a_difference(tmp_path: Path) -> None:
    rows = [f'[[domain_certificate]]\ndomain = "partner.example"\nfingerprint = "{digit * 40}"\n' for digit in "AB"]
    one, other = (agreeing(read(tmp_path, row)) for row in rows)
    assert {key for key, *_ in differing(one, other)} == {
        f"domain_certificate[partner.example {digit * 40}].{name}"
        for digit in "AB"
        for name in ("domain", "fingerprint")
    }


def test_no_password_is_told(tmp_path: Path) -> None:
    found = agreeing(read(tmp_path, BASE.replace("keys.example.org", "alice:geheim@keys.example.org")))
    assert not [value for value in found.values() if "geheim" in value]
