"""HKP v2 without sockets: what a path asks for, and the JSON index (draft-ietf-openpgp-hkp-01).

Section numbers are those of draft-gallagher-openpgp-hkp-10.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from keyserver.model import Proof, Subkey, UserId, Validity
from keyserver.query import ByFingerprint, ByKeyId

_VERSIONED = re.compile(r"(?:04/?|4/)([0-9A-Fa-f]{40})\Z|(?:06/?|6/)([0-9A-Fa-f]{64})\Z")
_KEY_ID = re.compile(r"[0-9A-Fa-f]{16}\Z")
_ALGORITHMS = {
    1: "RSA",
    16: "Elgamal",
    17: "DSA",
    18: "ECDH",
    19: "ECDSA",
    22: "EdDSALegacy",
    25: "X25519",
    26: "X448",
    27: "Ed25519",
    28: "Ed448",
}  # RFC 9580 §9.1


def read_fingerprint(text: str) -> ByFingerprint | None:
    """A fingerprint behind its version (§5.1.2): `04…`, and `4/…` as a widespread server has it; None for others."""
    found = _VERSIONED.match(text)
    return ByFingerprint((found[1] or found[2]).upper()) if found else None


def read_key_id(text: str) -> ByKeyId | None:
    """16 hex digits without 0x (§5.1.3); None for others."""
    return ByKeyId(text.upper()) if _KEY_ID.match(text) else None


def write_index(proofs: Iterable[Proof]) -> bytes:
    """The index (§7.1.1). Confidence is left out: we verify no addresses."""
    return json.dumps([_certificate(proof) for proof in proofs], ensure_ascii=False).encode("utf-8", "replace")


def _certificate(proof: Proof) -> dict[str, Any]:
    return {
        **_key(proof.version, proof, proof.validity is Validity.REVOKED),
        "userIDs": [_user_id(user_id) for user_id in proof.user_ids if user_id.text],
        "subkeys": [_key(proof.version, subkey, subkey.revoked) for subkey in proof.subkeys],
    }


def _user_id(user_id: UserId) -> dict[str, Any]:
    return {
        "uidString": user_id.text,
        "isRevoked": user_id.revoked,
        "creation": _time(user_id.created),
        **({} if user_id.expires is None else {"expiration": _time(user_id.expires)}),
    }


def _key(version: int, key: Proof | Subkey, revoked: bool) -> dict[str, Any]:
    algorithm: dict[str, Any] = {"code": key.algorithm}
    if name := _ALGORITHMS.get(key.algorithm):
        algorithm["name"] = name
    if key.bits:
        algorithm["bitLength"] = key.bits
    return {
        "version": version,
        "fingerprint": key.fingerprint.lower(),
        "isRevoked": revoked,
        "creation": _time(key.created),
        **({} if key.expires is None else {"expiration": _time(key.expires)}),
        "algorithm": algorithm,
    }


def _time(instant: int) -> str:
    """UTC as RFC 3339 §5.6 has it; the last second of the year 9999 for what is beyond."""
    return datetime.fromtimestamp(min(instant, 253402300799), UTC).isoformat().replace("+00:00", "Z")
