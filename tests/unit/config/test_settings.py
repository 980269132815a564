"""Where each value comes from, how two configurations differ, and what of it can be had without a restart."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from keyserver.config import Config, ConfigError, Listener, load, load_again
from keyserver.config.kinds import Value
from keyserver.config.loading import TABLES, models, reader_of, rows_of
from keyserver.config.settings import at_run_time, changes_of, settings_of
from keyserver.upstreams.checks import mistakes

FILE = """\
[cache]
ttl = "2 hours"
max_size = "1 GiB"
[limits]
searches = 10
[log]
level = "warning"
[[upstream]]
name = "one"
url = "hkp://keys.example.org"
proxy = "http://proxy.example.org:3128"
[[view]]
name = "inside"
hkp_listen = "127.0.0.1:11372"
"""
GATEWAY = '[[domain_certificate]]\ndomain = "Partner.Example"\nfingerprint = "0x{}"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "keyserver.toml"
    place.write_text(FILE)
    return place


def test_every_value_says_where_it_comes_from(file: Path) -> None:
    environ = {"KEYSERVER_LIMITS__SEARCHES": "20", "KEYSERVER_CACHE__DEADLINE": "7s", "HOME": "/root"}
    config = load(file, ["log.level=debug", "cache.deadline=8s"], environ, (), mistakes)
    shown = {setting.key: (setting.value, setting.origin, setting.where) for setting in settings_of(config)}
    assert shown["cache.ttl"] == ("2 hours", "file", str(file))
    assert shown["cache.max_size"] == ("1 GiB", "file", str(file))
    assert shown["limits.searches"] == (20, "environment", "KEYSERVER_LIMITS__SEARCHES")
    assert shown["log.level"] == ("debug", "command line", "--set")
    assert shown["cache.deadline"] == ("8 seconds", "command line", "--set")
    assert shown["cache.negative_ttl"] == ("15 minutes", "default", "")
    assert shown["hkp.listen"] == (["127.0.0.1:11371"], "default", "")
    assert shown["mailflow.milter_listen"] == ("", "default", "")
    assert shown["upstream[one].ttl"] == ("", "default", "")
    assert shown["view[inside].hkp_listen"] == (["127.0.0.1:11372"], "file", str(file))
    assert config.sources is not None
    assert set(config.sources.environ) == {name for name in environ if name.startswith("KEYSERVER_")}
    replaced = load(file, (), {}, ["hkp://other.example.org"], mistakes)
    shown = {setting.key: (setting.value, setting.origin, setting.where) for setting in settings_of(replaced)}
    assert shown["upstream[other.example.org].url"] == ("hkp://other.example.org", "command line", "--upstream")
    assert not [key for key in shown if "[one]" in key]


def test_every_key_is_shown_as_it_may_be_written(file: Path) -> None:
    """What is shown of a value, read again, is that value; and it says what is accepted."""
    config = load(file, (), {}, (), mistakes)
    shown = {setting.key: setting for setting in settings_of(config)}
    for section, model in models().items():
        for name in model.model_fields:
            for row in rows_of(config, section) if f"{section}.{name}" not in TABLES else ():
                key = f"{section}[{row.name}].{name}" if section in TABLES else f"{section}.{name}"
                reader = reader_of(model, name)
                assert isinstance(reader, Value)
                assert reader.read(shown[key].value) == getattr(row, name), key
                assert shown[key].accepted
                assert shown[key].meaning


def test_a_domains_certificate_is_shown_and_changes_at_run_time(file: Path) -> None:
    file.write_text(GATEWAY.format("aa" * 20) + GATEWAY.format("bb" * 32) + FILE)
    before = load(file, (), {}, (), mistakes)
    shown = {setting.key: (setting.value, setting.origin) for setting in settings_of(before)}
    first, second = (f"domain_certificate[partner.example {digits}]" for digits in ("AA" * 20, "BB" * 32))
    assert shown[f"{first}.domain"] == ("partner.example", "file")
    assert shown[f"{second}.fingerprint"] == ("BB" * 32, "file")
    file.write_text(GATEWAY.format("cc" * 20) + GATEWAY.format("bb" * 32) + FILE)
    after = load_again(before)
    changed = {c.key: (c.before, c.after, c.restart) for c in changes_of(before, after)}
    third = first.replace("A" * 40, "C" * 40)
    assert changed == {first: ("a table", None, False), third: (None, "a table", False)}
    assert at_run_time(before, after).domain_certificate == after.domain_certificate


def test_what_cannot_change_at_run_time_keeps_its_value(file: Path) -> None:
    before = load(file, ["log.level=debug"], {}, (), mistakes)
    file.write_text(
        FILE.replace("2 hours", "3 hours").replace('"warning"', '"error"').replace("11372", "11373")
        + 'answer_mailflow = true\n[[view]]\nname = "new"\n[hkp]\nlisten = []\nexplain = false\n'
        + '[server]\nstate_dir = "/elsewhere"\n[[upstream]]\nname = "two"\nurl = "hkp://two.example.org"\n'
    )
    after = load_again(before)
    assert after.log.level == "debug", "the command line still overrides the file"
    changes = {change.key: (change.before, change.after, change.restart) for change in changes_of(before, after)}
    assert changes == {
        "server.state_dir": ("", "/elsewhere", True),
        "hkp.listen": (["127.0.0.1:11371"], [], True),
        "hkp.explain": (True, False, False),
        "cache.ttl": ("2 hours", "3 hours", False),
        "upstream[two]": (None, "a table", False),
        "view[inside].hkp_listen": (["127.0.0.1:11372"], ["127.0.0.1:11373"], True),
        "view[inside].answer_mailflow": (False, True, False),
        "view[new]": (None, "a table", True),
    }
    mixed = at_run_time(before, after)
    assert {change.key for change in changes_of(before, mixed)} == {
        k for k, (*_, restart) in changes.items() if not restart
    }
    assert mixed.listeners == before.listeners
    assert mixed.sources == after.sources
    left = {change.key for change in changes_of(mixed, load_again(mixed))}
    assert left == {key for key, (*_, restart) in changes.items() if restart}, "they are named again"


def test_a_certificate_may_move_but_not_come_or_go(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pem", tmp_path / "two.pem"
    one.touch(), two.touch()

    def having(path: Path | None) -> Config:
        section = {"tls_certificate": str(path or ""), "tls_key_file": str(path or "")}
        return Config.model_validate({"ldap": section})

    assert at_run_time(having(one), having(two)).ldap.tls_certificate == two
    assert at_run_time(having(one), having(None)).ldap.tls_certificate == one
    assert at_run_time(having(None), having(one)).ldap.tls_key_file is None
    assert [change.restart for change in changes_of(having(None), having(one))] == [True, True]


def test_mistakes_are_told_and_the_rest_is_still_there(file: Path) -> None:
    config = load(file, (), {}, (), mistakes)
    file.write_text(FILE.replace("2 hours", "2 parsecs").replace("hkp://keys", "gopher://keys"))
    with pytest.raises(ConfigError) as caught:
        load_again(config)
    assert {problem.key for problem in caught.value.problems} == {"cache.ttl", "upstream[one].url"}
    assert isinstance(caught.value.rest, Config)
    assert caught.value.rest.limits.searches == 10


def test_no_secret_is_shown(file: Path) -> None:
    """Not even one that a file may not hold."""
    file.write_text(FILE.replace("http://proxy", "http://user:hunter2@proxy"))
    config = load(file)
    assert "hunter2" not in str(settings_of(config))
    assert "hunter2" not in str(changes_of(Config(upstream=()), config))
    file.write_text(FILE)
    assert "hunter2" not in str(changes_of(load(file), config))


def test_another_process_reads_the_same(file: Path) -> None:
    config = load(file, ["hkp.listen=unix:/run/x.sock"], {"KEYSERVER_CACHE__TTL": "5h"}, (), mistakes)
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert again.sources == config.sources
    assert again.hkp.listen == (Listener(unix=Path("/run/x.sock")),)
    assert load_again(again) == config
