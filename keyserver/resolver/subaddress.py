"""Subaddresses: what is asked when nobody has a certificate for alice+tag@. Pure.

Mail to it reaches whoever reads alice@ (RFC 5233) where its mail server has it so: `policy.subaddress_domains`.
The second question is one like any other, under all the rules; nothing is remembered under the name of the first.
"""

from __future__ import annotations

from dataclasses import replace

from keyserver.model import Answer, How, State, View
from keyserver.policy import in_domains
from keyserver.query import ByAddress, Query
from keyserver.resolver.rules import Rules


def behind(query: Query, answer: Answer, view: View, rules: Rules) -> ByAddress | None:
    """The address to be asked for after this answer; None: the answer stands.

    Only a finished "absent" is one: what failed is unknown, and what was found but may not be answered is there. A
    directory answers with the very address alone (draft-koch-openpgp-webkey-service-21 §3.1)."""
    if not rules.subaddress or view.directory or not isinstance(query, ByAddress):
        return None
    if answer.state is not State.ABSENT or not answer.final or answer.in_vain:
        return None
    local, tag, _ = query.local.partition(rules.subaddress)
    if not local or not tag or local.startswith('"') or not in_domains(query.domain, rules.subaddress_domains):
        return None
    return replace(query, local=local)


def without_mail(view: View) -> View:
    """The view for the second question: a mail speaks for the very address that it came from."""
    return replace(view, no_mailflow=True)


def together(first: Answer, second: Answer) -> Answer:
    """The answer to the first question by that to the second: it depends on both, and holds no longer than either."""
    found = second.state is State.FOUND
    return replace(
        second,
        how=max(first.how, second.how, key=(How.HIT, How.MISS, How.STALE).index),
        reason=f"{first.reason}; without what stands behind the +: {second.reason}",
        names=first.names | second.names,
        since=second.since if found else min(first.since, second.since),
        until=min(first.until, second.until),
        keep=first.keep and second.keep,
        steps=first.steps + second.steps,
        query=first.query,
        missing=tuple(dict.fromkeys(first.missing + second.missing)),
    )
