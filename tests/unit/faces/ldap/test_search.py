"""What may be kept of a search whose names change while it is under way."""

from __future__ import annotations

from keyserver.changes import Changes
from keyserver.faces.ldap.search import Searches
from keyserver.faces.ldap.tree import SearchPlan, SearchReply, Tree
from keyserver.model import Change
from keyserver.wire.ldap import Scope, SearchRequest
from keyserver.wire.ldap_filter import Equal
from support.ldap_memory import BASE, Memory, context
from support.ldap_messages import write_search
from support.openpgp import make

SEARCH = SearchRequest(BASE, Scope.SUBTREE, 0, 0, False, Equal("gpgMailbox", b"alice@example.org"), ("pgpKey",))
REQUEST = write_search(SEARCH)


async def _ask(searches: Searches) -> SearchReply:
    plan = searches.plan(SEARCH, REQUEST)
    assert isinstance(plan, SearchPlan)
    return await searches.answer(plan, None, False, 0)


async def test_what_was_deleted_while_a_search_went_by_is_not_given_again_from_memory() -> None:
    memory, changes = Memory(make(["Alice <alice@example.org>"], seed="alice").octets), Changes()
    searches = Searches(context(memory, changes, []), Tree(BASE, start_tls=False, text_search=lambda: False))
    names = memory.held[0].certificate.proof.index
    lookup = memory.lookup

    async def deleted_meanwhile(*arguments, **more):  # type: ignore[no-untyped-def]
        answer = await lookup(*arguments, **more)
        changes.publish(Change(changes.published + 1, names))
        return answer

    memory.lookup = deleted_meanwhile  # type: ignore[method-assign]
    for _ in range(2):  # a reply is kept when it is asked for the second time
        assert len((await _ask(searches)).entries) == 1
    memory.held.clear()
    memory.lookup = lookup  # type: ignore[method-assign]
    assert searches.known(REQUEST) is None
    assert not (await _ask(searches)).entries


async def test_what_nothing_touched_is_given_again_from_memory() -> None:
    memory = Memory(make(["Alice <alice@example.org>"], seed="alice").octets)
    searches = Searches(context(memory, Changes(), []), Tree(BASE, start_tls=False, text_search=lambda: False))
    for _ in range(2):
        assert len((await _ask(searches)).entries) == 1
    memory.held.clear()
    assert searches.known(REQUEST) is not None
