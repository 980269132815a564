"""Reads what the report is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keyserver.outlook.pace import slower
from keyserver.outlook.report import MOST, Report, ending_of, lists_of, no_longer_of, partner_of
from keyserver.resolver.revoked import Standing
from keyserver.store.recipients import DAY, Recipients
from keyserver.store.upstreams import PACE_DAYS, AboutUpstreams


class Outlook:
    """lists: how revocation lists stand on this node; clock: Unix seconds."""

    def __init__(
        self,
        recipients: Recipients,
        upstreams: AboutUpstreams,
        lists: Callable[[], Sequence[Standing]],
        clock: Callable[[], int],
    ) -> None:
        self._recipients = recipients
        self._upstreams = upstreams
        self._lists = lists
        self._clock = clock

    async def report(self, days: int) -> Report:
        """The report of this moment, so many days ahead and back. Raises StoreError."""
        now = self._clock()
        today, reach = now // DAY, days * DAY
        since = today - days
        partners = await self._recipients.domains(since, MOST)
        ending = await self._recipients.ending(now, now + reach, since, MOST)
        lost = await self._recipients.lost(now - reach, since, MOST)
        ended = await self._recipients.ending(now - reach, now, since, MOST)  # and nobody has asked for them since
        pace = await self._upstreams.pace(today - PACE_DAYS + 1)
        return Report(
            at=now,
            days=days,
            known=any(one.asked for one in partners),
            ending=tuple(map(ending_of, ending)),
            no_longer=no_longer_of(lost, ended),
            partners=tuple(map(partner_of, partners)),
            upstreams=tuple(slower(pace, today)),
            lists=tuple(lists_of(self._lists(), now)),
        )
