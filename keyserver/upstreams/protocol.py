"""How a protocol in which upstreams are asked describes itself; the register names them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from keyserver.clocks import Clocks
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.model import Kind, OnChange, Rate, UpstreamSpec
from keyserver.query import ByAddress, ByFingerprint, ByHash, ByKeyId, ByText
from keyserver.upstreams.base import Upstream

Asked: TypeAlias = type[ByAddress] | type[ByFingerprint] | type[ByKeyId] | type[ByText] | type[ByHash]

Mistake: TypeAlias = tuple[str, str]
"""A key of [[upstream]], and what is accepted there."""

Make: TypeAlias = Callable[[UpstreamSection, UpstreamSpec, Clocks, ThreadPoolExecutor], Upstream]


@dataclass(frozen=True, slots=True)
class Protocol:
    """One protocol, as far as others have to know it.

    What it needs to ask is imported in `make`: the libraries take their time, and most installations need few of them.
    """

    ports: Mapping[str, int]
    """The schemes of its URLs, with the port of each where the URL names none."""
    kinds: frozenset[Kind]
    """Of certificates that it carries."""
    hears: frozenset[Asked]
    """Queries that it has words for."""
    make: Make
    """An upstream of a configured section, not asked yet. The threads are for libraries that block; all upstreams share
    them. Raises OSError, ValueError."""
    mistakes: Callable[[UpstreamSection], Iterable[Mistake]] = lambda section: ()
    """What only this protocol knows to be wrong; the URL's scheme, host and port are right by then. No network."""
    encrypted: frozenset[str] = frozenset()
    """Those of its schemes that are TLS from the first octet."""
    keys: frozenset[str] = frozenset()
    """Keys of [[upstream]] that not every protocol has, and this one does."""
    path: str = ""
    """What may follow host and port in a URL, for people."""
    bare: bool = False
    """Its URL is the scheme and a colon: the domain of each address asked for says where to ask."""
    priority: int = 10
    required: bool = True
    rate: Rate | None = None
    """Of [[upstream]], where the configuration says nothing."""
    id_rate: Rate | None = None
    """How often it is asked for fingerprints and key IDs, where that is another matter than addresses."""
    by_owner: bool = False
    """What it says is the word of the domain's owner."""
    nameless: bool = True
    """False: what it sends without user IDs only updates what is known."""
    learns: str = ""
    """Who hears of a question besides the upstream itself, for people."""
    instead: Mapping[str, str] = field(default_factory=dict)
    """Schemes that people write by mistake, with the one to write."""

    @property
    def form(self) -> str:
        """How its URLs are written."""
        if self.bare:
            return " or ".join(f"{scheme}:" for scheme in self.ports)
        return " or ".join(f"{scheme}://host[:port]{self.path}" for scheme in self.ports)

    def spec_of(self, section: UpstreamSection) -> UpstreamSpec:
        """What policy and resolver know of an upstream that is configured so."""
        return UpstreamSpec(
            name=section.name,
            priority=self.priority if section.priority is None else section.priority,
            domains=section.domains,
            ttl=section.ttl,
            timeout=float(section.timeout),
            template=self.bare or section.template,
            kinds=self.kinds,
            required=self.required if section.required is None else section.required,
            rate=section.rate or self.rate,
            id_rate=self.id_rate,
            nameless=self.nameless,
            by_owner=self.by_owner,
            on_change=OnChange.of(section.on_change),
        )


def said_by(key: str, check: Callable[[], object]) -> Iterator[Mistake]:
    """What a check that raises ValueError has to say about a key."""
    try:
        check()
    except ValueError as error:
        yield key, str(error)
