"""What the faces of one view are handed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from keyserver.faces.cache import MemoryLimit
from keyserver.listen.trust import Network, Trust
from keyserver.model import Answer, View
from keyserver.query import Query
from keyserver.resolver.membership import Detached
from keyserver.resolver.resolver import Resolver
from keyserver.store.base import Store
from keyserver.verdict.named import NamedPolicy

Note = Callable[[str, Query | None, Answer | None, int, float, str], None]
"""(face, query, answer, status or result code, seconds, client): called for each lookup, also for one refused."""


@dataclass(frozen=True, slots=True)
class FaceRules:
    """What faces go by, beside the resolver's rules."""

    explain: bool = True  # X-Cache, X-Key-Source, X-Key-Usable, and details in the statistics
    text_search: bool = False
    max_size: int = 0  # octets of the database above which /readyz complains; 0: never
    own_domains: tuple[str, ...] = ()  # whose Web Key Directory we are, as `policy.in_domains` has them
    relaying: frozenset[str] = frozenset()  # views that are one for every other domain, too
    policies: Mapping[str, NamedPolicy] = field(default_factory=dict)  # of verdicts, by name; the first is the default
    verdict_clients: tuple[Network, ...] = ()  # who may ask for verdicts, beside this machine


@dataclass(frozen=True, slots=True)
class FaceContext:
    """The surroundings of one view's faces, put together by the composition root."""

    lookups: Resolver
    store: Store
    budget: MemoryLimit  # memory for what may be answered again; knows of every change
    view: View  # its policy is what the rules of the moment say of its name
    clock: Callable[[], int]  # wall clock, Unix seconds
    monotonic: Callable[[], float]
    note: Note
    instance: str  # our name in `Via`, and in LDAP's loop control
    rules: Callable[[], FaceRules] = FaceRules
    complaint: Callable[[], str] = lambda: ""  # what /readyz says although we are ready
    detached: Callable[[], Detached | None] = lambda: None  # from the store; it is not asked then
    trust: Trust = field(default_factory=Trust)  # whose word about its clients counts
