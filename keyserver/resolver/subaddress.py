"""Subaddresses: what is asked when nobody has a certificate for alice+tag@. Pure.

Mail to it reaches whoever reads alice@ (RFC 5233) where its mail server has it so: `policy.subaddress_domains`.
The second question is one like any other, under all the rules; nothing is remembered under the name of the first.
"""

from __future__ import annotations

from dataclasses import replace

from keyserver.model import Answer, View
from keyserver.policy import in_domains
from keyserver.query import ByAddress, Query
from keyserver.resolver.further import is_finished_absence
from keyserver.resolver.rules import Rules

ASKED = "absent: what stands before the + is asked for, without what mail showed"
WHICH = "without what stands behind the +"


def behind(query: Query, answer: Answer, view: View, rules: Rules) -> ByAddress | None:
    """The address to be asked for after this answer; None: the answer stands.

    A directory answers with the very address alone (draft-koch-openpgp-webkey-service-21 §3.1)."""
    if not rules.subaddress or view.directory or not isinstance(query, ByAddress):
        return None
    if not is_finished_absence(answer):
        return None
    local, tag, _ = query.local.partition(rules.subaddress)
    if not local or not tag or local.startswith('"') or not in_domains(query.domain, rules.subaddress_domains):
        return None
    return replace(query, local=local)


def without_mail(view: View) -> View:
    """The view for the second question: a mail speaks for the very address that it came from."""
    return replace(view, no_mailflow=True)
