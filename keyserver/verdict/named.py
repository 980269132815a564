"""Policies as the configuration names them, with what a mail server is told by them."""

from __future__ import annotations

from dataclasses import dataclass

from keyserver.model import Kind
from keyserver.verdict.deciding import Policy, Verdict, Word


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """One of them. `yes`, `reject`: what a map returns, with {domain} and {kind} in it, or {text}. `tempfail`: while
    nobody knows, mail waits; else it goes as if there were no certificate."""

    policy: Policy
    yes: str
    reject: str = "error:5.7.1 {text}"
    tempfail: bool = True

    def told(self, verdict: Verdict) -> str:
        """What a map returns for a verdict that is yes or reject. Of the certificates only their kinds get in."""
        if verdict.word is Word.REJECT:
            return self.reject.replace("{text}", verdict.text)
        kinds = {certificate.kind for certificate in verdict.certificates}
        kind = "both" if len(kinds) > 1 else "openpgp" if Kind.OPENPGP in kinds else "smime"
        domain = verdict.address.rpartition("@")[2]  # of a normal form: an A-label
        return self.yes.replace("{kind}", kind).replace("{domain}", domain)
