"""The report as a mail and as JSON for others. Pure."""

from __future__ import annotations

import email.policy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from email.message import EmailMessage

from keyserver.display import readable
from keyserver.invite.composing import address_it
from keyserver.outlook.pace import Slower
from keyserver.outlook.report import EndingSoon, ListEnding, NoLonger, Partner, Report
from keyserver.store.recipients import DAY

Identity = Callable[[str], str]
"""How an address or a fingerprint may stand there: as `log.identities` says."""

SHOWN = 25
"""Rows of each section in a mail."""

_NAMED = 3  # addresses of one certificate
_LINE = 900  # octets of a line that needs no coding (RFC 5322 section 2.1.1)


def subject_of(report: Report) -> str:
    """What is most urgent, in one line."""
    return f"Keyserver: {_ends(report)}"


def text_of(report: Report, node: str, identity: Identity) -> str:
    """The report in plain text, for a mail."""
    lines = [
        f"Outlook of the keyserver {readable(node)}, {_day(report.at)}: the next {_number(report.days, 'day')}, "
        f"and who was asked for in the last {report.days}.",
        "",
        f"{_ends(report).capitalize()}.",
        *_rows(_ending(one, report.at, identity) for one in report.ending),
    ]
    if not report.known:
        lines += ["", "No recipient was asked for in that time, or no history is kept."]
    if report.no_longer:
        lines += ["", "Could be encrypted to, and cannot any more:"]
        lines += _rows(_no_longer(one, identity) for one in report.no_longer)
    if report.partners:
        lines += ["", "Partners: recipients asked for, and how many of them can be encrypted to:"]
        lines += _rows([_partner(one)] for one in report.partners)
    if report.upstreams:
        lines += ["", "Upstreams that have become worse (the last 7 days, and the 28 before):"]
        lines += _rows([_slower(one)] for one in report.upstreams)
    if report.lists:
        lines += ["", "Revocation lists:"]
        lines += _rows([_list(one)] for one in report.lists)
    lines += ["", "The whole of it: keyserver outlook, or the page /outlook.", ""]
    return "\n".join(lines)


def mail_of(report: Report, text: str, sender: str, recipient: str) -> bytes:
    """The octets of a mail with that text. sender, recipient: addresses in ASCII."""
    mail = EmailMessage(email.policy.SMTP)
    domain = sender.rpartition("@")[2].lower()
    address_it(mail, f"{report.at}.outlook@{domain}", sender, recipient, subject_of(report), report.at)
    plain = text.isascii() and all(len(line) < _LINE for line in text.splitlines())
    mail.set_content(text, cte="7bit" if plain else "quoted-printable")
    return mail.as_bytes()


def told(report: Report, identity: Identity) -> dict[str, object]:
    """What JSON says of the report. identity: as in a mail."""
    said = asdict(report)
    for row in (*said["ending"], *said["no_longer"]):
        row["identities"] = [identity(one) for one in row["identities"]]
        row["fingerprint"] = identity(row["fingerprint"]) if row["fingerprint"] else ""
    return said


def _ends(report: Report) -> str:
    """One sentence without its full stop."""
    count, reach = len(report.ending), f"in the next {_number(report.days, 'day')}"
    if not count:
        return f"nothing ends {reach}"
    return f"{_number(count, 'certificate')} in use {'ends' if count == 1 else 'end'} {reach}"


def _ending(one: EndingSoon, now: int, identity: Identity) -> Sequence[str]:
    days = max(0, round((one.until - now) / DAY))
    named = ", ".join(readable(identity(address)) for address in one.identities[:_NAMED])
    more = one.recipients - min(len(one.identities), _NAMED)
    who = f"{named} and {more} more" if named and more > 0 else named or _number(one.recipients, "recipient")
    where = "" if named.endswith(f"@{one.domain}") else f", {readable(one.domain)}"
    return (
        f"{_day(one.until)} (in {_number(days, 'day')}): {who}{where}: {readable(one.cause)}",
        identity(one.fingerprint),
    )


def _no_longer(one: NoLonger, identity: Identity) -> Sequence[str]:
    who = readable(identity(one.identities[0])) if one.identities else f"somebody at {readable(one.domain)}"
    line = f"{who}, since {_day(one.since)}: {readable(one.reason) or 'no certificate is left'}"
    return (line, identity(one.fingerprint)) if one.fingerprint else (line,)


def _partner(one: Partner) -> str:
    unknown = f", {one.unknown} not known yet" if one.unknown else ""
    share = f" ({one.share:.0%})" if one.yes + one.no else ""
    return f"{readable(one.domain) or 'all others'}: {one.yes} of {one.asked}{share}{unknown}"


def _slower(one: Slower) -> str:
    said = []
    if one.slower:
        said.append(f"answers take {one.ms} ms (median; {one.ms_before} ms before)")
    if one.failing:
        said.append(f"{one.failed:.0%} of questions fail ({one.failed_before:.0%} before)")
    return f"{readable(one.upstream)}: {', '.join(said)}"


def _list(one: ListEnding) -> str:
    ends = "ended" if one.stale else "ends"
    state = f"{ends} on {_day(one.ends)}" if one.ends else "has not been had yet"
    return f"{readable(one.authority)}: {state}{f'; {readable(one.problem)}' if one.problem else ''}"


def _rows(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Each with its further lines below it, as many as are shown."""
    found = list(rows)
    for first, *further in found[:SHOWN]:
        yield f"- {first}"
        yield from (f"  {line}" for line in further)
    if len(found) > SHOWN:
        yield f"- and {len(found) - SHOWN} more"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _day(at: int) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}"
