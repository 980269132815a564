"""What an invitation says to the owner of a certificate: with the links, so only ever sent encrypted. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from keyserver.invite.tokens import Token, confirm_link, withdraw_link
from keyserver.model import Kind

_TEXT = """\
{host} asks for your consent.

{host} tells mail servers and mail clients which certificate (or
"public key") belongs to an e-mail address, so that they can encrypt mail to
it. It has found this one:

    address      {address}
    certificate  {kind}, fingerprint
                 {fingerprint}

This message could only be read with the private key to that certificate. If
both are yours, and mail to you is to be encrypted with it, open this page and
press the button on it:

{confirm}

By that you confirm that the address and the certificate belong together, and
allow {host} to hand out the certificate for the address. Nothing else is
asked, and nothing has to be signed up for. The page can be used once, until
{until}.

To take that back, now or at any later time, open this page and press the
button on it; the certificate is then deleted there:

{withdraw}

If you do nothing, nothing changes.
"""

_KINDS = {Kind.OPENPGP: "OpenPGP", Kind.X509: "S/MIME"}


@dataclass(frozen=True, slots=True)
class Request:
    """What one invitation is about."""

    address: str  # normalised by the strict rule, so it may stand in text and headers
    fingerprint: str
    kind: Kind
    public_url: str
    confirm: Token
    expires_at: int  # Unix seconds


def text_of(request: Request) -> str:
    """The text, its lines ended by LF."""
    return _TEXT.format(
        host=urlsplit(request.public_url).netloc,
        address=request.address,
        kind=_KINDS[request.kind],
        fingerprint=_grouped(request.fingerprint),
        confirm=confirm_link(request.public_url, request.confirm),
        withdraw=withdraw_link(request.public_url, request.confirm.withdrawal),
        until=f"{datetime.fromtimestamp(request.expires_at, UTC):%Y-%m-%d %H:%M} UTC",
    )


def _grouped(fingerprint: str) -> str:
    """Four digits each, in lines of forty."""
    groups = [fingerprint[at : at + 4] for at in range(0, len(fingerprint), 4)]
    lines = [" ".join(groups[at : at + 10]) for at in range(0, len(groups), 10)]
    return ("\n" + " " * 17).join(lines)
