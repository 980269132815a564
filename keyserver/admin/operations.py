"""All that administrators can do, subject by subject: what the API and the pages are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keyserver.admin.access import Access
from keyserver.admin.acts import Acts
from keyserver.admin.auditing import Auditing
from keyserver.admin.bulk import Bulk
from keyserver.admin.encrypting import Encrypting
from keyserver.admin.explaining import Explaining
from keyserver.admin.health import Pulse
from keyserver.admin.history import Histories
from keyserver.admin.invitations import Invitations
from keyserver.admin.outlook import Outlooks
from keyserver.admin.overview import Overview
from keyserver.admin.pausing import Pausing
from keyserver.admin.service import Service
from keyserver.admin.tokens import Tokens
from keyserver.admin.undoing import Undoing
from keyserver.events.feed import Feed
from keyserver.resolver.membership import ClusterNode


@dataclass(frozen=True, slots=True)
class Operations:
    """One of each."""

    service: Service
    explaining: Explaining
    encrypting: Encrypting
    invitations: Invitations
    undoing: Undoing
    bulk: Bulk
    pausing: Pausing
    access: Access
    acts: Acts
    tokens: Tokens
    auditing: Auditing
    histories: Histories
    outlooks: Outlooks
    overview: Overview
    feed: Feed
    nodes: Callable[[], Sequence[ClusterNode]]  # that share the cache; none where one has it alone
    pulses: Callable[[], Sequence[Pulse]]  # of each upstream
    clock: Callable[[], int]  # Unix seconds
