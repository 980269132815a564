"""Could mail be encrypted to who was asked for? Judged once a day for each address, from the cache alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice

from keyserver.hygiene import Hygiene
from keyserver.model import Answer, Answered, How, Kind, State, View
from keyserver.policy import FOREVER
from keyserver.query import ByAddress, Query
from keyserver.resolver.aside import Aside
from keyserver.resolver.past import Then, stands
from keyserver.resolver.rules import Rules
from keyserver.resolver.then import answered_now
from keyserver.store.base import Store
from keyserver.store.recipients import DAY, Encryptable, Looked
from keyserver.usable import end_of
from keyserver.verdict.asking import address_of
from keyserver.verdict.deciding import Policy, Verdict, Word, decide

MOST_WAITING = 100_000  # addresses that wait to be judged, and those of today that are known to be
BATCH = 100  # of them in one transaction
AT_ONCE = 500  # that are judged in one go: some tenths of a second, in turns with lookups

_UNSEARCHED = Answer(State.FAILED, How.MISS, "the cache does not say", final=False)
_ADDRESS = re.compile(r"\S*@\S*")


class Seeing:
    """Judges as the default policy does in the default view; nobody is asked, and nothing but the note is written."""

    def __init__(
        self,
        store: Store,
        wanted: Callable[[], Collection[str]],
        rules: Callable[[], Rules],
        hygiene: Mapping[Kind, Hygiene],
        clock: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        """`wanted`: the addresses that were asked for since it was called last."""
        self._store = store
        self._wanted = wanted
        self._rules = rules
        self._hygiene = hygiene
        self._clock = clock
        self._aside = Aside(monotonic)
        self._waiting: dict[str, None] = {}
        self._today: set[str] = set()
        self._day = 0

    async def note(self) -> int:
        """Judge what was asked for and is not noted for today, `AT_ONCE` at most or a few more; how many.

        The rest waits for the next call. Raises StoreError, and then all that is not noted waits."""
        if (day := self._clock() // DAY) != self._day:
            self._day, self._today = day, set()
        new = (address for address in self._wanted() if address not in self._today)
        self._waiting.update(dict.fromkeys(islice(new, MOST_WAITING - len(self._waiting))))
        judged = 0
        while self._waiting and judged < AT_ONCE:
            batch = list(islice(self._waiting, BATCH))
            noted = await self._store.recipients.asked_today(batch, day)
            seen = {address: await self._look(address) for address in batch if address not in noted}
            if seen:
                await self._store.recipients.note(seen)
            judged += len(seen)
            for address in batch:
                del self._waiting[address]
            self._today.update(batch[: MOST_WAITING - len(self._today)])
        return judged

    async def _look(self, address: str) -> Looked:
        now, rules, policy = self._clock(), self._rules(), Policy()
        query = address_of(address)
        if query is None:
            return Looked(Encryptable.UNKNOWN, now)
        view = replace(rules.views.get(policy.view, View(policy.view)), verdict=True)
        answers = {kind: await self._cached(replace(query, kind=kind), view, now, rules) for kind in policy.kinds.asked}
        return looked(decide(address, policy, answers, now, rules.terms.rule(address)), answers, now)

    async def _cached(self, query: ByAddress, view: View, now: int, rules: Rules) -> Answer:
        async def asked(query: Query, view: View) -> Then:
            snapshot = await self._store.look(query.name)
            octets = sum(len(entry.octets) for entry in snapshot.entries)
            return await self._aside.run(octets, partial(stands, query, view, snapshot, now, rules, self._hygiene))

        return await answered_now(query, view, asked) or _UNSEARCHED


def looked(verdict: Verdict, answers: Mapping[Kind, Answer], now: int) -> Looked:
    """What is noted of a verdict, which came of these answers: of what is usable the certificate that lasts longest."""
    if verdict.word is Word.UNKNOWN:
        return Looked(Encryptable.UNKNOWN, now)
    if verdict.word is not Word.YES:
        return Looked(Encryptable.NO, now, reason=_ADDRESS.sub("(address)", verdict.reason))
    usable = {one.fingerprint for one in verdict.certificates}
    every = [one for answer in answers.values() for one in answer.certificates]

    def lasts(one: Answered) -> int:
        end = end_of(one.certificate.proof, now)
        return end.at if end is not None else FOREVER

    best = max((one for one in every if one.certificate.fingerprint in usable), key=lasts).certificate
    end = end_of(best.proof, now)
    return Looked(
        Encryptable.YES,
        now,
        best.proof.kind,
        best.fingerprint,
        end.at if end is not None else None,
        end.why if end is not None else "",
    )
