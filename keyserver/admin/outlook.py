"""What is going to fail: the report, for whoever runs the service."""

from __future__ import annotations

from collections.abc import Callable

from keyserver.admin.problems import Unusable
from keyserver.config.sections.outlook import MOST_DAYS
from keyserver.outlook.gathering import Outlook
from keyserver.outlook.report import Report


class Outlooks:
    """days: how far it looks where nobody says."""

    def __init__(self, outlook: Outlook, days: Callable[[], int]) -> None:
        self._outlook = outlook
        self._days = days

    async def report(self, days: int | None = None) -> Report:
        """So many days ahead and back. Raises Unusable, StoreError."""
        if days is not None and not 1 <= days <= MOST_DAYS:
            raise Unusable(f"days is {days}; 1 to {MOST_DAYS} are accepted")
        return await self._outlook.report(self._days() if days is None else days)
