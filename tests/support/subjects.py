"""A certificate that nodes are asked for: its versions, as upstreams, administrators and mail have them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from support.history import History, Put
from support.mails import attached_key, crlf, head, multipart, text
from support.openpgp import CREATED, Key, direct, make, new_key, reason

AUTHSERV = "mx"
"""Whose Authentication-Results count."""


@dataclass
class Subject:
    """One certificate, and what happened to it."""

    number: int
    history: History = field(default_factory=History)
    finds: dict[str, Put] = field(default_factory=dict)
    """What the upstream gave; acknowledged when a node answers it as cached."""

    def __post_init__(self) -> None:
        self.primary: Key = new_key(seed=f"nodes{self.number}")
        packet = direct(
            self.primary, type_=0x20, hashed=reason(3), created=CREATED + 86400, hash_name="sha512", old=True
        )
        self.revocation = packet[5:]

    def version(self, number: int, *, revoked: bool = False) -> bytes:
        return make(
            [f"v{number} <{self.address(number)}>"],
            primary=self.primary,
            encryption=None,
            revoked=3 if revoked else None,
        ).octets

    def address(self, number: int) -> str:
        """Of a version's user ID."""
        return f"v{number}@s{self.number}.example"

    def mail(self, number: int) -> bytes:
        """An authenticated one, from that address, with the version attached."""
        results = f"{AUTHSERV}; dmarc=pass header.from=s{self.number}.example"
        top = head(self.address(number), f"{number}@mail.example", Authentication_Results=results)
        return crlf(top + multipart(text(), attached_key(self.version(number))))

    def known(self) -> History:
        """The history with all finds."""
        return replace(self.history, puts=[*self.history.puts, *self.finds.values()])
