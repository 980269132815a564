"""Why a certificate that `[[domain_certificate]]` names answers nothing: for the trace, and once for the log.

`keyserver check` sees no store, so that this shows when somebody asks."""

from __future__ import annotations

from keyserver.model import PASSED_OVER, Answer, State
from keyserver.query import ByAddress, ByFingerprint
from keyserver.resolver.reported import Reported
from keyserver.store.base import Store, StoreError


class Gateways:
    """Remembers what was said of each: as many as the configuration names."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reported: dict[str, Reported] = {}

    async def why_not(self, query: ByAddress, named: ByFingerprint, answer: Answer) -> str:
        """Why nothing came of the named certificate, for an address of its domain; empty where something did, or where
        the answer's own steps say it."""
        reported = self._reported.setdefault(named.name, Reported())
        if answer.state is State.FOUND:
            reported.well()
            return ""
        said = [step.why for step in answer.steps if step.what == PASSED_OVER]
        why = said[0].partition(": ")[2] if said else await self._missing(named)
        if why and answer.state is State.ABSENT:
            reported.trouble(f"the certificate that is named for the gateway of {query.domain} answers nothing: {why}")
        return "" if said else why or f"it is no certificate of the kind {named.kind}"

    async def _missing(self, named: ByFingerprint) -> str:
        """Why nothing is known; empty where it is of another kind."""
        try:
            entries = (await self._store.certificate(named.fingerprint)).entries
            if not entries:
                return "it is not cached; import it"
            if all(entry.kind is not named.kind for entry in entries):
                return ""
            blocked = named.fingerprint in await self._store.blocked()
        except StoreError as problem:
            return str(problem)
        return "it is blocked" if blocked else "it does not prove its fingerprint now"
