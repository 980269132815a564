"""Policies as the configuration names them, with what a mail server is told by them."""

from __future__ import annotations

from dataclasses import dataclass

from keyserver.model import Kind
from keyserver.verdict.deciding import Policy, Verdict


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """One of them. `yes`: what a map returns, with {domain} and {kind} in it. `tempfail`: while nobody knows, mail
    waits; else it goes as if there were no certificate."""

    policy: Policy
    yes: str
    tempfail: bool = True

    def told(self, verdict: Verdict) -> str:
        """What a map returns for a verdict that is yes. Of the certificates only their kinds get in."""
        kinds = {certificate.kind for certificate in verdict.certificates}
        kind = "both" if len(kinds) > 1 else "openpgp" if Kind.OPENPGP in kinds else "smime"
        domain = verdict.address.rpartition("@")[2]  # of a normal form: an A-label
        return self.yes.replace("{kind}", kind).replace("{domain}", domain)
