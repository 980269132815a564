"""Hostile text, fingerprints and algorithms as people are shown them on every page. Pure."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

MAX_SHOWN = 320  # characters of one hostile text that are shown

_FORBIDDEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_MARKS = frozenset({"Mn", "Me"})
_MOST_MARKS = 3  # combining marks in a row; more would climb over the neighbouring lines
_ALGORITHMS: Mapping[int, str] = {
    1: "RSA",
    2: "RSA",
    3: "RSA",
    16: "Elgamal",
    17: "DSA",
    18: "ECDH",
    19: "ECDSA",
    20: "Elgamal",
    22: "EdDSA",
    25: "X25519",
    26: "X448",
    27: "Ed25519",
    28: "Ed448",
}
_SIZED = frozenset({1, 2, 3, 16, 17, 18, 19, 20, 22})  # algorithms whose name does not say their size


def readable(text: str) -> str:
    """Hostile text shortened, without controls, bidirectional overrides and heaps of combining marks; not escaped."""
    kept: list[str] = []
    marks = 0
    for character in text[:MAX_SHOWN]:
        category = unicodedata.category(character)
        marks = marks + 1 if category in _MARKS else 0
        if category in _FORBIDDEN:
            kept.append("\N{REPLACEMENT CHARACTER}")
        elif marks <= _MOST_MARKS:
            kept.append(character)
    if len(text) > MAX_SHOWN:
        kept.append("…")
    return "".join(kept)


def grouped(fingerprint: str) -> str:
    """Hex digits in groups of four."""
    return " ".join(fingerprint[n : n + 4] for n in range(0, len(fingerprint), 4))


def algorithm(number: int, bits: int) -> str:
    """A public-key algorithm's name (RFC 9580 §9.1), with its size where the name does not say it."""
    name = _ALGORITHMS.get(number, f"algorithm {number}")
    return f"{name} {bits}" if bits and (number in _SIZED or number not in _ALGORITHMS) else name
