"""Handing mail to the relay by SMTP (RFC 5321): nothing without a time limit, a password over TLS only."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aiosmtplib import SMTP
from aiosmtplib.email import quote_address
from aiosmtplib.errors import SMTPException, SMTPResponseException, SMTPServerDisconnected, SMTPTimeoutError

from keyserver.config.passwords import read_password
from keyserver.config.sections.mail import InviteSection
from keyserver.invite.composing import Mail
from keyserver.invite.problem import NotInvited

ONE = 20.0  # seconds for each step
ALL = 60.0  # seconds for all of it
FAREWELL = 2.0  # seconds for QUIT, when the mail is there already
_SHOWN = 300  # characters of what a relay says


class NotTaken(NotInvited):
    """The relay has not taken the mail, that much is sure."""


class Unsure(NotInvited):
    """The mail was sent, and the relay has not said whether it took it."""


@dataclass(frozen=True, slots=True)
class Relay:
    """Where mail is handed to, and how."""

    host: str
    port: int
    wrapped: bool  # TLS from the first octet on
    must_tls: bool
    context: ssl.SSLContext
    user: str = ""
    password: str = field(default="", repr=False)


def relay_of(settings: InviteSection) -> Relay:
    """The relay of the configuration, with its password as it is now. Raises NotInvited; reads files."""
    url = urlsplit(settings.smtp)
    wrapped = url.scheme == "smtps"
    try:
        context = ssl.create_default_context(cafile=settings.smtp_ca_file)
        file = settings.smtp_password_file
        password = read_password("invite.smtp_password_file", file).decode() if file is not None else ""
    except (OSError, UnicodeDecodeError) as problem:  # an SSLError is an OSError, too
        raise NotInvited(f"the relay's password or authorities cannot be read: {problem}") from None
    return Relay(
        host=url.hostname or "",
        port=url.port or (465 if wrapped else 25),
        wrapped=wrapped,
        must_tls=settings.smtp_tls == "required",
        context=context,
        user=settings.smtp_user,
        password=password,
    )


async def hand_over(mail: Mail, relay: Relay, one: float = ONE, all_: float = ALL) -> None:
    """Return when the relay has taken it. Raises NotTaken, Unsure. one, all_: seconds."""
    client = SMTP(
        hostname=relay.host,
        port=relay.port,
        use_tls=relay.wrapped,
        start_tls=False,
        timeout=one,
        tls_context=relay.context,
        local_hostname=socket.gethostname(),  # the default asks DNS
    )
    try:
        async with asyncio.timeout(all_):
            await _greet(client, relay)
            await _address(client, mail)
    except (SMTPException, OSError, ValueError, TimeoutError) as problem:
        client.close()
        raise NotTaken(_said(problem, relay)) from problem
    except NotTaken:
        client.close()
        raise
    try:
        async with asyncio.timeout(all_):
            await client.data(mail.octets)
    except SMTPResponseException as problem:
        raise NotTaken(_said(problem, relay)) from problem
    except (SMTPServerDisconnected, SMTPTimeoutError, OSError, TimeoutError) as problem:
        raise Unsure(f"{relay.host} has not said whether it took the mail: {_text(problem)}") from problem
    else:
        with contextlib.suppress(SMTPException, OSError, TimeoutError):
            await client.quit(timeout=FAREWELL)
    finally:
        client.close()


async def _greet(client: SMTP, relay: Relay) -> None:
    """TLS as it must be, and who we are."""
    await client.connect()
    await client.ehlo()
    if not relay.wrapped:
        if client.supports_extension("starttls"):
            await client.starttls()
            await client.ehlo()
        elif relay.must_tls:
            raise NotTaken(f"{relay.host} offers no STARTTLS, and invite.smtp_tls is required")
        elif relay.user:
            raise NotTaken(f"{relay.host} offers no STARTTLS, and the password is said over TLS only")
    if relay.user:
        await client.login(relay.user, relay.password)


async def _address(client: SMTP, mail: Mail) -> None:
    """From whom and to whom, each in the very spelling that was checked before."""
    for address in (mail.sender, mail.recipient):
        if quote_address(address) != f"<{address}>":
            raise NotTaken("the address cannot be written as SMTP wants it")
    if mail.utf8 and not client.supports_extension("smtputf8"):
        raise NotTaken("the address is not ASCII, and the relay does not offer SMTPUTF8")
    encoding, options = ("utf-8", ["SMTPUTF8"]) if mail.utf8 else ("ascii", [])
    await client.mail(mail.sender, options=options, encoding=encoding)
    await client.rcpt(mail.recipient, encoding=encoding)


def _said(problem: Exception, relay: Relay) -> str:
    return f"{relay.host}: {_text(problem)}"


def _text(problem: Exception) -> str:
    """A relay's words, on one line and not too long."""
    if isinstance(problem, SMTPResponseException):
        text = f"{problem.code} {problem.message}"
    else:
        text = str(problem) or ("no answer in time" if isinstance(problem, TimeoutError) else type(problem).__name__)
    shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}…"
