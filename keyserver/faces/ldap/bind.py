"""Who may bind (RFC 4513 section 5.1): everybody anonymously, and the one account of the configuration. Pure.

A bind changes nothing of what is answered. It is there for clients that know no other way than with a name.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from hashlib import sha256

from keyserver.faces.ldap.schema import read_dn
from keyserver.wire import ldap as wire
from keyserver.wire.dn import BadDn
from keyserver.wire.ldap import Code


@dataclass(frozen=True, slots=True)
class Account:
    """The name and password that succeed. Raises BadDn for a name that is no distinguished name."""

    name: str
    password: bytes = field(repr=False)

    def __post_init__(self) -> None:
        read_dn(self.name)

    def fits(self, name: str, password: bytes) -> bool:
        """Are these its credentials? Names are compared as RFC 4514 and 4517 say, passwords in constant time."""
        right = hmac.compare_digest(sha256(password).digest(), sha256(self.password).digest())
        try:
            return read_dn(name) == read_dn(self.name) and right
        except BadDn:
            return False


@dataclass(frozen=True, slots=True)
class BindOutcome:
    """The result of a bind, and who the client is from now on (an authzId, RFC 4513 section 5.2.1.8)."""

    code: Code
    text: str = ""
    identity: str = ""


def authenticate(bind: wire.BindRequest, account: Account | None, *, confidential: bool) -> BindOutcome:
    """What a bind comes to. `confidential`: nobody between us and the client can have read it; without that nothing is
    said about a password, right or wrong."""
    if bind.version != 3:
        return BindOutcome(Code.PROTOCOL_ERROR, "this is LDAP version 3")
    if not bind.simple:
        return BindOutcome(Code.AUTH_METHOD, "bind anonymously, with an empty name and password")
    if not bind.password:
        if not bind.name:
            return BindOutcome(Code.SUCCESS)
        text = "a name without a password is no authentication (RFC 4513 section 5.1.2)"
        return BindOutcome(Code.UNWILLING, text)
    if account is None:
        return BindOutcome(Code.INVALID_CREDENTIALS, "nobody has an account here: bind anonymously")
    if not confidential:
        return BindOutcome(Code.CONFIDENTIALITY_REQUIRED, "passwords are taken over TLS only; or bind anonymously")
    if account.fits(bind.name, bind.password):
        return BindOutcome(Code.SUCCESS, identity=f"dn:{account.name}")
    return BindOutcome(Code.INVALID_CREDENTIALS, "the name or password is wrong")
