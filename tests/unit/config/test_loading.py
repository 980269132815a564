"""Configuration: bounds, defaults, overrides, and every mistake at once."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.config import Config, ConfigError, Listener, load
from keyserver.config.checks import cross_checks
from keyserver.config.kinds import Rows, octets, seconds, spell_octets, spell_seconds
from keyserver.config.listener import read_listener
from keyserver.config.loading import TABLES, load_again, reader_of
from keyserver.config.settings import at_run_time, changes_of, settings_of
from keyserver.model import Rate
from keyserver.upstreams import checks

SHIPPED = Path(__file__).parents[3] / "conf" / "keyserver.toml"


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "keyserver.toml"
    file.write_text(text, encoding="utf-8")
    return file


def mistakes(tmp_path: Path, text: str, *settings: str, **environ: str) -> dict[str, str]:
    """Key -> line of every mistake."""
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), settings, environ, mistakes=checks.mistakes)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    return {problem.key: line for problem, line in zip(caught.value.problems, lines, strict=True)}


def test_defaults_are_those_of_the_contract() -> None:
    config = load(None)
    assert config.hkp.listen == (Listener("127.0.0.1", 11371),)
    assert config.ldap.listen == (Listener("127.0.0.1", 1389),)
    assert config.admin.listen == Listener("127.0.0.1", 8371)
    assert config.mailflow.milter_listen is None
    assert (config.cache.ttl, config.cache.negative_ttl, config.cache.deadline) == (86400, 900, 5)
    assert (config.cache.serve_stale, config.cache.purge_interval, config.cache.prefetch) == (0, 900, True)
    assert (config.cache.memory, config.cache.max_size) == (256 << 20, 10 << 30)
    assert config.cache.path == Path("var/keyserver.db")
    assert config.policy.max_certificate_size == 1 << 20
    assert (config.limits.connections_per_client, config.limits.misses_per_minute, config.limits.searches) == (
        64,
        600,
        1000,
    )
    assert config.upstream == config.view == ()


def test_the_shipped_file_changes_no_default_and_asks_one_upstream() -> None:
    shipped = load(SHIPPED)
    (upstream,) = shipped.upstream
    assert (upstream.name, upstream.url, upstream.timeout) == ("ubuntu", "hkps://keyserver.ubuntu.com", 2)
    assert shipped.model_copy(update={"upstream": ()}) == Config()


def test_what_the_shipped_file_shows_in_comments_works_too(tmp_path: Path) -> None:
    """Every commented table and key, with the files they name put in place."""
    lines = [
        line.removeprefix("# ") if " = " in line or line.startswith("# [[") else line
        for line in SHIPPED.read_text().splitlines()
    ]
    text = "\n".join(line for line in lines if "token_file" not in line and "tls_" not in line)
    password = tmp_path / "password"
    password.write_text("secret")
    text = re.sub(r"/etc/keyserver/\w+-password", str(password), text)
    config = load(written(tmp_path, text))
    assert [upstream.name for upstream in config.upstream] == [
        "ubuntu",
        "partner directory",
        "wkd",
        "keys.<domain>",
        "keys.openpgp.org",
        "company certificates",
    ]
    assert [view.name for view in config.view] == ["with-mailflow"]


@pytest.mark.parametrize(
    ("text", "meant"), [("1h", 3600), ("60 minutes", 3600), ("999 days", 999 * 86400), ("1 day", 86400)]
)
def test_accepted_ttls(tmp_path: Path, text: str, meant: int) -> None:
    assert load(written(tmp_path, f'[cache]\nttl = "{text}"\n')).cache.ttl == meant


@pytest.mark.parametrize(
    "text", ['"59 minutes"', '"1000 days"', '"0"', "3600", '"-1h"', '"1.5h"', '"1 fortnight"', "true", '""']
)
def test_refused_ttls_name_key_value_and_bounds(tmp_path: Path, text: str) -> None:
    line = mistakes(tmp_path, f"[cache]\nttl = {text}\n")["cache.ttl"]
    assert text in line
    assert "1 hour to 999 days" in line


def test_an_upstreams_ttl_has_the_same_bounds_and_may_be_empty(tmp_path: Path) -> None:
    table = '[[upstream]]\nname = "a"\nurl = "hkp://a.example"\nttl = '
    assert load(written(tmp_path, f'{table}""')).upstream[0].ttl is None
    assert load(written(tmp_path, f'{table}"2h"')).upstream[0].ttl == 7200
    assert "999 days" in mistakes(tmp_path, f'{table}"59m"')["upstream[a].ttl"]


@given(st.integers(1, 10**6), st.sampled_from(["s", "m", "h", "d", " minutes", " DAYS", "second"]))
def test_durations_read_back_what_they_spell(count: int, unit: str) -> None:
    value = seconds(f"{count}{unit}")
    assert value is not None
    assert seconds(spell_seconds(value)) == value


@given(st.integers(0, 10**6), st.sampled_from(["B", " KiB", "mib", "GiB"]))
def test_sizes_read_back_what_they_spell(count: int, unit: str) -> None:
    value = octets(f"{count}{unit}")
    assert value is not None
    assert octets(spell_octets(value)) == value


@given(st.text(max_size=40))
def test_no_text_breaks_the_readers(text: str) -> None:
    assert seconds(text) is None or seconds(text) >= 0
    assert octets(text) is None or octets(text) >= 0
    with contextlib.suppress(ValueError):
        read_listener(text)


@pytest.mark.parametrize(
    ("text", "listener"),
    [
        ("127.0.0.1:11371", Listener("127.0.0.1", 11371)),
        ("[::1]:0", Listener("::1", 0)),
        ("tls:0.0.0.0:443", Listener("0.0.0.0", 443, tls=True)),
        ("localhost:80", Listener("localhost", 80)),
        ("unix:/run/keyserver/hkp.sock", Listener(unix=Path("/run/keyserver/hkp.sock"))),
    ],
)
def test_listeners(text: str, listener: Listener) -> None:
    assert read_listener(text) == listener
    assert str(listener) == text


@pytest.mark.parametrize(
    "text", ["", ":80", "::1:80", "127.0.0.1", "127.0.0.1:65536", "1.2.3:80", "unix:", "a b:80", "tls:unix:/x"]
)
def test_what_is_no_listener(text: str) -> None:
    with pytest.raises(ValueError):
        read_listener(text)


def test_five_mistakes_are_five_lines(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        '[hkp]\nlistn = ["127.0.0.1:1"]\n[cache]\nttl = "59 minutes"\n[limits]\nsearches = "many"\n'
        '[policy]\ntext_search = "on"\n[[upstream]]\nname = "x"\nurl = "https://keys.example"\n',
    )
    assert set(found) == {"hkp.listn", "cache.ttl", "limits.searches", "policy.text_search", "upstream[x].url"}
    assert "did you mean listen?" in found["hkp.listn"]
    assert '"off", "cache", "upstream"' in found["policy.text_search"]
    assert "hkps://" in found["upstream[x].url"]


def test_mistakes_between_keys_are_named_beside_wrong_values(tmp_path: Path) -> None:
    found = mistakes(
        tmp_path,
        '[ldap]\nlisten = ["tls:127.0.0.1:11371"]\n[cache]\ndatabase = "postgresql://u:pw@h/db"\nttl = 5\n'
        '[[upstream]]\nname = "a"\nurl = "hkp://a"\n[[upstream]]\nname = "a"\nurl = "ldap://b"\nbind_dn = "cn=x"\n'
        '[[upstream]]\nurl = "hkp://c"\n',
    )
    assert "cache.database_password_file" in found["cache.database"]
    assert "pw" not in found["cache.database"]
    assert {"cache.ttl", "ldap.tls_certificate", "ldap.tls_key_file", "ldap.listen", "upstream.name"} <= set(found)
    assert "only with TLS" in found["upstream[a].bind_dn"]
    assert "missing" in found["upstream[3].name"]


@pytest.mark.parametrize(
    ("table", "key", "hint"),
    [
        ('url = "gopher://x"', "url", "accepted schemes: hkp, hkps, ldap, ldaps"),
        ('url = "ldap://u:p@keys.{domain}"', "url", "without credentials"),
        ('url = "ldap://keys.{domain}"\nbind_dn = "cn=x"', "bind_dn", "strangers"),
        ('url = "ldap://{domain}.example.org"', "url", "at the end of the host"),
        ('url = "hkps://{domain}/path/{domain}"', "url", "at the end of the host"),
        ('url = "ldap://h"\nbind_dn = "cn=x"', "bind_dn", "TLS"),
        ('url = "ldaps://h"\nbind_dn = "cn=x"', "bind_dn", "bind_password_file"),
        ('url = "ldaps://h"\nstarttls = true', "starttls", "only for ldap"),
        ('url = "hkp://h"\nfilter = "(mail={address})"', "filter", "only for ldap"),
        ('url = "ldap://h"\nfilter = "(mail=*)"', "filter", "{address}"),
        ('url = "hkp://h:99999"', "url", "accepted is hkp://host"),
        ('url = "hkp://"', "url", "host name"),
        ('url = "hkps://h"\nproxy = "http://u:p@proxy:3128"', "proxy", "without credentials"),
        ('url = "hkps://h"\ndomains = ["example.org", "no dots"]', "domains", "'no dots' is none"),
        ('url = "hkps://h"\ntls_ca_file = "/nonexistent/ca.pem"', "tls_ca_file", "No such file"),
        ('url = "hkps://h"\nbind_password = "hunter2"', "bind_password", "bind_password_file"),
        ('url = "hkps://h"\ntimeout = "0s"', "timeout", "1 second to"),
    ],
)
def test_wrong_upstreams(tmp_path: Path, table: str, key: str, hint: str) -> None:
    found = mistakes(tmp_path, f'[[upstream]]\nname = "u"\n{table}\n')
    assert list(found) == [f"upstream[u].{key}"] * len(found)
    assert any(hint in line for line in found.values())
    assert "hunter2" not in str(found)
    assert "u:p@" not in str(found)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("https://soc.example.org/keyserver?of=us", ""),
        ("http://127.0.0.1:8080/", ""),
        ("http://[::1]:8080/", ""),
        ("http://localhost/", ""),
        ("", ""),
        ("http://soc.example.org/", "http is for this machine alone"),
        ("http://192.168.1.1/", "http is for this machine alone"),
        ("http://127.0.0.1.example.org/", "http is for this machine alone"),
        ("https://u:p@soc.example.org/", "no user and password"),
        ("https://soc.example.org/#part", "behind #"),
        ("https://soc.example.org/a b", "%XX"),
        ("https://soc.example.org:port/", "a URL such as"),
        ("https:///path", "a URL such as"),
        ("ftp://soc.example.org/", "a URL such as"),
        ("soc.example.org", "a URL such as"),
    ],
)
def test_where_events_go(tmp_path: Path, url: str, hint: str) -> None:
    (tmp_path / "secret").write_text("sixteen octets!!\n")
    text = f'[events]\nwebhook = "{url}"\n'
    text += f'webhook_secret_file = "{tmp_path}/secret"\n' if url else ""
    if not hint:
        assert load(written(tmp_path, text)).events.webhook == url
        return
    line = mistakes(tmp_path, text)["events.webhook"]
    assert hint in line
    assert "u:p@" not in line


@pytest.mark.parametrize(
    ("url", "secret", "wrong"),
    [
        ("https://soc.example.org/", None, "events.webhook needs it"),
        ("https://soc.example.org/", "fifteen octets!\n\n", "it holds too little"),
        ("", "sixteen octets!!", "accepted only together with events.webhook"),
    ],
)
def test_a_webhook_has_a_secret(tmp_path: Path, url: str, secret: str | None, wrong: str) -> None:
    text = f'[events]\nwebhook = "{url}"\n'
    if secret is not None:
        (tmp_path / "secret").write_text(secret)
        text += f'webhook_secret_file = "{tmp_path}/secret"\n'
    found = mistakes(tmp_path, text)
    assert list(found) == ["events.webhook_secret_file"]
    assert wrong in found["events.webhook_secret_file"]
    assert "octets!" not in str(found)


def test_without_history_there_are_no_events(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("sixteen octets!!\n")
    text = f'[events]\nwebhook = "https://soc.example.org/"\nwebhook_secret_file = "{tmp_path}/secret"\n'
    config = load(written(tmp_path, text))
    off = config.model_copy(update={"history": config.history.model_copy(update={"keep": 0})})
    assert not list(cross_checks(config))
    assert [problem.key for problem in cross_checks(off)] == ["events.webhook"]


def test_secrets_are_refused_and_not_shown(tmp_path: Path) -> None:
    found = mistakes(tmp_path, '[admin]\ntoken = "hunter2"\n[hkp]\ntls_key = "-----BEGIN PRIVATE KEY-----"\n')
    assert "admin.token_file" in found["admin.token"]
    assert "hkp.tls_key_file" in found["hkp.tls_key"]
    assert not any("hunter2" in line or "BEGIN" in line for line in found.values())


@pytest.mark.parametrize(
    ("dn", "password", "wrong"),
    [
        ("cn=gateway,dc=example,dc=org", "s3cret\n", {}),
        ("", None, {}),
        ("cn=gateway", None, {"ldap.bind_dn": "only together with ldap.bind_password_file"}),
        ("", "s3cret", {"ldap.bind_password_file": "only together with ldap.bind_dn"}),
        (" ", "s3cret", {"ldap.bind_password_file": "only together with ldap.bind_dn"}),
        ("cn=gateway", "\n", {"ldap.bind_password_file": "it is empty"}),
        ("gateway", "s3cret", {"ldap.bind_dn": "accepted is a distinguished name"}),
    ],
)
def test_who_may_bind_has_a_name_and_a_password(
    tmp_path: Path, dn: str, password: str | None, wrong: dict[str, str]
) -> None:
    text = f'[ldap]\nbind_dn = "{dn}"\n'
    if password is not None:
        (tmp_path / "password").write_text(password)
        text += f'bind_password_file = "{tmp_path}/password"\n'
    if not wrong:
        (tmp_path / "good.toml").write_text(text)
        assert load(tmp_path / "good.toml").ldap.bind_dn == dn
        return
    found = mistakes(tmp_path, text)
    assert set(found) == set(wrong)
    assert all(hint in found[key] for key, hint in wrong.items())
    assert "s3cret" not in str(found)


def test_certificate_and_key_belong_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        files = ["-keyout", f"{tmp_path}/{name}.key", "-out", f"{tmp_path}/{name}.pem", "-subj", "/CN=localhost"]
        subprocess.run([*command, *files], check=True, capture_output=True)
    text = '[hkp]\nlisten = ["tls:127.0.0.1:0"]\ntls_certificate = "{0}/a.pem"\ntls_key_file = "{0}/{1}.key"\n'
    assert load(written(tmp_path, text.format(tmp_path, "a"))).hkp.tls_key_file == tmp_path / "a.key"
    assert "mismatch" in mistakes(tmp_path, text.format(tmp_path, "b"))["hkp.tls_key_file"]


def test_environment_then_settings_override_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, '[cache]\nttl = "2h"\nnegative_ttl = "2m"\ndeadline = "2s"\n')
    environ = {
        "KEYSERVER_CACHE__NEGATIVE_TTL": "3m",
        "KEYSERVER_CACHE__DEADLINE": '"3s"',
        "KEYSERVER_HOME": "elsewhere",
    }
    config = load(file, ["cache.deadline=4s", "hkp.explain=false", "limits.searches=7", "ldap.base=dc=a,dc=b"], environ)
    assert (config.cache.ttl, config.cache.negative_ttl, config.cache.deadline) == (7200, 180, 4)
    assert (config.hkp.explain, config.limits.searches, config.ldap.base) == (False, 7, "dc=a,dc=b")


@pytest.mark.parametrize(
    ("value", "ports"),
    [("127.0.0.1:0", [0]), ("[::1]:5", [5]), ('["127.0.0.1:1", "[::1]:2"]', [1, 2]), ("", []), ("[]", [])],
)
def test_bare_words_for_lists(value: str, ports: list[int]) -> None:
    assert [listener.port for listener in load(None, [f"hkp.listen={value}"]).hkp.listen] == ports


def test_wrong_settings_say_where_they_came_from(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "", "cache.ttl=soon", "nonsense", "upstream.url=x", KEYSERVER_LOG__LEVEL="loud")
    assert "--set cache.ttl" in found["cache.ttl"]
    assert "KEYSERVER_LOG__LEVEL" in found["log.level"]
    assert "--upstream URL" in found["--set upstream.url"]
    assert "SECTION.KEY=VALUE" in found["--set"]


def test_upstreams_from_the_command_line_replace_those_of_the_file() -> None:
    config = load(SHIPPED, upstreams=["hkp://127.0.0.1:4242", "hkp://127.0.0.1:4242", "ldap://[::1]/dc=x"])
    assert [upstream.name for upstream in config.upstream] == ["127.0.0.1:4242", "127.0.0.1:4242-2", "[::1]"]
    with pytest.raises(ConfigError, match="accepted schemes"):
        load(SHIPPED, upstreams=["gopher://x"], mistakes=checks.mistakes)


@pytest.mark.parametrize("text", ["[cache", "a = 1\na = 2", "\x00", "x = '''"])
def test_what_is_not_toml_is_one_line(tmp_path: Path, text: str) -> None:
    (line,) = mistakes(tmp_path, text).values()
    assert "this is not TOML" in line


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(Path("/nonexistent/keyserver.toml"))


def test_sections_of_the_wrong_shape(tmp_path: Path) -> None:
    found = mistakes(tmp_path, 'cache = 1\nupstream = "x"\nview = [1]\nhpk = {}\n')
    assert "a table [cache]" in found["cache"]
    assert "[[upstream]] tables" in found["upstream"]
    assert "did you mean hkp?" in found["hpk"]
    assert "[[view]]" in found


def test_the_same_listener_twice(tmp_path: Path) -> None:
    found = mistakes(tmp_path, '[admin]\nlisten = "127.0.0.1:11371"\n')
    assert "hkp.listen listens there already" in found["admin.listen"]


def test_a_config_is_frozen() -> None:
    config = load(None)
    with pytest.raises(ValueError, match="frozen"):
        config.cache.ttl = 1


def test_a_domain_of_one_label_may_be_listed(tmp_path: Path) -> None:
    upstream = '[[upstream]]\nname = "a"\nurl = "hkp://keys.corp"\ndomains = ["Corp", "*.corp"]\n'
    config = load(written(tmp_path, f'[policy]\ninternal_domains = ["corp"]\n{upstream}'))
    assert config.upstream[0].domains == ("corp", "*.corp")
    assert config.policy.internal_domains == ("corp",)


def test_internal_domains_are_idna(tmp_path: Path) -> None:
    config = load(written(tmp_path, '[policy]\ninternal_domains = ["Bücher.Example", "bücher.example"]\n'))
    assert config.policy.internal_domains == ("xn--bcher-kva.example",)


def test_every_environment_name_of_the_declaration_works() -> None:
    """KEYSERVER_SECTION__KEY with the default spelled out gives the defaults."""
    shown = {
        f"KEYSERVER_{section}__{key}".upper(): str(field.default).lower()
        if isinstance(field.default, bool)
        else str(field.default)
        for section, part in Config.model_fields.items()
        if section not in TABLES
        for key, field in type(part.default).model_fields.items()
        if not isinstance(reader_of(type(part.default), key), Rows)
    }
    assert len(shown) >= 40
    assert load(None, environ=shown) == Config()
    assert tomllib.loads(f"x = {shown['KEYSERVER_HKP__LISTEN']}")["x"] == ["127.0.0.1:11371"]
    assert load(None, environ=os.environ)


# ---- parts that do not exist yet

DEFAULTS = """
[server]
workers = 0
state_dir = ""
node = ""
max_detached = "60s"
[admin]
hosts = []
public_url = ""
viewer_identities = true
[cache]
database_password_file = ""
[policy]
revocation_interval = "1 day"
on_change = "report"
[verdict]
listen = ""
socketmap_listen = ""
allowed_clients = []
tls_certificate = ""
tls_key_file = ""
[events]
webhook = ""
webhook_secret_file = ""
[invite]
listen = ""
public_url = ""
smtp = ""
smtp_user = ""
smtp_password_file = ""
smtp_tls = "required"
sender = ""
expires = "14 days"
per_hour = 60
automatic = false
trailer_listen = ""
tls_certificate = ""
tls_key_file = ""
[[upstream]]
name = "u"
url = "hkp://u.example"
required = true
rate = ""
on_change = ""
[[view]]
name = "v"
wkd_relay = false
"""


def test_the_defaults_of_the_contract_are_accepted(tmp_path: Path) -> None:
    """Every key of the contract, in whatever spelling of its default."""
    assert load(written(tmp_path, DEFAULTS)).upstream[0].name == "u"
    same = DEFAULTS.replace('"14 days"', '"336h"')
    assert load(written(tmp_path, same))


def test_nothing_is_held_without_a_history_to_remember_it(tmp_path: Path) -> None:
    text = """
[policy]
on_change = "hold"
[[domain]]
name = "partner.example"
on_change = "report"
[[upstream]]
name = "u"
url = "hkp://u"
on_change = "hold"
"""
    assert load(written(tmp_path, text)).policy.on_change == "hold"
    found = mistakes(tmp_path, text + '[history]\nkeep = "0"')
    assert {"policy.on_change", "upstream[u].on_change"} == found.keys() - {"history.keep"}


ROW = '[[domain_certificate]]\ndomain = "{}"\nfingerprint = "{}"\n'
SHA1, SHA256 = "ab" * 20, "cd" * 32
INTERNAL = '[policy]\ninternal_domains = ["a.example"]\n'


def test_domain_certificates_in_their_normal_form(tmp_path: Path) -> None:
    spaced = " ".join(SHA1[n : n + 4] for n in range(0, 40, 4))
    config = load(
        written(tmp_path, ROW.format("B\u00fccher.Example", spaced) + ROW.format("*.partner.example", SHA256))
    )
    found = [(row.domain, row.fingerprint) for row in config.domain_certificate]
    assert found == [("xn--bcher-kva.example", SHA1.upper()), ("*.partner.example", SHA256.upper())]


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        (ROW.format("no domain", SHA1), "domain_certificate[1].domain", "partner.example"),
        (ROW.format("partner.example", "ABCDEF0123456789"), "domain_certificate[1].fingerprint", "40 or 64 hex digits"),
        (ROW.format("partner.example", "gateway@partner.example"), "domain_certificate[1].fingerprint", "hex digits"),
        ('[[domain_certificate]]\ndomain = "partner.example"', "domain_certificate[1].fingerprint", "is missing"),
        (f'[[domain_certificate]]\nfingerprint = "{SHA1}"', "domain_certificate[1].domain", "is missing"),
        (ROW.format("a.example", SHA1) * 2, "domain_certificate[a.example].fingerprint", "one row for each kind"),
        (
            ROW.format("a.example", SHA1) + ROW.format("a.example", "ef" * 20),
            "domain_certificate[a.example].fingerprint",
            "one row for each kind",
        ),
        (
            "".join(ROW.format("a.example", digits * 32) for digits in ("aa", "bb", "cc")),
            "domain_certificate[a.example].fingerprint",
            "3 are named",
        ),
        *(
            (INTERNAL + ROW.format(domain, SHA1), f"domain_certificate[{domain}].domain", "internal")
            for domain in ("a.example", "b.a.example", "*.a.example")
        ),
    ],
)
def test_mistakes_in_domain_certificates(tmp_path: Path, text: str, key: str, says: str) -> None:
    found = mistakes(tmp_path, text)
    assert list(found) == [key]
    assert says in found[key]


def test_one_certificate_of_each_kind_for_a_domain(tmp_path: Path) -> None:
    text = "".join(ROW.format("a.example", digits) for digits in (SHA1, SHA256)) + ROW.format("*.a.example", SHA1)
    internal = '[policy]\ninternal_domains = ["b.a.example", "xa.example"]\n'
    assert len(load(written(tmp_path, internal + text)).domain_certificate) == 3


def test_tables_below_a_section_come_from_the_file_only(tmp_path: Path) -> None:
    for setting in ("verdict.policy=x", "smime.crl=[]", "domain.name=x", "domain_certificate.domain=x"):
        assert "in the file only" in mistakes(tmp_path, "", setting)[f"--set {setting.partition('=')[0]}"]


@pytest.mark.parametrize("url", ["gopher://keys.example", "http:"])
def test_a_scheme_that_nobody_knows_names_those_that_work(tmp_path: Path, url: str) -> None:
    line = mistakes(tmp_path, f'[[upstream]]\nname = "u"\nurl = "{url}"')["upstream[u].url"]
    assert "accepted schemes: hkp, hkps, ldap, ldaps, wkd, vks, dane, certs, certs+http" in line


def test_the_state_directory_is_beside_the_database_unless_named(tmp_path: Path) -> None:
    assert load(None).state_dir == Path("var")
    assert load(None, ["cache.database=sqlite:////srv/k.db"]).state_dir == Path("/srv")
    assert load(None, ["server.state_dir=/run/keyserver"]).state_dir == Path("/run/keyserver")
    assert load(None, ["cache.database=postgresql:///k"]).state_dir == Path("var")


def test_a_password_file_goes_with_a_database_server_and_is_not_empty(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("\n")
    given = f'[cache]\ndatabase_password_file = "{file}"\n'
    assert "PostgreSQL" in mistakes(tmp_path, given)["cache.database_password_file"]
    given += 'database = "postgresql://u@h/db"\n'
    assert "it is empty" in mistakes(tmp_path, given)["cache.database_password_file"]
    file.write_text("geheim\n")
    assert load(written(tmp_path, given)).cache.database_password_file == file


@pytest.mark.parametrize(
    ("rate", "meant"), [("1/min", Rate(1, 60)), ("5 / s", Rate(5, 1)), ("1000/day", Rate(1000, 86400)), ("", None)]
)
def test_a_rate_is_so_many_in_a_span(tmp_path: Path, rate: str, meant: Rate | None) -> None:
    text = f'[[upstream]]\nname = "u"\nurl = "hkp://u"\nrate = "{rate}"\n'
    assert load(written(tmp_path, text)).upstream[0].rate == meant


@pytest.mark.parametrize("rate", ["0/s", "1", "1/week", "-1/s", "100000/s", "1/s/s"])
def test_what_is_no_rate_is_refused(tmp_path: Path, rate: str) -> None:
    text = f'[[upstream]]\nname = "u"\nurl = "hkp://u"\nrate = "{rate}"\n'
    assert list(mistakes(tmp_path, text)) == ["upstream[u].rate"]


# ---- tables below a section

POLICIES = """
[verdict]
allowed_clients = ["192.0.2.0/24"]
[[verdict.policy]]
name = "encrypt"
kind = "both"
minimum = ["chained", "approved"]
valid_for = "7d"
yes = "{kind}:[{domain}]"
unknown = "notfound"
[[verdict.policy]]
name = "sign-2"
"""


def test_policies_are_tables_below_a_section(tmp_path: Path) -> None:
    one, other = load(written(tmp_path, POLICIES)).verdict.policies
    assert (one.name, one.kind, one.minimum, one.valid_for) == ("encrypt", "both", ("chained", "approved"), 7 * 86400)
    assert (one.yes, one.unknown) == ("{kind}:[{domain}]", "notfound")
    assert (other.name, other.kind, other.view, other.minimum, other.valid_for) == (
        "sign-2",
        "either",
        "default",
        (),
        0,
    )
    assert (other.yes, other.unknown) == ("smtp:[gateway.example]:10025", "tempfail")


def test_without_a_table_there_is_one_policy() -> None:
    (policy,) = load(None).verdict.policies
    assert (policy.name, policy.kind, policy.view, policy.unknown) == ("encrypt", "either", "default", "tempfail")


@pytest.mark.parametrize(
    ("row", "key", "text"),
    [
        ('name = "p"\nkind = "pgp"', "verdict.policy[p].kind", 'one of "openpgp", "smime", "either", "both"'),
        ('name = "p"\nminimum = ["good"]', "verdict.policy[p].minimum", "'good' is none"),
        ('name = "p"\nvalid_for = "366d"', "verdict.policy[p].valid_for", "a duration from 0 to 365 days"),
        ('name = "p"\nunknown = "yes"', "verdict.policy[p].unknown", 'one of "tempfail", "notfound"'),
        ('name = "p"\nview = "elsewhere"', "verdict.policy[p].view", "there is no such view"),
        ('name = "p"\nyse = "x"', "verdict.policy[p].yse", "did you mean yes?"),
        ('kind = "both"', "verdict.policy[1].name", "is missing"),
        ('name = "a b"', "verdict.policy[a b].name", "accepted is a name of letters"),
        ('name = "a:b"', "verdict.policy[a:b].name", "accepted is a name of letters"),
        ('name = "p"\n[[verdict.policy]]\nname = "p"', "verdict.policy.name", "occurs twice"),
        *(
            (f'name = "p"\nyes = "{yes}"', "verdict.policy[p].yes", "in braces only {kind} and {domain}")
            for yes in ("", "{address}", "{", "}", "{{domain}}", "a\\nb", "\u00fc", " x", "x ")
        ),
    ],
)
def test_what_is_wrong_with_a_policy_is_said_of_it(tmp_path: Path, row: str, key: str, text: str) -> None:
    (line,) = (found := mistakes(tmp_path, f"[[verdict.policy]]\n{row}")).values()
    assert list(found) == [key]
    assert text in line


@pytest.mark.parametrize("value", ['"x"', "[1]"])
def test_policies_are_tables(tmp_path: Path, value: str) -> None:
    (line,) = mistakes(tmp_path, f"[verdict]\npolicy = {value}").values()
    assert "table" in line


@pytest.mark.parametrize("key", ["listen", "socketmap_listen"])
def test_strangers_may_not_ask_for_verdicts(tmp_path: Path, key: str) -> None:
    where = f'[verdict]\n{key} = "0.0.0.0:8372"\n'
    assert "strangers could ask" in mistakes(tmp_path, where)[f"verdict.{key}"]
    assert load(written(tmp_path, f'{where}allowed_clients = ["192.0.2.0/24"]\n'))
    assert load(written(tmp_path, where.replace("0.0.0.0", "127.0.0.1")))


def test_a_policy_that_changes_is_named(tmp_path: Path) -> None:
    before = load(written(tmp_path, POLICIES))
    shown = {setting.key: (setting.value, setting.origin.split()[-1]) for setting in settings_of(before)}
    assert shown["verdict.policy[encrypt].valid_for"] == ("7 days", "file")
    assert shown["verdict.policy[sign-2].kind"] == ("either", "default")
    assert "verdict.policy" not in shown
    written(tmp_path, POLICIES.replace('"both"', '"smime"').replace("sign-2", "other"))
    after = load_again(before)
    assert {change.key: (change.before, change.after, change.restart) for change in changes_of(before, after)} == {
        "verdict.policy[encrypt].kind": ("both", "smime", False),
        "verdict.policy[sign-2]": ("a table", None, False),
        "verdict.policy[other]": (None, "a table", False),
    }
    assert [policy.name for policy in at_run_time(before, after).verdict.policies] == ["encrypt", "other"]


DOMAINS = """
[[upstream]]
name = "u"
url = "hkp://u"

[[domain]]
name = "Bücher.example"
upstreams = ["u"]
kinds = ["openpgp"]
pinned = ["0xaaaa aaaa aaaa aaaa aaaa  aaaa aaaa aaaa aaaa aaaa"]
ttl = "2h"
must_encrypt = true

[[domain]]
name = "*.partner.example"
require_chain = true
"""


def test_rules_for_domains(tmp_path: Path) -> None:
    first, second = load(written(tmp_path, DOMAINS), mistakes=checks.mistakes).domain
    assert (first.name, first.upstreams, first.kinds) == ("xn--bcher-kva.example", ("u",), ("openpgp",))
    assert (first.pinned, first.ttl, first.must_encrypt) == (("A" * 40,), 7200, True)
    assert (second.name, second.require_chain) == ("*.partner.example", True)


@pytest.mark.parametrize(
    ("rule", "key", "said"),
    [
        ('name = "a b"', "domain[a b].name", "a domain such as partner.example"),
        ('name = "p.example"\nupstreams = ["v"]', "domain[p.example].upstreams", "there is no such upstream"),
        ('name = "p.example"\nkinds = ["pgp"]', "domain[p.example].kinds", "'pgp' is none"),
        ('name = "p.example"\npinned = ["AB"]', "domain[p.example].pinned", "'AB' is none"),
        ('name = "p.example"\nttl = "1m"', "domain[p.example].ttl", "a duration from 1 hour"),
        ('name = "p.example"\nreject_text = "no"', "domain[p.example].reject_text", "together with must_encrypt"),
        ('name = "*.partner.example"', "domain.name", "occurs twice"),
        ('upstreams = ["u"]', "domain[3].name", "is missing"),
    ],
)
def test_mistakes_in_rules_for_domains(tmp_path: Path, rule: str, key: str, said: str) -> None:
    assert said in mistakes(tmp_path, f"{DOMAINS}\n[[domain]]\n{rule}")[key]
