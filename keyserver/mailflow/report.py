"""The report on one mail, from what was seen in it and what became of it. Pure."""

from __future__ import annotations

from keyserver.mailflow.values import Caught, Envelope, Remark, Report, Seen, Why

_FIRST = (
    Why.OUTBOUND,
    Why.INTERNAL,
    Why.NO_SENDER,
    Why.UNAUTHENTICATED,
    Why.TOO_LARGE,
    Why.TOO_OLD,
    Why.FAILED,
    Why.BLOCKED,
    Why.FULL,
    Why.DELETED,
    Why.INVALID,
    Why.MISMATCH,
    Why.REFUSED,
    Why.UNREADABLE,
    Why.ENCRYPTED,
    Why.NESTED,
)
"""Of several reasons why nothing was cached, the one to name first: what decided before what was passed over."""

_RESULTS = {
    Why.BLOCKED: "an administrator has blocked the certificate",
    Why.FULL: "cache.max_size is reached",
    Why.DELETED: "the certificate was deleted at the same moment",
}


def report_of(
    seen: Seen, envelope: Envelope, caught: tuple[Caught, ...], remarks: tuple[Remark, ...], explained: bool
) -> Report:
    """The whole report on one mail."""
    verdict, text = _verdict(caught, remarks)
    found = seen.direction
    return Report(
        verdict=verdict,
        text=text,
        direction="inbound" if found.inbound else "outbound",
        rule=found.rule,
        sender=seen.sender or "",
        authenticated=seen.authenticated,
        message_id=seen.message_id,
        way=envelope.way,
        queue_id=envelope.queue_id,
        explained=explained,
        certificates=caught,
        remarks=remarks,
    )


def _verdict(caught: tuple[Caught, ...], remarks: tuple[Remark, ...]) -> tuple[Why, str]:
    """Cached before held before the weightiest reason why not."""
    results = {c.result: c for c in caught}
    if Why.CACHED in results:
        return Why.CACHED, results[Why.CACHED].how
    if held := results.get(Why.HELD):
        return Why.HELD, "waits for an administrator's approval: " + " and ".join(held.reasons)
    refused = [Remark(why, _RESULTS[why]) for why in results if why in _RESULTS]
    reasons = sorted([*refused, *remarks], key=lambda r: _FIRST.index(r.why) if r.why in _FIRST else len(_FIRST))
    if reasons:
        return reasons[0].why, reasons[0].text
    return Why.NO_CERTIFICATE, "the mail carries no certificate and no key"
