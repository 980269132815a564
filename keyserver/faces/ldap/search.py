"""Searches of the LDAP face: from a search to the octets that answer it, and what may be answered again from memory.

Two tables, under the rule of names and instants: rendered replies by the octets of the request behind its message ID
(the same for everybody who asks the same), and directory entries by lookup, for searches that differ in spelling. A
third knows what bases and filters mean, which is always true.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias, TypeVar

from cachetools import FIFOCache

from keyserver.faces.cache import CachedValue, Ground, Values, both
from keyserver.faces.context import FaceContext
from keyserver.faces.ldap.entries import AttributeSelection, Node
from keyserver.faces.ldap.tree import (
    MAX_ENTRIES,
    REMEMBERED,
    MeaningKey,
    Refusal,
    SearchPlan,
    SearchReply,
    Sense,
    Tree,
    Wanted,
    choose,
    write,
)
from keyserver.model import Name, State
from keyserver.policy import FOREVER
from keyserver.wire import ldap as wire
from keyserver.wire.ldap import Code, SearchRequest
from keyserver.wire.ldap_filter import TooMuch, read_filter

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

DEADLINE = 10  # seconds; GnuPG waits for ever
SMALL = 64 * 1024  # octets of certificates that one search makes into entries on the loop
MAX_KEY = 1024  # octets of a request that is remembered
PER_TEST = 1000  # octets that one assertion of a filter understood takes, and one lookup
ONCE = 4096  # requests that wait for their second time, and as many older ones
_FAULTS = {
    State.FAILED: (Code.UNAVAILABLE, "the search failed: an upstream could not be asked, and nothing is cached"),
    State.BUSY: (Code.BUSY, "too much is under way at the moment, please try again later"),
}


Key: TypeAlias = bytes | MeaningKey
"""Of a rendered reply: the octets of its request, or what these mean."""


@dataclass(slots=True)
class Rendered:
    """The operations of a reply, to be put into messages with any ID."""

    operations: tuple[bytes, ...]
    asked: tuple[Name, ...] = ()
    octets: int = 0
    spelt: int = 0  # hash of the request that it answered last by its meaning
    _parts: dict[int, list[bytes]] = field(default_factory=dict)

    def messages(self, id_element: bytes) -> bytes:
        """The whole reply to the request that has this message ID element."""
        length = len(id_element)
        parts = self._parts.get(length)
        if parts is None:
            parts = self._parts[length] = []
            for operation in self.operations:
                parts += (wire.outer(length, operation), id_element, operation)
        parts[1::3] = (id_element,) * len(self.operations)
        return b"".join(parts)


Offer = Callable[[bytes, Rendered, Ground], None]
"""(request, its reply, what that stands on): to whoever keeps replies in another process."""

OfferReply = Callable[[Rendered, Ground], None]
"""The same for one request."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """What came of the lookups of one search."""

    found: tuple[tuple[Node, ...], ...]
    code: Code = Code.SUCCESS
    text: str = ""
    ground: Ground | None = None  # None: not to be kept


class Searches:
    """Answers searches for every connection of one listener."""

    def __init__(self, context: FaceContext, tree: Tree) -> None:
        self._context = context
        self._tree = tree
        self._budget = context.budget
        self._rendered: Values[Key, Rendered] = Values(context.budget)
        self._found: Values[tuple[str, str, bool], tuple[Node, ...]] = Values(context.budget)
        self._senses: Values[bytes, Sense] = Values(context.budget)  # by the octets of base, scope and filter
        self._selections: FIFOCache[bytes, AttributeSelection] = FIFOCache(
            REMEMBERED
        )  # by the octets of the attribute list
        self._lately: tuple[set[int], set[int]] = set(), set()  # hashes of what was asked once: newer, older
        self._one = asyncio.Lock()
        self.hits = 0
        """Searches answered from memory, since the start."""

    def known(self, request: bytes, offer: Offer | None = None) -> Rendered | None:
        """The reply to a request from memory alone, if that can be had without decoding all of it. Raises Malformed.

        `request`: what stands behind the message ID. `offer` hears of a reply for whoever asks the same."""
        row = self._rendered.get(request)
        if row is not None:
            return self._hit(request, row, offer)
        understood = self._understood(request)
        if understood is None:
            return None
        sense, key = understood
        row = self._rendered.get(key)
        if row is None:
            offered = partial(offer, request) if offer is not None else None
            reply = self.at_once(SearchPlan(sense, *key[1:], key), offered)
            return None if reply is None else render(reply)
        if row.value.spelt != hash(request):
            row.value.spelt = hash(request)
        else:  # twice in the same way: from now on by its octets, and by these alone, or it would count twice
            self._rendered.forget(key)
            self._keep(request, row.value, self._renewed(row.ground))
        return self._hit(request, row, offer)

    def _hit(self, request: bytes, row: CachedValue[Rendered], offer: Offer | None) -> Rendered:
        rendered = row.value
        if offer is not None:
            offer(request, rendered, self._renewed(row.ground))
        if rendered.asked:
            self.hits += 1
            self._context.lookups.note_asked(rendered.asked, self._context.clock())
        return rendered

    def _understood(self, request: bytes) -> tuple[Sense, MeaningKey] | None:
        """What a request of the common form means; nothing is decoded twice that means the same for everybody."""
        outline = wire.outline(request)
        if outline is None or len(request) > MAX_KEY:
            return None
        octets = outline.where + outline.filter
        row = self._senses.get(octets)
        sense = row.value if row is not None else self._learn(octets, outline)
        selection = self._selections.get(outline.attributes)
        if selection is None:
            try:
                names = wire.read_attributes(outline.attributes, 0, len(outline.attributes))
            except TooMuch:
                return None
            selection = self._selections[outline.attributes] = self._tree.select(names)
        if sense is None:
            return None
        most = min(outline.size_limit or MAX_ENTRIES, MAX_ENTRIES)
        return sense, (octets, selection, outline.types_only, most)

    def _learn(self, octets: bytes, outline: wire.Outline) -> Sense | None:
        try:
            base, scope = wire.read_place(outline.where)
            filter_, _ = read_filter(outline.filter, 0, len(outline.filter))
        except TooMuch:
            return None
        sense = self._tree.sense(base, scope, filter_)
        if isinstance(sense, Refusal):
            return None
        cost = len(octets) + PER_TEST * (sense.budget.tests + len(sense.wanted))
        self._senses.keep(octets, sense, cost, Ground(frozenset(), FOREVER, self._budget.number), self._budget.meanings)
        return sense

    def plan(self, search: SearchRequest, request: bytes) -> SearchPlan | SearchReply:
        """What to do for a search, or its reply where nothing is to be done. `request`: what stands behind its message
        ID; nothing where it has controls, and then nothing of the reply is kept."""
        understood = self._understood(request)
        if understood is not None:
            sense, key = understood
            return SearchPlan(sense, *key[1:], key)
        plan = self._tree.plan(search)
        if isinstance(plan, Refusal):
            self._context.note("ldap", None, None, plan.code, 0.0, "")
            return SearchReply((), plan.code, plan.text)
        return plan

    def at_once(self, plan: SearchPlan, offer: OfferReply | None = None) -> SearchReply | None:
        """The reply to a search of which everything is in memory; None: `answer` must be awaited."""
        found: list[tuple[Node, ...]] = []
        ground = Ground(frozenset(), FOREVER, 0)
        for wanted in plan.sense.wanted:
            row = self._found.get(wanted.key)
            if row is None:
                return None
            found.append(row.value)
            ground = both(ground, row.ground) if len(found) > 1 else row.ground
        if _unready(found, plan.selection):
            return None
        if found:
            self.hits += 1
            self._context.lookups.note_asked(plan.sense.names, self._context.clock())
        return self._finish(plan, found, self._renewed(ground), offer)

    async def answer(
        self, plan: SearchPlan, client: str | None, looped: bool, seconds: int, offer: OfferReply | None = None
    ) -> SearchReply:
        """The reply to a search, within `seconds` (0: as long as we allow anybody)."""
        limit = min(seconds or DEADLINE, DEADLINE)
        asked = await self._ask(plan, client, looped, limit)
        if slow := _unready(asked.found, plan.selection):
            await self._aside(partial(_prepare, slow, plan.selection))
        if asked.code is Code.SUCCESS:
            return self._finish(plan, asked.found, asked.ground, offer)
        reply = self._finish(plan, asked.found, None, None)
        return SearchReply(reply.entries, asked.code, asked.text)

    async def _ask(self, plan: SearchPlan, client: str | None, looped: bool, limit: float) -> Gathered:
        number = self._budget.number
        tasks = [asyncio.ensure_future(self._lookup(w, client, looped, number)) for w in plan.sense.wanted]
        try:
            await asyncio.wait(tasks, timeout=limit)
        finally:
            for task in tasks:
                task.cancel()
        done = [task.result() for task in tasks if task.done() and not task.cancelled()]
        found = tuple(nodes for nodes, _, _ in done)
        if len(done) < len(tasks):
            return Gathered(found, Code.TIME_LIMIT, f"no answer within {limit:g} seconds")
        for _, state, _ in done:
            if state in _FAULTS:
                return Gathered(found, *_FAULTS[state])
        ground: Ground | None = Ground(frozenset(), FOREVER, number)
        for _, _, one in done:
            ground = both(ground, one) if ground and one else None
        return Gathered(found, ground=ground)

    async def _lookup(
        self, wanted: Wanted, client: str | None, looped: bool, number: int
    ) -> tuple[tuple[Node, ...], State, Ground | None]:
        """One lookup: its entries, how it went, and what they stand on if they may be kept."""
        began = self._context.monotonic()
        answer = await self._context.lookups.lookup(wanted.query, self._context.view, client=client, looped=looped)
        if sum(len(a.certificate.octets) for a in answer.certificates) > SMALL:
            nodes = await self._aside(partial(self._tree.nodes, wanted, answer))
        else:
            nodes = self._tree.nodes(wanted, answer)
        code = _FAULTS.get(answer.state, (Code.SUCCESS, ""))[0]
        self._context.note("ldap", wanted.query, answer, code, self._context.monotonic() - began, client or "")
        if not answer.keep or looped:
            return nodes, answer.state, None
        ground = Ground(answer.names, answer.until, number)
        segment = self._budget.found if nodes else self._budget.absent
        self._found.keep(wanted.key, nodes, sum(node.cost for node in nodes), ground, segment)
        return nodes, answer.state, ground

    async def _aside(self, work: Callable[[], T]) -> T:
        """What takes long is done in a thread, one at a time: several would keep the loop from its turn."""
        async with self._one:
            return await asyncio.to_thread(work)

    def _finish(
        self, plan: SearchPlan, found: Sequence[tuple[Node, ...]], ground: Ground | None, offer: OfferReply | None
    ) -> SearchReply:
        """The reply from entries that are true now; kept if it stands on something and is asked again.

        It is offered at once: others have more memory than we, who may have forgotten it by then."""
        nodes = choose(plan, found)
        if isinstance(nodes, Refusal):
            return SearchReply((), nodes.code, nodes.text)
        if not any(found) and any(w.itself for w in plan.sense.wanted):
            return SearchReply((), Code.NO_SUCH_OBJECT)
        reply = write(plan, nodes)
        if ground is not None and plan.key is not None:
            rendered = render(reply, plan.sense.names)
            if offer is not None:
                offer(rendered, ground)
            if self._again(plan.key):
                self._keep(plan.key, rendered, ground)
        return reply

    def _keep(self, key: Key, rendered: Rendered, ground: Ground) -> None:
        keep_rendered(self._rendered, key, rendered, ground)

    def _renewed(self, ground: Ground) -> Ground:
        """What stands on rows that are still there is true as of now, whenever they were made."""
        return Ground(ground.names, ground.until, self._budget.number)

    def _again(self, key: Key) -> bool:
        """Has this been asked lately? What is asked only once is not worth its memory."""
        mark = hash(key)
        newer, older = self._lately
        if mark in newer or mark in older:
            newer.discard(mark)
            older.discard(mark)
            return True
        newer.add(mark)
        if len(newer) >= ONCE:
            self._lately = set(), newer
        return False


def render(reply: SearchReply, asked: tuple[Name, ...] = ()) -> Rendered:
    """A reply's operations: its entries, then its result."""
    operations = (*reply.entries, wire.result(wire.DONE, reply.code, reply.text))
    return Rendered(operations, asked, sum(map(len, operations)))


def keep_rendered(kept: Values[K, Rendered], key: K, rendered: Rendered, ground: Ground) -> None:
    """Keep a reply; one without an entry among the negative answers."""
    segment = kept.budget.found if len(rendered.operations) > 1 else kept.budget.absent
    kept.keep(key, rendered, rendered.octets + MAX_KEY, ground, segment)


def _unready(found: Iterable[Iterable[Node]], selection: AttributeSelection) -> list[Node]:
    """Entries that would take the loop's time; none where all that is to be done for them is little."""
    unready = [node for nodes in found for node in nodes if not node.prepared(selection)]
    return unready if sum(node.weight for node in unready) > SMALL else []


def _prepare(nodes: Sequence[Node], selection: AttributeSelection) -> None:
    for node in nodes:
        node.prepare(selection)
        time.sleep(0)  # the loop may have its turn
