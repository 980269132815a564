"""Every certificate in Debian's keyring packages through the service into gpg, beside gpg's own clean import."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from keyserver.model import Certificate, Cut, Refused, Validity
from keyserver.openpgp import clean
from keyserver.openpgp.keyring import Splitter
from keyserver.openpgp.userid import text_of
from support.openpgp import armored
from support.running import Gpg, Service
from support.scripted import Scripted, raw

KEYRINGS = Path("/usr/share/keyrings")

EXCEPTIONS: dict[str, str] = {
    "A36878F464108681600CB64844173FA13D058888": "of 2010: every self-signature is over RIPEMD-160, which we do not "
    "verify (the library has no such hash), and nothing of it may be believed; the service answers 404",
}
"""Fingerprint -> why gpg's own import says something else; each looked into."""


@cache
def cleaned(octets: bytes) -> tuple[Certificate | Refused, ...]:
    """Once for all tests here: it is most of the work."""
    return tuple(clean(octets, 1_800_000_000))


@cache
def certificates() -> Mapping[str, bytes]:
    """Every certificate in the keyrings, by fingerprint; the longest copy where several files hold one."""
    found: dict[str, bytes] = {}
    for file in sorted(KEYRINGS.glob("debian-*.gpg")):
        splitter = Splitter(16 << 20)
        for piece in [*splitter.feed(file.read_bytes()), *splitter.end()]:
            assert isinstance(piece, Cut), (file, piece)
            for result in cleaned(piece.octets):
                assert result.fingerprint, (file, result)
                if len(piece.octets) > len(found.get(result.fingerprint, b"")):
                    found[result.fingerprint] = piece.octets
    return found


def listing(gpg: Gpg) -> dict[str, tuple[str, frozenset[str], frozenset[str]]]:
    """Fingerprint -> (is it revoked or expired, its valid user IDs, its valid subkeys)."""
    shown: dict[str, tuple[str, set[str], set[str]]] = {}
    last, wanted = "", ""
    state = {"r": "revoked", "e": "expired", "i": "invalid", "n": "invalid", "d": "disabled"}
    validity = ""
    for line in gpg.run("--list-keys", "--with-colons", "--with-subkey-fingerprints", seconds=200).stdout.splitlines():
        fields = line.split(":")
        if fields[0] in ("pub", "sub"):
            wanted, validity = fields[0], state.get(fields[1], "valid")
        elif fields[0] == "fpr" and wanted == "pub":
            last = fields[9]
            shown[last] = (validity, set(), set())
            wanted = ""
        elif fields[0] == "fpr" and wanted == "sub":
            if validity == "valid":
                shown[last][2].add(fields[9])
            wanted = ""
        elif fields[0] == "uid" and state.get(fields[1], "valid") == "valid":
            shown[last][1].add(fields[9])
    return {f: (v, frozenset(u), frozenset(s)) for f, (v, u, s) in shown.items()}


async def test_all_of_them(tmp_path: Path) -> None:
    """All in the long run; in the short one a fifth, and every exception."""
    originals = dict(certificates())
    assert len(originals) > 1000
    if os.environ.get("HYPOTHESIS_PROFILE") != "soak":
        originals = {f: o for n, (f, o) in enumerate(originals.items()) if n % 5 == 0 or f in EXCEPTIONS}
    routes = {f: raw_key(octets) for f, octets in originals.items()}
    free = asyncio.Semaphore(16)
    async with Scripted(dict(routes)) as upstream:
        # Patient: what counts here is what becomes of the certificates, however busy the machine is.
        patient = f'[[upstream]]\nname = "debian"\nurl = "{upstream.url}"\ntimeout = "20s"\n'
        with Service(tmp_path, config=patient, settings={"cache.deadline": '"30s"'}) as service:

            async def fetch(fingerprint: str) -> bytes:
                async with free:
                    status, _, body = await service.lookup(fingerprint)
                    assert (status == 404) if fingerprint in EXCEPTIONS else (status == 200), (fingerprint, body)
                    return body if status == 200 else b""

            bodies = await asyncio.gather(*(fetch(f) for f in originals))
    with Gpg(tmp_path / "ours") as ours, Gpg(tmp_path / "theirs") as theirs:
        (tmp_path / "ours.asc").write_bytes(b"\n".join(bodies))
        (tmp_path / "theirs.gpg").write_bytes(b"".join(originals.values()))
        import_ours = asyncio.to_thread(ours.run, "--import", str(tmp_path / "ours.asc"), check=False, seconds=200)
        import_theirs = asyncio.to_thread(
            theirs.run, "--import-options", "self-sigs-only,import-clean", "--import", str(tmp_path / "theirs.gpg"),
            check=False, seconds=200,
        )  # fmt: skip
        done, _ = await asyncio.gather(import_ours, import_theirs)
        assert re.search(r"IMPORT_RES (\d+)", done.stdout)
        mine, reference = listing(ours), listing(theirs)
    different = {f: (mine.get(f), reference[f]) for f in reference if mine.get(f) != reference[f]}
    unexpected = {f: pair for f, pair in different.items() if f not in EXCEPTIONS}
    assert not unexpected, f"{len(unexpected)} of {len(reference)}: " + "\n".join(
        map(str, list(unexpected.items())[:5])
    )
    assert set(EXCEPTIONS) <= set(different), "an exception that is none any more"


def raw_key(octets: bytes):  # type: ignore[no-untyped-def]
    """As a keyserver sends it, made only when it is asked."""

    async def behave(request, writer):  # type: ignore[no-untyped-def]
        body = armored(octets).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/pgp-keys\r\nContent-Length: {len(body)}\r\n\r\n"
        return await raw(head.encode() + body, close=False)(request, writer)

    return behave


def test_every_one_is_kept_with_what_it_proves() -> None:
    for fingerprint, octets in list(certificates().items())[::25]:
        (result,) = cleaned(octets)
        assert isinstance(result, Certificate)
        assert result.fingerprint == fingerprint
        assert len(result.octets) <= len(octets)


def test_every_user_id_in_debians_keyrings_is_listed_as_gpg_lists_it(tmp_path: Path) -> None:
    originals = certificates()
    ours: dict[str, frozenset[tuple[str, bool]]] = {}
    for fingerprint, octets in originals.items():
        (found,) = cleaned(octets)
        if isinstance(found, Refused):
            continue
        revoked = found.proof.validity is Validity.REVOKED
        ours[fingerprint] = frozenset((u.text, u.revoked or revoked) for u in found.proof.user_ids)
    theirs = gpg_lists(b"".join(originals[f] for f in ours), tmp_path / "g")
    different = {f: (ours[f] - theirs[f], theirs[f] - ours[f]) for f in ours if ours[f] != theirs[f]}
    assert not different, f"{len(different)} of {len(ours)}: {list(different.items())[:5]}"
    assert sum(gone for listed in ours.values() for _, gone in listed) > 400


def gpg_lists(octets: bytes, home: Path) -> dict[str, frozenset[tuple[str, bool]]]:
    """Fingerprint -> its user IDs, True for those that are revoked."""
    with Gpg(home) as gpg:
        show = ["--import-options", "show-only", "--with-colons", "--import"]
        listed = subprocess.run(
            ["gpg", "--homedir", str(gpg.home), "--batch", *show], input=octets, capture_output=True, check=False
        ).stdout
    found: dict[str, set[tuple[str, bool]]] = {}
    last, primary = "", False
    for fields in (line.decode("latin-1").split(":") for line in listed.split(b"\n")):
        if fields[0] in ("pub", "sub"):
            primary = fields[0] == "pub"
        elif fields[0] == "fpr" and primary:
            last = fields[9]
            found[last] = set()
        elif fields[0] == "uid":
            text = re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), fields[9])
            found[last].add((text_of(text.encode("latin-1")), fields[1] == "r"))
    return {fingerprint: frozenset(user_ids) for fingerprint, user_ids in found.items()}
