"""Private keys that take long to make, made beforehand and worth nothing: tests/vectors/keys has some of each size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import cycle
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import dsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_FOLDER = Path(__file__).parent.parent / "vectors" / "keys"
_END = b"-----END PRIVATE KEY-----\n"


def next_rsa(bits: int) -> rsa.RSAPrivateKey:
    """Another one than the last; a fresh one of a size of which none are kept."""
    if turns := _turns(f"rsa{bits}"):
        key = next(turns)
        assert isinstance(key, rsa.RSAPrivateKey)
        return key
    return rsa.generate_private_key(65537, bits)


def next_dsa(bits: int) -> dsa.DSAPrivateKey:
    """Another one than the last; a fresh one of a size of which none are kept."""
    if turns := _turns(f"dsa{bits}"):
        key = next(turns)
        assert isinstance(key, dsa.DSAPrivateKey)
        return key
    return dsa.generate_private_key(bits)


@cache
def _turns(kind: str) -> Iterator[PrivateKeyTypes] | None:
    file = _FOLDER / f"{kind}.pem"
    if not file.exists():
        return None
    blocks = file.read_bytes().split(_END)[:-1]
    return cycle([load_pem_private_key(block + _END, None, unsafe_skip_rsa_key_validation=True) for block in blocks])
