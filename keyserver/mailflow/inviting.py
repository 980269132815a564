"""What follows from mail for invitations: which has come back, and who may be invited."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from keyserver.invite.bounces import of_message_id
from keyserver.mailflow.values import Caught, Envelope, Seen, Way, Why
from keyserver.store.base import StoreError
from keyserver.store.invitations import Invitations
from keyserver.wire.dsn import Failure

_LOG = logging.getLogger("keyserver.mailflow")


async def note_returned(invitations: Invitations, failure: Failure, now: int) -> None:
    """Note which of our invitations has come back. Nothing else follows from such a mail: it proves nothing."""
    for id_ in filter(None, map(of_message_id, failure.ids)):
        try:
            ours = await invitations.bounced(id_, now, failure.why)
        except StoreError as trouble:
            _LOG.error("an invitation that has come back could not be noted: %s", trouble)
            return
        if ours:
            _LOG.info("an invitation has come back", extra={"facts": {"invitation": id_}})


def invitable(seen: Seen, envelope: Envelope, caught: Iterable[Caught]) -> Iterator[tuple[str, str]]:
    """(address, fingerprint) of what is newly cached and not held, of a sender who was authenticated just now."""
    if seen.sender is not None and seen.authenticated and envelope.way is not Way.FILE:
        yield from ((seen.sender, one.fingerprint) for one in caught if one.new and one.result is Why.CACHED)
