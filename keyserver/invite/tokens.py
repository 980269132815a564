"""The two secrets of an invitation: who has one has read the encrypted mail. Pure.

The second is derived from the first, so that whoever confirms can be shown the link that takes it back, and not the
other way round. The store has digests only.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass

OCTETS = 32
CONFIRM, WITHDRAW = "confirm", "withdraw"
"""What stands before the token in the path of a link."""

_LENGTH = 43  # characters of 32 octets in base64url without padding (RFC 4648 section 5)


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """One secret of 256 bits; it appears in links, and in no log."""

    octets: bytes

    def __str__(self) -> str:
        """As it stands in a link."""
        return base64.urlsafe_b64encode(self.octets).rstrip(b"=").decode()

    def __repr__(self) -> str:
        return "Token(…)"

    @property
    def digest(self) -> bytes:
        """SHA-256, by which the store knows it."""
        return hashlib.sha256(self.octets).digest()

    @property
    def withdrawal(self) -> Token:
        """Of a token that confirms: the one that takes the consent back."""
        return Token(hmac.digest(self.octets, WITHDRAW.encode(), "sha256"))


def read(text: str) -> Token | None:
    """The token that is spelled so; None for anything else, also for other spellings of the same octets."""
    if len(text) != _LENGTH or not text.isascii():
        return None
    try:
        token = Token(base64.b64decode(text + "=", b"-_", validate=True))
    except binascii.Error:
        return None
    return token if str(token) == text else None


def confirm_link(public_url: str, confirm: Token) -> str:
    """Where the owner confirms. `public_url`: of the configuration."""
    return f"{public_url.rstrip('/')}/{CONFIRM}/{confirm}"


def withdraw_link(public_url: str, withdraw: Token) -> str:
    """Where the owner takes it back. `withdraw`: the `withdrawal` of the other token."""
    return f"{public_url.rstrip('/')}/{WITHDRAW}/{withdraw}"
