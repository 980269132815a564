"""A whole lookup of an earlier time: the question, and those that stand behind its finished absence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from keyserver.hygiene import Hygiene
from keyserver.model import Answer, Kind, Name, Step, View
from keyserver.query import ByAddress, Query
from keyserver.resolver import by_domain, subaddress
from keyserver.resolver.past import Stood, Then, stood, together
from keyserver.store.history import Past

PastOf: TypeAlias = Callable[[Name, int], Awaitable[Past]]
"""As `History.past`."""


async def answered_then(
    query: Query, view: View, at: int, now: int, hygiene: Mapping[Kind, Hygiene], past_of: PastOf
) -> Then:
    """What this question was answered with at that instant, by what was on record up to it; with the questions that
    stand behind a finished absence, as `Resolver.lookup` asks them. `now`: the clock."""

    async def asked(query: Query, view: View) -> Then:
        past = await past_of(query.name, at)
        return stood(query, view, past, at, now, hygiene)

    return await _with_those_behind(query, view, asked)


async def answered_now(query: Query, view: View, stands: Callable[[Query, View], Awaitable[Then]]) -> Answer | None:
    """What this question would be answered with by the cache alone, in the same way; None: it would be searched for.

    Nobody is asked, and nothing is remembered. `stands`: as `past.stands`."""
    return (await _with_those_behind(query, view, stands)).answer


async def _with_those_behind(query: Query, view: View, asked: Callable[[Query, View], Awaitable[Then]]) -> Then:
    then = await asked(query, view)
    if then.answer is None or then.rules is None:
        return then
    rules = then.rules
    if other := subaddress.behind(query, then.answer, view, rules):
        second = await asked(other, subaddress.without_mail(view))
        then = together(then, second, "subaddress", subaddress.ASKED, subaddress.WHICH)
    if then.answer is None or not isinstance(query, ByAddress):
        return then
    behind = by_domain.behind(query, then.answer, view, rules)
    if behind and not by_domain.is_answered(view, rules):
        return replace(then, steps=(*then.steps, Step(0, "domain", "not answered", by_domain.NOT_HERE)))
    for named in behind:
        second = await asked(named, by_domain.asking(view))
        why = f"absent: a certificate of the gateway of {query.domain} was asked for"
        then = together(then, second, "domain", why, f"by the gateway of {query.domain}")
        if then.answer is None or then.state is not Stood.ABSENT:
            break
    return then
