"""How a protocol in which upstreams are asked describes itself; the register names them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from keyserver.clocks import Clocks
from keyserver.config import UpstreamSection
from keyserver.model import Kind, UpstreamSpec
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
    instead: Mapping[str, str] = field(default_factory=dict)
    """Schemes that people write by mistake, with the one to write."""

    @property
    def form(self) -> str:
        """How its URLs are written."""
        return " or ".join(f"{scheme}://host[:port]{self.path}" for scheme in self.ports)


def said_by(key: str, check: Callable[[], object]) -> Iterator[Mistake]:
    """What a check that raises ValueError has to say about a key."""
    try:
        check()
    except ValueError as error:
        yield key, str(error)
