"""Verdicts for whoever asks: one address or very many, within a deadline, known ones from memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, replace
from itertools import zip_longest

from keyserver.model import View
from keyserver.query import BadQuery, ByAddress, parse
from keyserver.resolver.resolver import Resolver
from keyserver.resolver.rules import Rules
from keyserver.verdict.deciding import Policy, Verdict, Word, decide

MOST = 10_000  # addresses in one question
AT_ONCE = 50  # of them that are looked up at the same time
NO_ADDRESS = "it is no e-mail address"
LATE = "there was no time left to look it up"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Asks the resolver. `rules`: those of lookups, for the views' policies; `clock`: Unix seconds."""

    resolver: Resolver
    rules: Callable[[], Rules]
    clock: Callable[[], int]
    monotonic: Callable[[], float]

    async def of(self, address: str, policy: Policy, *, client: str | None = None) -> Verdict:
        """The verdict on one address, by the deadline of a lookup. Never raises.

        `client`: whose searches count against the limit; None is ourselves."""
        query = address_of(address)
        if query is None:
            return Verdict(address, Word.NO, NO_ADDRESS)
        rules = self.rules()
        view = replace(rules.views.get(policy.view, View(policy.view)), verdict=True)
        asked = policy.kinds.asked
        found = await asyncio.gather(
            *(self.resolver.lookup(replace(query, kind=kind), view, client=client) for kind in asked)
        )
        answers = dict(zip(asked, found, strict=True))
        return decide(query.address, policy, answers, self.clock(), rules.terms.rule(query.address))

    async def of_many(
        self,
        addresses: Iterable[str],
        policy: Policy,
        *,
        deadline: float,
        at_once: int = AT_ONCE,
        client: str | None = None,
    ) -> AsyncIterator[Verdict]:
        """The verdicts on these as they come, each address once (by its normal form).

        What is not decided within `deadline` seconds is unknown. Addresses of one domain are spread, so that one slow
        host does not keep the others waiting."""
        end = self.monotonic() + deadline
        each = spread(addresses)
        waiting = iter(each)
        done: asyncio.Queue[Verdict | Exception] = asyncio.Queue()

        async def work() -> None:
            verdict: Verdict | Exception
            for address in waiting:
                try:
                    async with asyncio.timeout(max(0.0, end - self.monotonic())):
                        verdict = await self.of(address, policy, client=client)
                except TimeoutError:
                    verdict = Verdict(address, Word.UNKNOWN, LATE)
                except Exception as error:  # a mistake of ours must not look like silence
                    verdict = error
                done.put_nowait(verdict)

        workers = [asyncio.create_task(work()) for _ in range(min(at_once, len(each)))]
        try:
            for _ in each:
                verdict = await done.get()
                if isinstance(verdict, Exception):
                    raise verdict
                yield verdict
        finally:  # also where nobody waits for the rest
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def address_of(text: str) -> ByAddress | None:
    """The address that a text is; None where it is none."""
    try:
        query = parse(text)
    except BadQuery:
        return None
    return query if isinstance(query, ByAddress) else None


def spread(addresses: Iterable[str]) -> list[str]:
    """Each address once, those of one domain far from each other."""
    by_domain: dict[str, list[str]] = {}
    for address in dict.fromkeys(normal(text) for text in addresses):
        by_domain.setdefault(address.rpartition("@")[2], []).append(address)
    rounds = zip_longest(*by_domain.values())
    return [address for turn in rounds for address in turn if address is not None]


def normal(text: str) -> str:
    """The normal form of an address; what is none stays as it is."""
    query = address_of(text)
    return text if query is None else query.address
