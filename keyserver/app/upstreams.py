"""The upstreams that the configuration names, by their URL's scheme; those that stay live on when it is read again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from keyserver.app.context import CannotStart, Context
from keyserver.config import Config
from keyserver.config.sections.upstream import UpstreamSection
from keyserver.listen.tls import stamp_of
from keyserver.model import UpstreamSpec
from keyserver.resolver.circuit import GRACE
from keyserver.upstreams.base import Upstream
from keyserver.upstreams.register import BY_SCHEME

BLOCKING_THREADS = 4  # for upstreams whose library blocks
MAY_CHANGE = ("priority", "domains", "ttl", "timeout", "required", "rate", "on_change")
"""Keys of [[upstream]] that say nothing of how it is reached."""

MakeUpstream = Callable[[UpstreamSection, UpstreamSpec], Upstream]
"""An upstream that is not asked yet. Raises OSError, ValueError."""


@dataclass(frozen=True, slots=True)
class NextPeers:
    """The upstreams of a configuration that does not hold yet. `made`: those that are not there so far."""

    sections: Mapping[str, UpstreamSection]
    upstreams: Mapping[str, Upstream]
    made: frozenset[str]
    files: Mapping[str, object]


class Peers:
    """The upstreams that hold now."""

    def __init__(self, make: MakeUpstream) -> None:
        self._make = make
        self._sections: Mapping[str, UpstreamSection] = {}
        self._files: Mapping[str, object] = {}
        self._leaving: dict[asyncio.Task[None], Upstream] = {}
        self.upstreams: Mapping[str, Upstream] = {}

    async def prepare(self, config: Config) -> NextPeers:
        """Those of another configuration; nobody asks them yet. Raises OSError, ValueError."""
        sections = {section.name: section for section in config.upstream}
        files = {name: _files(section) for name, section in sections.items()}
        made: dict[str, Upstream] = {}
        try:
            for name, section in sections.items():
                there = self._sections.get(name)
                if there is None or _way(section) != _way(there) or files[name] != self._files.get(name):
                    made[name] = self._make(section, spec_of(section))
        except (OSError, ValueError):
            await asyncio.gather(*(upstream.close() for upstream in made.values()))
            raise
        upstreams = {name: made.get(name) or self.upstreams[name] for name in sections}
        return NextPeers(sections, upstreams, frozenset(made), files)

    def adopt(self, following: NextPeers) -> None:
        """They hold from here on. Those that leave are closed when nobody waits for their answers any more."""
        for name, upstream in following.upstreams.items():
            upstream.spec = spec_of(following.sections[name])
        for name, upstream in self.upstreams.items():
            if following.upstreams.get(name) is not upstream:
                task = asyncio.get_running_loop().create_task(_close_later(upstream))
                self._leaving[task] = upstream
                task.add_done_callback(lambda task: self._leaving.pop(task, None))
        self._sections, self._files, self.upstreams = following.sections, following.files, following.upstreams

    async def close(self) -> None:
        """Close all."""
        leaving = dict(self._leaving)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        await asyncio.gather(*(upstream.close() for upstream in (*self.upstreams.values(), *leaving.values())))


@contextlib.asynccontextmanager
async def open_upstreams(context: Context, make: MakeUpstream | None = None) -> AsyncIterator[Peers]:
    """The upstreams, until the block ends; none is asked yet. Raises CannotStart."""
    threads = ThreadPoolExecutor(BLOCKING_THREADS, "upstreams")

    def by_scheme(section: UpstreamSection, spec: UpstreamSpec) -> Upstream:
        return BY_SCHEME[section.scheme].make(section, spec, context.clocks, threads)

    peers = Peers(make or by_scheme)
    try:
        peers.adopt(await peers.prepare(context.config))
    except (OSError, ValueError) as problem:
        raise CannotStart(f"upstream: {problem}") from None
    try:
        yield peers
    finally:
        await peers.close()
        threads.shutdown(wait=False, cancel_futures=True)


def spec_of(section: UpstreamSection) -> UpstreamSpec:
    """What policy and resolver know of it."""
    return BY_SCHEME[section.scheme].spec_of(section)


def _way(section: UpstreamSection) -> UpstreamSection:
    """How it is reached, and nothing else."""
    return section.model_copy(update=dict.fromkeys(MAY_CHANGE))


def _files(section: UpstreamSection) -> object:
    """What tells whether a file that it names is another one by now."""
    return stamp_of(value for _, value in section if isinstance(value, Path))


async def _close_later(upstream: Upstream) -> None:
    """No question to it takes longer."""
    await asyncio.sleep(upstream.spec.timeout + 2 * GRACE)
    await upstream.close()
