"""What viewers are shown where `admin.viewer_identities` is off: counts, hashes and domains. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Hash = Callable[[str], str]
"""An address or name to its keyed hash: equal ones can be followed, none can be guessed."""

_IDENTITIES = frozenset({"identities", "user_ids", "subject"})
"""Members that say who somebody is; of what lies in them nothing but addresses' domains is shown."""

_ADDRESS = re.compile(r"""("[^"]*"|(?<![^\s<>()\[\],;:"'@])[^\s<>()\[\],;:"@]+)@([^\s<>()\[\],;:"'@]+)""")
"""Words without `@` are tried at their beginning, not at each letter."""


def masked(value: object, hash_: Hash, *, identity: bool = False) -> object:
    """A plain value (what JSON can say) without addresses and names: `#hash@domain` in their place.

    identity: is this somebody's name, as a whole?"""
    if isinstance(value, str):
        return _name(value, hash_) if identity else _ADDRESS.sub(lambda found: _address(found, hash_), value)
    if isinstance(value, Mapping):
        return {name: masked(inner, hash_, identity=identity or name in _IDENTITIES) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner, hash_, identity=identity) for inner in value]
    return value


def _address(found: re.Match[str], hash_: Hash) -> str:
    return f"{hash_(found[0].lower())}@{found[2]}"


def _name(text: str, hash_: Hash) -> str:
    addresses = [_address(found, hash_) for found in _ADDRESS.finditer(text)]
    return ", ".join(addresses) or (hash_(text) if text else "")
