"""What real issuers get wrong: openssl and gpgsm are asked whether they can encrypt to it, and we keep what both can.

Every difference has its rule in the table; a verdict without one is a failure.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from keyserver import smime
from keyserver.model import Certificate, Refused
from support import x509odd

NOW = 1_790_000_000  # 2026-09-21
CORPUS = x509odd.corpus()
STRICT = "not strict DER"
NO_ADDRESS = "names something that is no address"
NOT_SHOWN = "a name that cannot be shown"

KEPT: dict[str, tuple[str, ...]] = {
    "control": (),
    "critical-false-encoded": (STRICT,),
    "ca-false-encoded": (STRICT,),
    "true-as-one": (STRICT,),
    "usage-trailing-zero-bits": (),
    "usage-two-octets": (),
    "usage-set-unused-bits": (STRICT,),
    "length-in-long-form": (STRICT,),
    "length-in-long-form-inside": (STRICT,),
    "indefinite-outside": (STRICT,),
    "indefinite-extension-value": (STRICT,),
    "trailing-octets": (),  # they are no part of it
    "trailing-in-extension": (STRICT,),
    "rdn-set-unsorted": (STRICT,),
    "rdn-set-empty": (STRICT,),
    "no-parameters": (),
    "parameters-differ": (),
    "printable-at-sign": (STRICT,),
    "printable-umlaut": (STRICT,),
    "teletex-latin1": (STRICT,),
    "utf8-that-is-latin1": (STRICT, NOT_SHOWN),
    "ia5-umlaut": (STRICT,),
    "bmp": (),
    "bmp-odd-length": (STRICT, NOT_SHOWN),
    "bmp-surrogates": (),
    "universal": (),
    "numeric-letters": (),
    "visible": (),
    "name-that-is-an-integer": (STRICT, NOT_SHOWN),
    "country-of-three": (),
    "empty-common-name": (),
    "empty-subject": (),
    "subject-zwnj": (),
    "subject-bidi": (NOT_SHOWN,),
    "subject-nul": (NOT_SHOWN,),
    "serial-zero": ("serial number not positive",),
    "serial-negative": ("serial number not positive",),
    "serial-padded": (STRICT,),
    "serial-21-octets": ("serial number longer than 20 octets",),
    "serial-64-octets": ("serial number longer than 20 octets",),
    "version-1": ("X.509 version 1",),
    "version-1-encoded": (STRICT, "X.509 version 1"),
    "version-1-with-extensions": ("X.509 version 1",),
    "version-2": (STRICT, "X.509 version 2"),
    "version-4": (STRICT, "X.509 version 4"),
    "version-7": (STRICT, "X.509 version 7"),
    "unique-identifiers": (),
    "no-expiry-9999": ("no expiry",),
    "fifty-years": ("valid for more than 40 years",),
    "generalized-before-2050": (),
    "utc-without-seconds": (STRICT,),
    "no-such-day": (STRICT,),
    "bad-address-beside": (NO_ADDRESS,),
    "address-with-name": (NO_ADDRESS,),
    "address-utf8": (NO_ADDRESS,),
    "address-empty": (NO_ADDRESS,),
    "smtp-utf8-garbage": (STRICT, NO_ADDRESS),
    "ip-of-five-octets": (STRICT,),
    "dns-umlaut": (),
    "dns-with-space": (),
    "uri-relative": (),
    "principal-name": (),
    "names-empty": (),
    "names-garbage": (STRICT,),
    "names-cut-off": (STRICT,),
    "names-twice": (STRICT,),
    "names-dns-and-subject": (),
    "names-bad-address-and-subject": (NO_ADDRESS,),
    "names-absent": (),
    "subject-mail-utf8": (),
    "subject-mail-printable": (STRICT,),
    "subject-mail-same": (),
    "subject-mail-other": (),
    "subject-mail-bad": (NO_ADDRESS,),
    "unknown-garbage": (),
    "points-garbage": (STRICT,),
    "policies-garbage": (STRICT,),
    "authority-key-garbage": (STRICT,),
    "subject-key-garbage": (STRICT,),
    "basic-absent": (),
    "basic-path-length-without-ca": (STRICT,),
    "usage-absent": (),
    "usage-nothing": (),
    "extended-absent": (),
    "extended-any": (),
    "extended-empty": (STRICT,),
    "key-without-parameters": (),
    "key-negative-modulus": (STRICT,),
    "key-padded-modulus": (STRICT,),
    "key-padded-exponent": (STRICT,),
    "key-for-pss-only": (),
}  # fmt: skip
"""Kept, with these remarks."""

REFUSED = {
    "serial-empty": "no number",
    "utc-with-offset": "a date",
    "generalized-fraction": "a date",
    "ends-before-it-begins": "ends before it begins",
    "address-nul": "an address with control",
    "address-bidi": "an address with control",
    "subject-mail-nul": "an address with control",
    "extended-garbage": "cannot be read",
    "key-even-exponent": "nobody should use",
    "key-exponent-one": "nobody should use",
    "a-ca": "a CA certificate",
    "a-ca-true-as-one": "a CA certificate",
    "server-only": "extended key usage",
    "unknown-critical": "unknown critical extension 1.2.3.4",
    "unknown-critical-as-one": "unknown critical extension 1.2.3.4",
    "key-of-1024-bits": "1024 bits",
    "signed-with-sha1": "SHA1",
}

STRICTER = {
    "address-nul": "NUL in an address deceives",
    "address-bidi": "so do characters that turn the text",
    "subject-mail-nul": "NUL in an address deceives",
    "key-even-exponent": "weak",
    "key-exponent-one": "weak: what is encrypted to it is in clear",
    "a-ca": "CA certificates are nobody's",
    "a-ca-true-as-one": "CA certificates are nobody's",
    "server-only": "an extended key usage that leaves mail out",
    "key-of-1024-bits": "weak",
}
"""Both tools encrypt to it, we refuse it, and why."""

LOOSER = {
    "indefinite-outside": "openssl only: BER is read wherever it stands",
    "rdn-set-empty": "openssl only: gpgsm does not read names that are empty",
    "empty-subject": "openssl only, and right by RFC 5280 section 4.1.2.6",
    "utf8-that-is-latin1": "gpgsm only: one bad name costs that name",
    "bmp-odd-length": "gpgsm only: one bad name costs that name",
    "bmp-surrogates": "gpgsm only: UTF-16, as many write",
    "visible": "gpgsm only: text it is",
    "name-that-is-an-integer": "gpgsm only: one bad name costs that name",
    "serial-padded": "gpgsm only: the number is clear",
    "policies-garbage": "openssl only: nobody is found by policies",
    "extended-any": "openssl only: anyExtendedKeyUsage allows mail, too (RFC 8550 section 4.4.4)",
}
"""One of them cannot, and we keep it all the same as fit to be encrypted to, and why."""


def verdict(octets: bytes) -> Certificate | Refused:
    (result,) = smime.clean(octets, NOW)
    return result


def kept(name: str) -> Certificate:
    result = verdict(CORPUS[name])
    assert isinstance(result, Certificate), result
    return result


@pytest.mark.parametrize("name", CORPUS)
def test_every_kind_has_its_verdict(name: str) -> None:
    result = verdict(CORPUS[name])
    if name in REFUSED:
        assert isinstance(result, Refused)
        assert REFUSED[name] in result.reason
        return
    assert isinstance(result, Certificate), result
    assert result.proof.marks == KEPT[name]
    assert "alice@example.org" in {u.address for u in result.proof.user_ids}
    assert CORPUS[name].startswith(result.octets), "as it came"
    assert smime.prove(result.octets, NOW) == result.proof


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("bad-address-beside", ["alice@example.org"]),
        ("address-with-name", ["alice@example.org"]),
        ("names-twice", ["alice@example.org", "carol@example.org"]),
        ("names-dns-and-subject", ["alice@example.org"]),
        ("names-garbage", ["alice@example.org"]),
        ("names-bad-address-and-subject", ["alice@example.org"]),
        ("subject-mail-same", ["alice@example.org"]),
        ("subject-mail-other", ["alice@example.org"]),  # another address among the names contradicts
        ("subject-mail-bad", ["alice@example.org"]),
    ],
)
def test_which_addresses_count(name: str, addresses: list[str]) -> None:
    assert [u.address for u in kept(name).proof.user_ids] == addresses


def test_how_odd_names_are_shown() -> None:
    def common_name(name: str) -> str:
        facts = kept(name).proof.x509
        assert facts is not None
        return facts.common_name

    latin = ("printable-umlaut", "teletex-latin1", "ia5-umlaut", "bmp", "universal")
    assert {common_name(name) for name in latin} == {"Jörg"}
    assert common_name("subject-zwnj") == "علی\u200cرضا"
    assert {common_name(name) for name in ("subject-bidi", "subject-nul", "utf8-that-is-latin1")} == {""}
    facts = kept("subject-bidi").proof.x509
    assert facts is not None
    assert facts.subject == "CN=#0c" + len("Alice \u202egro.elpmaxe".encode()).to_bytes(1, "big").hex() + (
        "Alice \u202egro.elpmaxe".encode().hex()
    )


def test_a_date_without_an_end_never_turns() -> None:
    proof = kept("no-expiry-9999").proof
    assert (proof.expires, proof.turns) == (None, None)
    assert smime.prove(CORPUS["no-expiry-9999"], 1 << 40).can_encrypt is False, "after the year 9999"


def test_the_31st_of_february_is_the_3rd_of_march() -> None:
    assert kept("no-such-day").proof.expires == kept("control").proof.expires + (31 + 28 + 2) * 86400  # type: ignore[operator]


@dataclass
class Tools:
    """openssl, and a gpgsm that trusts the corpus's CA."""

    folder: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        environment = os.environ | {"GNUPGHOME": str(self.folder)}
        return subprocess.run(words, input=b"hello", capture_output=True, timeout=60, env=environment)

    def openssl(self, file: Path) -> bool:
        """Can it encrypt to this certificate?"""
        pem, out = file.with_suffix(".pem"), file.with_suffix(".cms")
        if self.run("openssl", "x509", "-inform", "DER", "-in", str(file), "-out", str(pem)).returncode:
            return False
        return not self.run("openssl", "cms", "-encrypt", "-aes256", "-out", str(out), str(pem)).returncode

    def gpgsm(self, file: Path) -> bool:
        """Can it?"""
        words = ("gpgsm", "--batch", "--no-tty", "--disable-crl-checks", "--disable-dirmngr", "--yes")
        said = self.run(*words, "--status-fd", "1", "--import", str(file)).stdout.decode()
        found = [line.split()[3] for line in said.splitlines() if "IMPORT_OK" in line]
        out = str(file.with_suffix(".gpgsm"))
        return bool(found) and not self.run(*words, "-r", found[0], "-o", out, "--encrypt").returncode


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    folder = tmp_path_factory.mktemp("g")
    folder.chmod(0o700)
    made = Tools(folder)
    anchor = x509odd.root().certificate.fingerprint(hashes.SHA1()).hex().upper()
    (folder / "trustlist.txt").write_text(f"{anchor} S relax\n")
    (folder / "root.der").write_bytes(x509odd.root().der)
    made.run("gpgsm", "--batch", "--import", str(folder / "root.der"))
    yield made
    made.run("gpgconf", "--kill", "all")


def test_what_openssl_and_gpgsm_encrypt_to_is_kept(tools: Tools) -> None:
    """And whatever differs is in a table with its reason."""
    looser, stricter = set(), set()
    for name, octets in CORPUS.items():
        file = tools.folder / f"{name}.der"
        file.write_bytes(octets)
        both = tools.openssl(file) and tools.gpgsm(file)
        result = verdict(octets)
        ours = isinstance(result, Certificate) and result.proof.can_encrypt
        if both and not ours:
            stricter.add(name)
        elif ours and not both:
            looser.add(name)
    assert (stricter, looser) == (set(STRICTER), set(LOOSER))
