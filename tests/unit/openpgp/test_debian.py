"""A sample of Debian's keyrings against two independent readers: gpg and pgpy."""

import signal
import statistics
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from keyserver.model import Certificate
from keyserver.openpgp import clean, index, merge, packets, prove, revocations
from keyserver.openpgp.userid import text_of

KEYRINGS = Path("/usr/share/keyrings")
NOW = 1_672_531_200  # 2023-01-01: the keyring package is of December 2022
BY_GPG, BY_PGPY = 120, 12
KEYS = (packets.PUBLIC_KEY, packets.SUBKEY)


@pytest.fixture(scope="module")
def sample() -> list[bytes]:
    """Every eighth certificate of the keyrings."""
    found = []
    for name in ("debian-keyring", "debian-maintainers", "debian-nonupload", "debian-role-keys"):
        path = KEYRINGS / f"{name}.gpg"
        if not path.exists():
            pytest.fail(f"{path} is needed: install the package debian-keyring")
        found += split(path.read_bytes())[::8]
    return found


@pytest.fixture(scope="module")
def certificates(sample: list[bytes]) -> list[Certificate]:
    found = [clean(octets, NOW) for octets in sample]
    return [f for (f,) in found if isinstance(f, Certificate)]


def split(octets: bytes) -> list[bytes]:
    starts, before = [], 0
    for tag, _, end in packets.walk(octets, 10**7):
        if tag == packets.PUBLIC_KEY:
            starts.append(before)
        before = end
    return [octets[a:b] for a, b in zip(starts, [*starts[1:], len(octets)], strict=True)]


def test_nearly_all_are_clean(sample: list[bytes], certificates: list[Certificate]) -> None:
    """One certificate of the whole corpus has RIPEMD-160 self-signatures only, which prove nothing here."""
    assert len(certificates) >= len(sample) - 1 > 100


def test_cleaning_again_and_merging_change_nothing(certificates: list[Certificate]) -> None:
    for certificate in certificates[::4]:
        octets = certificate.octets
        assert clean(octets, NOW) == [certificate]
        assert prove(octets, NOW) == certificate.proof
        assert merge([octets], revocations(octets)) == octets
        assert index(octets) == (certificate.proof.index, certificate.proof.identities)
        assert certificate.proof.index >= certificate.proof.names


def test_packet_bodies_come_from_the_input(sample: list[bytes], certificates: list[Certificate]) -> None:
    bodies = {c[start:end] for c in sample for _, start, end in packets.walk(c, 10**6)}
    assert bodies >= {c.octets[start:end] for c in certificates for _, start, end in packets.walk(c.octets, 10**6)}


def test_fingerprints_algorithms_and_dates_as_gpg_reads_them(certificates: list[Certificate], tmp_path: Path) -> None:
    chosen = certificates[:BY_GPG]
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    command = ["gpg", "--homedir", str(home), "--batch", "--with-colons", "--show-keys"]
    octets = b"".join(c.octets for c in chosen)
    listing = subprocess.run(command, input=octets, check=True, capture_output=True, timeout=120).stdout
    by_gpg: dict[str, list[tuple[str, ...]]] = {}
    texts: dict[str, set[str]] = {}
    primary, fields = "", [""]
    for line in listing.splitlines():
        record = text_of(line).split(":")
        if record[0] in ("pub", "sub"):
            fields = record
        elif record[0] == "fpr":
            primary = record[9] if fields[0] == "pub" else primary
            by_gpg.setdefault(primary, []).append((record[9], fields[4], fields[3], fields[5]))
        elif record[0] == "uid":
            texts.setdefault(primary, set()).add(record[9].replace("\\x3a", ":"))
    assert len(by_gpg) == len(chosen)
    for certificate in chosen:
        proof = certificate.proof
        keys = [(k.fingerprint, k.key_id, str(k.algorithm), str(k.created)) for k in (proof, *proof.subkeys)]
        assert set(keys) <= set(by_gpg[proof.fingerprint])  # gpg lists a subkey that was only ever revoked, too
        held = [certificate.octets[a:b] for tag, a, b in packets.walk(certificate.octets, 999) if tag in KEYS]
        fingerprints = {packets.parse_key(body).fingerprint.hex().upper() for body in held}
        assert fingerprints == {fingerprint for fingerprint, *_ in by_gpg[proof.fingerprint]}
        assert {u.text for u in proof.user_ids} <= texts[proof.fingerprint]


def test_pgpy_reads_the_same(certificates: list[Certificate]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pgpy
    for certificate in [c for c in certificates if len(c.octets) < 20_000][:: len(certificates) // BY_PGPY]:
        with at_most(seconds=10), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            key: Any = pgpy.PGPKey.from_blob(certificate.octets)[0]
            seen = {str(k.fingerprint).replace(" ", "") for k in key.subkeys.values()}
            user_ids = {bytes(u._uid)[bytes(u._uid).index(b"\xb4") :] and u._uid.uid for u in key.userids}
        proof = certificate.proof
        assert str(key.fingerprint).replace(" ", "") == proof.fingerprint
        assert int(key.created.timestamp()) == proof.created
        assert {s.fingerprint for s in proof.subkeys} <= seen
        assert {u.text for u in proof.user_ids} <= user_ids


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """An independent reader may hang; this one has done so."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_proving_is_quick(certificates: list[Certificate]) -> None:
    """No figure for a benchmark: it only keeps a signature check from slipping into `prove`."""
    times = []
    for certificate in certificates:
        start = time.process_time()
        prove(certificate.octets, NOW)
        times.append(time.process_time() - start)
    assert statistics.median(times) < 0.005
