"""Addresses in user IDs: the strict rule, beside what other programs take for one."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyserver.openpgp import address_of
from keyserver.query import parse_address
from support.openpgp import make_certificate

TABLE = {
    "Ann (work) <Ann.Lee@Example.ORG>": "ann.lee@example.org",
    "ann@example.org": "ann@example.org",
    " ann@example.org ": "ann@example.org",
    "<ann+tag@example.org>": "ann+tag@example.org",
    '"Ann <x@evil.net>" <ann@example.org>': None,
    "Ann <ann@example.org> <eve@evil.net>": None,
    "Ann <ann@example.org> (De-Mail)": "ann@example.org",
    "<ann@example.org> Ann": "ann@example.org",
    "Ann ann@example.org": None,
    "ann@example.org (work)": None,
    "mailto:ann@example.org": None,
    "Ann <ann@example.org.>": None,
    "<ann@@example.org>": None,
    "<a@x.org,b@x.org>": None,
    '<"ann lee"@x.org>': '"ann lee"@x.org',
    '<"ann"@x.org>': "ann@x.org",
    '<"a@b"@x.org>': None,
    '<"a<b>"@x.org>': None,
    '"Ann <x@evil.net>" ann@example.org': None,
    '"Ann <ann@example.org>"': None,
    '"Ann \\" <ann@example.org>" Lee': None,
    'Ann 5" <ann@example.org>': "ann@example.org",
    '"Ann" Lee <ann@example.org> "work"': "ann@example.org",
    "x > Ann <ann@example.org>": "ann@example.org",
    "Ann <ann@example.org> >": None,
    "Ann < ann@example.org >": None,
    "Ann <ann@example.org> eve@evil.net": "ann@example.org",
    "Ann\u200c\u200d <ann@example.org>": "ann@example.org",
    "Ann \U0001f468\u200d\U0001f469 <ann@example.org>": "ann@example.org",
    "Ann <ann@example.org>\u202e": "ann@example.org",
    "Ann <ann\u200d@example.org>": None,
    "ann@example.org\u200d": None,
    "Ann <ann@münchen.example>": "ann@xn--mnchen-3ya.example",
    "Ann <jörg@example.org>": "jörg@example.org",
    "Ann <JO\u0308RG@example.org>": "jörg@example.org",
    "Ann <ann@ex\u0430mple.org>": "ann@xn--exmple-4nf.org",
    "Ann <ann\u202e@example.org>": None,
    "Ann\u202e <ann@example.org>": "ann@example.org",
    "Ann <ann@example.org\0@evil.net>": None,
    "Ann\0 <ann@example.org>": "ann@example.org",
    "Ann\n<ann@example.org>": "ann@example.org",
    "Ann <ann@example.org": None,
    "Ann ann@example.org>": None,
    ">ann@example.org<": None,
    "<.a..b.@x.org>": None,
    "<a..b.@docomo.ne.jp>": "a..b.@docomo.ne.jp",
    "<ann@[192.0.2.1]>": None,
    "<ann@192.0.2.1>": None,
    "<ann@localhost>": "ann@localhost",
    "<ann@-x.org>": None,
    "<ann@x_y.org>": "ann@x_y.org",
    "<ann@x.org。>": None,
    "<>": None,
    "": None,
    "Ann": None,
    f"<{'a' * 65}@x.org>": None,
    f"<a@{'b' * 64}.org>": None,
}


@pytest.mark.parametrize("user_id", TABLE)
def test_strict_rule(user_id: str) -> None:
    assert address_of(user_id.encode()) == TABLE[user_id]


@pytest.mark.parametrize("user_id", [u for u, a in TABLE.items() if a == "ann@example.org" and u == u.strip()])
def test_gpg_finds_the_same_address(user_id: str, tmp_path: Path) -> None:
    """What gpg finds where it asks an upstream itself, it must find through us."""
    assert in_gpg(user_id, "ann@example.org", tmp_path)


@pytest.mark.parametrize(
    ("user_id", "address"),
    [
        ('"Ann <x@evil.net>" <ann@example.org>', "x@evil.net"),
        ('"Ann <x@evil.net>" ann@example.org', "x@evil.net"),
        ("Ann <ann@example.org> <eve@evil.net>", "ann@example.org"),
        ("Ann <ann@example.org> >", "ann@example.org"),
        ('"Ann <ann@example.org>"', "ann@example.org"),
        ("Ann <ann\u202e@example.org>", "ann\u202e@example.org"),
    ],
)
def test_gpg_reads_what_can_be_read_in_two_ways(user_id: str, address: str, tmp_path: Path) -> None:
    """And the strict rule does not: that much it is stricter, on purpose."""
    assert in_gpg(user_id, address, tmp_path)
    assert address_of(user_id.encode()) is None


def in_gpg(user_id: str, address: str, home: Path) -> bool:
    home.chmod(0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet"]
    subprocess.run([*gpg, "--import"], input=make_certificate([user_id]), check=True, capture_output=True)
    return subprocess.run([*gpg, "--list-keys", f"<{address}>"], capture_output=True).returncode == 0


def test_latin_1_name_with_ascii_address() -> None:
    assert address_of("Jörg <joerg@example.org>".encode("latin-1")) == "joerg@example.org"
    assert address_of("Jörg <joerg@example.org> (Büro)".encode("latin-1")) == "joerg@example.org"


def test_latin_1_address_is_none() -> None:
    assert address_of("Jörg <jörg@example.org>".encode("latin-1")) is None
    assert address_of("jörg@example.org".encode("latin-1")) is None


@given(st.binary(max_size=200) | st.text(max_size=80).map(str.encode))
def test_an_address_is_normal_or_none(user_id: bytes) -> None:
    address = address_of(user_id)
    assert address is None or parse_address(address) == address
