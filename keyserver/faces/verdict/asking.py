"""What both listeners for verdicts share: who may ask, and how a question is put and counted."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from keyserver.faces.context import FaceContext
from keyserver.faces.face import NoteVerdict
from keyserver.listen.trust import UNIX, address_of
from keyserver.model import Kind, Name
from keyserver.query import name_of
from keyserver.verdict.asking import Verdicts
from keyserver.verdict.deciding import Policy, Verdict, Word

NOT_ALLOWED = "not in verdict.allowed_clients"
OUR_ERROR = "an error of this service, which its log shows"

_LOG = logging.getLogger("keyserver.verdict")


@dataclass(frozen=True, slots=True)
class Asking:
    """Of one listener. `face`: its name in statistics and logs. `unix`: it is a Unix socket."""

    face: str
    context: FaceContext
    verdicts: Verdicts
    note: NoteVerdict
    unix: bool

    def may(self, client: str) -> bool:
        """May a client with this address ask? Verdicts tell who has certificates, and a search tells others of it."""
        if client == UNIX:
            return self.unix
        address = address_of(client)
        if address is None:
            return False
        return address.is_loopback or any(address in network for network in self.context.rules().verdict_clients)

    async def ask(self, address: str, policy: Policy) -> Verdict:
        """The verdict, by the deadline of a lookup. Never raises: what goes wrong here is nobody's "no".

        Who may ask is one of us, whose searches are not limited."""
        began = self.context.monotonic()
        try:
            verdict = await self.verdicts.of(address, policy)
        except Exception:
            _LOG.exception("a verdict could not be had")
            verdict = Verdict(address, Word.UNKNOWN, OUR_ERROR)
        self.note(self.face, policy.name, verdict, self.context.monotonic() - began)
        return verdict


def asked(verdict: Verdict) -> tuple[Name, ...]:
    """The names by which prefetch hears that what was found is in use."""
    kinds = dict.fromkeys(certificate.kind for certificate in verdict.certificates)
    return tuple(name_of(Kind(kind), "addr", verdict.address) for kind in kinds)
