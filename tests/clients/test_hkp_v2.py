"""Two services, one asking the other by HKP v2 for what v1 has no room for: a certificate of version 6."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.openpgp import make
from support.running import Service

SIX = make(["Six Sixty <six@example.org>"], seed="six", version=6)
FOUR = make(["Four Forty <four@example.org>"], seed="four")
UPSTREAM = '[[upstream]]\nname = "two"\nurl = "hkp://127.0.0.1:{port}"\nhkp_version = "{version}"\n'


@pytest.mark.parametrize("version", ["2", "auto"])
async def test_a_certificate_of_version_6_comes_by_v2_and_is_kept(tmp_path: Path, version: str) -> None:
    (there := tmp_path / "there").mkdir()
    (here := tmp_path / "here").mkdir()
    ring = tmp_path / "ring.pgp"
    ring.write_bytes(SIX.octets + FOUR.octets)
    with Service(there) as behind:
        behind.cli("cache", "import", str(ring))
        config = UPSTREAM.format(port=behind.port(), version=version)
        with Service(here, config=config) as service:
            status, _, body = await service.get(f"/pks/v2/certs/by-vfingerprint/06{SIX.fingerprint}")
            assert (status, body) == (200, SIX.octets)
            assert (await service.lookup(FOUR.fingerprint))[0] == 200
            assert (await service.lookup("six@example.org"))[0] == 404, "no v6 in an answer of v1 to an address"
            assert (await service.get("/pks/v2/certs/by-identity/six@example.org"))[2] == SIX.octets
            assert (await service.lookup("nobody@example.org"))[0] == 404

            behind.kill()
            status, headers, body = await service.lookup(SIX.fingerprint)
            assert (status, headers["x-cache"]) == (200, "HIT"), "64 hex digits are answered by v1, too"
            assert body.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
            assert (await service.lookup(SIX.key_id))[0] == 404
            assert (await service.get(f"/pks/v2/certs/by-vfingerprint/06{SIX.fingerprint}"))[2] == SIX.octets
            shown = json.loads(service.cli("cache", "show", SIX.fingerprint, "--json"))
            assert [entry["method"] for entry in shown["entries"]] == ["hkp v2"]


async def test_by_v1_there_is_no_address_of_a_certificate_of_version_6(tmp_path: Path) -> None:
    """What the two versions differ in: the same two services, with v1 between them."""
    (there := tmp_path / "there").mkdir()
    (here := tmp_path / "here").mkdir()
    ring = tmp_path / "ring.pgp"
    ring.write_bytes(SIX.octets)
    with Service(there) as behind:
        behind.cli("cache", "import", str(ring))
        with Service(here, config=UPSTREAM.format(port=behind.port(), version="1")) as service:
            assert (await service.get("/pks/v2/certs/by-identity/six@example.org"))[0] == 404
