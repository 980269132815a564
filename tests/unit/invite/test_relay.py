"""Mail is taken, or is not and we know why, or nobody knows: whatever the relay does, within its time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from keyserver.config.sections.mail import InviteSection
from keyserver.invite.composing import Mail
from keyserver.invite.problem import NotInvited
from keyserver.invite.relay import NotTaken, Unsure, hand_over, relay_of
from support.ports import free_port
from support.relays import HANG, HANGUP
from support.relays import Relay as Scripted
from support.tls import Authority

MAIL = Mail(b"Subject: x\r\n\r\n.dot\r\nend\r\n", "keys@example.net", "alice@example.org")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def send(
    relay: Scripted,
    authority: Authority | None = None,
    mail: Mail = MAIL,
    tls: str = "required",
    password: Path | None = None,
    one: float = 0.5,
    all_: float = 5.0,
) -> None:
    settings = InviteSection(
        smtp=relay.url,
        smtp_tls=tls,
        smtp_ca_file=str(authority.ca_file) if authority else "",  # type: ignore[arg-type]
        smtp_user="keys" if password else "",
        smtp_password_file=str(password) if password else "",  # type: ignore[arg-type]
    )
    await hand_over(mail, relay_of(settings), one, all_)


async def test_mail_is_taken_over_tls(authority: Authority) -> None:
    async with Scripted(authority.server()) as relay:
        await send(relay, authority)
    assert relay.encrypted
    verbs = [command.split()[0] for command in relay.commands]
    assert verbs == [b"EHLO", b"STARTTLS", b"EHLO", b"MAIL", b"RCPT", b"DATA", b"QUIT"]
    assert relay.commands[3:5] == [b"MAIL FROM:<keys@example.net>", b"RCPT TO:<alice@example.org>"]
    assert relay.mails == [b"Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n"]


async def test_mail_is_taken_where_tls_is_there_from_the_beginning(authority: Authority) -> None:
    async with Scripted(authority.server(), wrapped=True) as relay:
        await send(relay, authority)
    assert len(relay.mails) == 1


async def test_a_password_is_said_over_tls_only(authority: Authority, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    password.chmod(0o600)
    async with Scripted(authority.server(), extensions=["AUTH PLAIN"]) as relay:
        await send(relay, authority, password=password)
    assert b"AUTH PLAIN AGtleXMAY29ycmVjdCBob3JzZQ==" in relay.commands
    async with Scripted(extensions=["AUTH PLAIN"]) as plain:
        with pytest.raises(NotTaken, match="over TLS only"):
            await send(plain, tls="offered", password=password)
    assert plain.commands[-1].startswith(b"EHLO")
    async with Scripted(authority.server(), extensions=["AUTH PLAIN"], AUTH="535 5.7.8 no") as refusing:
        with pytest.raises(NotTaken, match=r"535 5\.7\.8 no"):
            await send(refusing, authority, password=password)


async def test_without_tls_nothing_is_sent_unless_that_is_allowed() -> None:
    async with Scripted() as relay:
        with pytest.raises(NotTaken, match="offers no STARTTLS"):
            await send(relay)
        assert [command.split()[0] for command in relay.commands] == [b"EHLO"]
        await send(relay, tls="offered")
    assert len(relay.mails) == 1


@pytest.mark.parametrize("tls", ["required", "offered"])
@pytest.mark.parametrize("wrong", ["stranger", "name", "expired"])
async def test_a_wrong_certificate_is_never_passed_over(
    authority: Authority, tmp_path: Path, tls: str, wrong: str
) -> None:
    context = {
        "stranger": lambda: Authority(tmp_path / "other", "Stranger").server(),
        "name": lambda: authority.server("relay.example"),
        "expired": lambda: authority.server("127.0.0.1", expired=True),
    }[wrong]()
    async with Scripted(context) as relay:
        with pytest.raises(NotTaken, match=r"(?i)certificate"):
            await send(relay, authority, tls=tls)
    assert not any(command.startswith(b"MAIL") for command in relay.commands)


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ({"greeting": "554 5.7.1 go away"}, "554 5.7.1 go away"),
        ({"greeting": "421 4.3.2 later"}, "421 4.3.2 later"),
        ({"greeting": HANGUP}, "127.0.0.1"),
        ({"greeting": HANG}, "[Tt]imed out"),
        ({"MAIL": "451 4.3.0 try again"}, "451 4.3.0 try again"),
        ({"MAIL": HANG}, "[Tt]imed out"),
        ({"RCPT": "550 5.1.1 no such user"}, "550 5.1.1 no such user"),
        ({"RCPT": HANGUP}, "127.0.0.1"),
        ({"DATA": "554 5.5.1 no"}, "554 5.5.1 no"),
        ({"taken": "552 5.2.2 full"}, "552 5.2.2 full"),
        ({"taken": "451 4.3.0 \x1b[31m\u202e" + "x" * 4000}, "451 4.3.0 .{200,300}\u2026$"),
        ({"MAIL": "nonsense"}, "127.0.0.1"),
        ({"MAIL": "250-" + "x" * 20000}, "127.0.0.1"),
    ],
)
async def test_what_the_relay_says_is_told(replies: dict[str, str], why: str) -> None:
    async with Scripted(**replies) as relay:  # type: ignore[arg-type]
        with pytest.raises(NotTaken, match=why) as caught:
            await send(relay, tls="offered")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("end", [HANG, HANGUP])
async def test_nobody_knows_whether_it_was_taken(end: str) -> None:
    async with Scripted(taken=end) as relay:
        with pytest.raises(Unsure, match="has not said"):
            await send(relay, tls="offered")
    assert len(relay.mails) == 1


@pytest.mark.parametrize("end", [HANG, HANGUP, "500 what"])
async def test_what_follows_a_mail_that_was_taken_is_no_matter(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyserver.invite.relay.FAREWELL", 0.2)
    async with Scripted(QUIT=end) as relay:
        await send(relay, tls="offered")


async def test_steps_that_are_each_in_time_are_bounded_together() -> None:
    began = time.monotonic()
    async with Scripted(MAIL=HANG) as relay:
        with pytest.raises(NotTaken, match="no answer in time"):
            await send(relay, tls="offered", one=60, all_=0.2)
    assert time.monotonic() - began < 20


async def test_an_address_outside_ascii_needs_a_relay_that_takes_it() -> None:
    mail = Mail(MAIL.octets, MAIL.sender, "\u00e4lice@example.org")
    async with Scripted() as relay:
        with pytest.raises(NotTaken, match="does not offer SMTPUTF8"):
            await send(relay, mail=mail, tls="offered")
    async with Scripted(extensions=["SMTPUTF8", "8BITMIME"]) as relay:
        await send(relay, mail=mail, tls="offered")
    assert relay.commands[1:3] == [
        b"MAIL FROM:<keys@example.net> SMTPUTF8",
        "RCPT TO:<\u00e4lice@example.org>".encode(),
    ]


@pytest.mark.parametrize(
    "address",
    [
        "alice@example.org>\r\nRCPT TO:<m@evil.example",
        "alice@example.org\r\nDATA",
        "alice@example.org> SIZE=1",
        "Alice <alice@example.org>",
        "a@example.org, b@example.org",
    ],
)
async def test_whatever_the_address_it_adds_no_command(address: str) -> None:
    """Composing lets none of these come so far."""
    async with Scripted() as relay:
        with pytest.raises(NotTaken):
            await send(relay, mail=Mail(MAIL.octets, MAIL.sender, address), tls="offered")
    assert not any(b"evil" in command or b"RCPT" in command for command in relay.commands)


async def test_nobody_listens() -> None:
    relay = Scripted()
    relay.port = free_port()
    with pytest.raises(NotTaken, match=r"127\.0\.0\.1"):
        await send(relay)


async def test_who_gives_up_leaves_no_connection() -> None:
    async with Scripted(MAIL=HANG) as relay:
        task = asyncio.ensure_future(send(relay, tls="offered"))
        while not relay.commands:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_the_relay_of_the_configuration(tmp_path: Path) -> None:
    relay = relay_of(InviteSection(smtp="smtps://[2001:db8::1]"))
    assert (relay.host, relay.port, relay.wrapped, relay.must_tls) == ("2001:db8::1", 465, True, True)
    relay = relay_of(InviteSection(smtp="smtp://relay.example", smtp_tls="offered"))
    assert (relay.host, relay.port, relay.wrapped, relay.must_tls) == ("relay.example", 25, False, False)
    gone = tmp_path / "password"
    gone.write_text("secret")
    settings = InviteSection(smtp="smtp://relay.example", smtp_user="u", smtp_password_file=str(gone))  # type: ignore[arg-type]
    gone.unlink()
    with pytest.raises(NotInvited, match="cannot be read"):
        relay_of(settings)
