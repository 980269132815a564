"""What only an upstream's own protocol knows to be a mistake is said by `check`, beside everything else."""

from pathlib import Path

import pytest

from keyserver.config import ConfigError, load
from keyserver.upstreams.checks import mistakes


def problems(tmp_path: Path, table: str) -> list[str]:
    file = tmp_path / "keyserver.toml"
    file.write_text(f'[[upstream]]\nname = "x"\n{table}\n')
    try:
        load(file, mistakes=mistakes)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "table",
    [
        'url = "hkp://keys.example.org"',
        'url = "hkps://keys.{domain}"',
        'url = "hkp://127.0.0.1:11371"\nproxy = "http://proxy.example.org:3128"',
        'url = "ldap://keys.{domain}"',
        'url = "ldaps://ldap.example.org/ou=people,dc=example,dc=org"\nattributes = ["userCertificate;binary"]',
        'url = "ldap://h"\nfilter = "(&(uid={local})(dc={domain}))"',
        'url = "dane:"\nresolver = "127.0.0.1:5353"',
        'url = "dane:"\nresolver = "tls:9.9.9.9#dns.quad9.net"',
        'url = "vks://keys.openpgp.org"\nproxy = "http://proxy.example.org:3128"',
        'url = "certs://pki.example.org/ejbca/search.cgi"\nproxy = "http://proxy.example.org:3128"',
        'url = "certs+http://127.0.0.1:8080"',
    ],
)
def test_accepted(tmp_path: Path, table: str) -> None:
    assert problems(tmp_path, table) == []


@pytest.mark.parametrize(
    ("table", "key", "hint"),
    [
        ('url = "ldap://h/notadn"', "url", "is not a base DN"),
        ('url = "hkp://h/path"', "url", "nothing may follow"),
        ('url = "hkps://keys.{domain}"\nproxy = "http://p:1"', "proxy", "do not go together"),
        ('url = "ldap://h"\nfilter = "(mail={address}"', "filter", "LDAP filter"),
        ('url = "ldap://h"\nfilter = "(=({address}))"', "filter", "RFC 4515"),
        ('url = "dane:"\nresolver = "10.0.0.1"', "resolver", "accepted is a loopback address"),
        ('url = "hkp://h"\nresolver = "127.0.0.1"', "resolver", "only for dane"),
        ('url = "ldap://h"\nproxy = "http://p:1"', "proxy", "only for hkp and hkps and vks and certs"),
        ('url = "vks://keys.{domain}"', "url", "one host"),
        ('url = "vks://h/path"', "url", "nothing may follow"),
        ('url = "vks://h"\nproxy = "socks5://p:1"', "proxy", "http://host:port"),
        ('url = "vks://h"\nfilter = "(mail={address})"', "filter", "only for ldap"),
        ('url = "certs://pki.{domain}"', "url", "one host"),
        ('url = "certs+http://8.8.8.8"', "url", "private networks"),
        ('url = "certs+http://h"\nproxy = "http://p:1"', "proxy", "only for certs"),
    ],
)
def test_refused_once_and_by_name(tmp_path: Path, table: str, key: str, hint: str) -> None:
    (problem,) = problems(tmp_path, table)
    assert problem.startswith(f"upstream[x].{key} = ")
    assert hint in problem


def test_what_came_from_the_environment_says_so(tmp_path: Path) -> None:
    file = tmp_path / "keyserver.toml"
    file.write_text("")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={"KEYSERVER_FOO__BAR": "1"})
    assert "environment KEYSERVER_FOO__BAR" in str(caught.value)
