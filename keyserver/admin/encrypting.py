"""Can these recipients be encrypted to? One verdict for each, for the API, the page and the command line."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

from keyserver.admin.problems import Busy, NotKnown, Unusable
from keyserver.query import Query
from keyserver.verdict.asking import AT_ONCE, MOST, Verdicts, address_of, normal
from keyserver.verdict.deciding import Kinds, Policy, Usable, Verdict, Word

LEAST_TIME = 60.0  # seconds for all addresses of one question
TIME_EACH = 0.05  # seconds more for each of them
QUESTIONS = 4  # under way: the verdicts of a long one take some 20 MB


@dataclass(frozen=True, slots=True)
class Recipient:
    """The verdict on one address, in the words of the API."""

    address: str
    verdict: str  # yes, no, reject, unknown
    reason: str
    certificates: tuple[Usable, ...]
    missing: tuple[str, ...]  # upstreams whose word is missing


@dataclass(frozen=True, slots=True)
class Summary:
    """How many verdicts there are of each sort."""

    addresses: int
    yes: int
    no: int
    reject: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Encrypting:
    """Asking changes nothing. policies: those in force, by name; search: asks upstreams whatever is cached."""

    verdicts: Verdicts
    policies: Callable[[], Mapping[str, Policy]]
    search: Callable[[Query], Awaitable[object]]
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(QUESTIONS))

    @property
    def names(self) -> tuple[str, ...]:
        """Of the policies, as the configuration has them: the first is meant where none is named."""
        return tuple(self.policies())

    def policy(self, name: str | None = None, kind: str | None = None) -> Policy:
        """A policy by its name; `kind` asks for other certificates than it does. Raises NotKnown, Unusable."""
        if kind is not None and kind not in list(Kinds):
            raise Unusable(f"kind is {kind[:80]!r}; accepted are {', '.join(Kinds)}")
        policies = self.policies()
        found = policies.get(name or self.names[0])
        if found is None:
            raise NotKnown(f"no policy is named {str(name)[:80]!r}; there are: {', '.join(self.names)}")
        return found if kind is None else replace(found, kinds=Kinds(kind))

    def addresses(self, given: Iterable[str]) -> list[str]:
        """Each address once, in its normal form and in the order given. Raises Unusable: 1 to `MOST` are accepted."""
        each = list(dict.fromkeys(normal(text.strip()) for text in given))
        each = [address for address in each if address]
        if not 1 <= len(each) <= MOST:
            raise Unusable(f"{len(each)} addresses are given; 1 to {MOST} are accepted")
        return each

    async def as_they_come(self, addresses: Sequence[str], policy: Policy) -> AsyncGenerator[Recipient]:
        """One for each address, by one deadline for all. Closed early, it asks no further. Raises Busy."""
        async with self._place(), aclosing(self._coming(addresses, policy)) as coming:
            async for one in coming:
                yield one

    async def in_order(self, addresses: Sequence[str], policy: Policy) -> list[Recipient]:
        """The same, in the order of the addresses."""
        async with aclosing(self.as_they_come(addresses, policy)) as coming:
            found = {one.address: one async for one in coming}
        return [found[address] for address in addresses]

    async def noes_again(self, addresses: Sequence[str], policy: Policy) -> AsyncGenerator[Recipient]:
        """As `as_they_come`, but upstreams are asked again for whom the verdict is no, whatever is cached."""
        noes: list[str] = []
        async with self._place():
            async with aclosing(self._coming(addresses, policy)) as coming:
                async for one in coming:
                    if one.verdict in (Word.NO, Word.REJECT) and address_of(one.address) is not None:
                        noes.append(one.address)
                    else:
                        yield one
            await self._search(noes, policy)
            async with aclosing(self._coming(noes, policy)) as coming:
                async for one in coming:
                    yield one

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the places for questions. Raises Busy: whoever waits would hold a list in memory, too."""
        if self.places.locked():
            raise Busy(f"{QUESTIONS} questions about recipients are under way; ask again a little later")
        async with self.places:
            yield

    async def _coming(self, addresses: Sequence[str], policy: Policy) -> AsyncGenerator[Recipient]:
        verdicts = self.verdicts.of_many(addresses, policy, deadline=_time(addresses))
        async with aclosing(verdicts):  # type: ignore[type-var]
            async for verdict in verdicts:
                yield recipient_of(verdict)

    async def _search(self, addresses: Sequence[str], policy: Policy) -> None:
        """Searches for all of these, so many at once as verdicts are decided; what comes later than the deadline is
        nobody's loss: the verdict is by what is known then."""
        waiting = iter([replace(query, kind=kind) for a in addresses if (query := address_of(a)) for kind in
                        policy.kinds.asked])  # fmt: skip

        async def work() -> None:
            for query in waiting:
                await self.search(query)

        workers = [asyncio.ensure_future(work()) for _ in range(min(AT_ONCE, len(addresses)))]
        try:
            if workers:
                await asyncio.wait(workers, timeout=_time(addresses))
        finally:
            for worker in workers:
                worker.cancel()
            ended = await asyncio.gather(*workers, return_exceptions=True)
        for trouble in ended:
            if isinstance(trouble, Exception):
                raise trouble


def recipient_of(verdict: Verdict) -> Recipient:
    """A verdict in the words of the API."""
    return Recipient(verdict.address, verdict.word.value, verdict.reason, verdict.certificates, verdict.missing)


def summary_of(found: Iterable[Recipient]) -> Summary:
    """How many there are of each sort."""
    words = Counter(one.verdict for one in found)
    return Summary(words.total(), words[Word.YES], words[Word.NO], words[Word.REJECT], words[Word.UNKNOWN])


def _time(addresses: Sequence[str]) -> float:
    return LEAST_TIME + TIME_EACH * len(addresses)
