"""The revocation lists that the configuration names: kept as files, fetched again in time, in force when verified.

Each node fetches its own, so that none depends on another, nor on the store. A list that was good is used until a newer
one is: when its end is over `smime.crl.stale` says what that means."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from keyserver.app.cache import Cache
from keyserver.app.context import CannotStart, Context
from keyserver.config import Config
from keyserver.config.sections.caching import CrlSection
from keyserver.model import EVERYTHING, Malformed
from keyserver.resolver.revoked import Listed, Standing
from keyserver.smime.crl import Authority, RevocationList, authority
from keyserver.smime.crl_reading import MOST, read_list
from keyserver.upstreams.crl.fetching import FetchFailed, Source, open_source

HOUR, DAY = 3600, 86400
_RETRY = 60.0  # seconds after the first failure; doubled by each further one, up to an hour
_LATER = 30.0  # seconds behind its end that a list which has not been replaced is asked for again
_YIELD = 0.0001  # seconds that reading gives to others, every millisecond or two

log = logging.getLogger("keyserver.crl")

MakeSource = Callable[[str], Source]


@dataclass(slots=True, eq=False)
class Crl:
    """One configured list."""

    url: str
    authority: Authority
    source: Source
    file: Path
    fatal: bool = False
    held: RevocationList | None = None
    fetched_at: int = 0
    failures: int = 0
    in_a_row: int = 0
    problem: str = ""
    due: float = 0.0  # monotonic seconds: when it is fetched next
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    def standing(self, now: int) -> Standing:
        """How it stands at `now`."""
        held = self.held
        return Standing(
            url=self.url,
            authority=self.authority.title,
            fatal=self.fatal,
            entries=held.count if held else 0,
            issued=held.issued if held else 0,
            ends=held.ends if held else 0,
            fetched_at=self.fetched_at,
            failures=self.failures,
            stale=Listed(self.authority, held).stale(now),
            problem=self.problem,
        )


NextCrls: TypeAlias = Sequence[tuple[Crl, bool]]
"""The lists of a configuration that does not hold yet, and of each whether it is fatal to have none."""


def wait_of(left: int, *, new: bool, failed: int, chance: float) -> float:
    """Seconds until a list is fetched again. left: seconds to its end; new: it was another than before; failed: how
    often in a row it could not be had; chance: 0 to 1.

    Before its end, so that nobody is without one, but every hour at most and every day at least. One that has not been
    replaced in time is looked for right behind its end."""
    if failed:
        return float(min(HOUR, _RETRY * 2 ** min(failed - 1, 10)) * (0.8 + 0.2 * chance))
    if not new and 0 < left < HOUR:
        return left + _LATER * (1 + chance)
    return float(max(HOUR, min(DAY, left) * (0.8 + 0.1 * chance)))


class Crls:
    """All of them. `run` is one task of the composition root; without it they stand as they were found in files."""

    def __init__(self, context: Context, cache: Cache, make: MakeSource) -> None:
        self._clocks = context.clocks
        self._revocations = cache.revocations
        self._changes = cache.changes
        self._folder = context.config.state_dir / "crl"
        self._make = make
        self._crls: Sequence[Crl] = ()
        self._tasks: dict[Crl, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._running = self._ending = False
        self._reading = asyncio.Lock()  # one list at a time: each takes twice its length

    async def prepare(self, config: Config) -> NextCrls:
        """Those of another configuration; what is kept of them is read. Raises OSError, ValueError."""
        known = {(one.url, one.authority.fingerprint): one for one in self._crls}
        found: list[tuple[Crl, bool]] = []
        for section in config.smime.crl:
            issuer = await asyncio.to_thread(_authority, section)
            one = known.get((section.url, issuer.fingerprint))
            if one is None:
                name = hashlib.sha256(f"{section.url}\0{issuer.fingerprint}".encode()).hexdigest()[:32]
                one = Crl(section.url, issuer, self._make(section.url), self._folder / f"{name}.crl")
                await self._load(one)
            found.append((one, section.stale == "fatal"))
        return found

    def adopt(self, following: NextCrls) -> None:
        """They hold from here on, and are fetched now. Whoever calls says that everything has changed."""
        before, self._crls = self._crls, tuple(one for one, _ in following)
        for one, fatal in following:
            one.fatal = fatal
            one.due = self._clocks.monotonic()
            one.wake.set()
        for one in set(before) - set(self._crls):
            if (task := self._tasks.pop(one, None)) is not None:
                task.cancel()
            closing = asyncio.get_running_loop().create_task(one.source.close())
            self._leaving.add(closing)
            closing.add_done_callback(self._leaving.discard)
        self._apply()
        if self._running:
            self._start()

    async def run(self) -> None:
        """Fetch each in time, until cancelled."""
        self._running = True
        for draft in self._folder.glob(".*.crl.*"):  # of a service that was killed while it wrote
            draft.unlink(missing_ok=True)
        self._start()
        try:
            await asyncio.Event().wait()
        finally:
            self._running, self._ending = False, True
            tasks = tuple(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def fetch(self) -> None:
        """All of them, now."""
        await asyncio.gather(*map(self._fetch, self._crls))

    async def close(self) -> None:
        """Close all connections."""
        self._ending = True
        await asyncio.gather(*(one.source.close() for one in self._crls), *self._leaving)

    def standings(self) -> Sequence[Standing]:
        """How each stands."""
        now = self._clocks.now()
        return [one.standing(now) for one in self._crls]

    def _start(self) -> None:
        """A task for each that has none; files of lists that are not configured any more go."""
        for one in self._crls:
            if one not in self._tasks:
                self._tasks[one] = asyncio.get_running_loop().create_task(self._keep(one))
        mine = {one.file for one in self._crls}
        with contextlib.suppress(OSError):
            for file in self._folder.glob("*.crl"):
                if file not in mine:
                    file.unlink(missing_ok=True)

    async def _keep(self, one: Crl) -> None:
        while True:
            while (left := one.due - self._clocks.monotonic()) > 0:
                one.wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await one.wake.wait()
            await self._fetch(one)

    async def _fetch(self, one: Crl) -> None:
        """Once; whatever happens is noted."""
        new = False
        try:
            octets = await one.source.fetch()
            async with self._reading:
                new = await self._take(one, octets)
        except (FetchFailed, Malformed) as problem:
            if str(problem) != one.problem:
                log.error("the revocation list %s: %s", one.url, problem)
            one.problem = str(problem)
            one.failures += 1
        except Exception as fault:  # a fault of ours that must not end the task
            log.exception("the revocation list %s", one.url)
            one.problem = f"could not be read ({type(fault).__name__})"
            one.failures += 1
        else:
            if one.problem:
                log.warning("over: the revocation list %s: %s", one.url, one.problem)
            one.problem = ""
        left = one.held.ends - self._clocks.now() if one.held else 0
        one.in_a_row = one.in_a_row + 1 if one.problem or left <= 0 else 0
        one.due = self._clocks.monotonic() + wait_of(left, new=new, failed=one.in_a_row, chance=random.random())  # noqa: S311

    async def _take(self, one: Crl, octets: bytes) -> bool:
        """Verify, keep and apply it; is it another than before? Raises Malformed."""
        now, held = self._clocks.now(), one.held
        if held is not None and await asyncio.to_thread(held.octets.__eq__, octets):
            one.fetched_at = now
            return False
        found = await asyncio.to_thread(read_list, octets, one.authority, now, self._yield)
        if held is not None and found.precedes(held):
            raise Malformed("older than the list that is known")
        try:
            await asyncio.to_thread(_write, one.file, found.octets)
        except OSError as problem:
            log.error("the revocation list %s cannot be kept for the next start: %s", one.url, problem)
        same = held is not None and await asyncio.to_thread(found.says_the_same, held)
        alike = same and not (one.fatal and Listed(one.authority, held).stale(now))
        one.held, one.fetched_at = found, now
        self._apply()
        if not alike:
            self._changes.publish(EVERYTHING)
        return True

    async def _load(self, one: Crl) -> None:
        """What an earlier start has kept: verified again, as anybody may have changed it."""
        try:
            octets = await asyncio.to_thread(one.file.read_bytes)
            now = self._clocks.now()
            one.held = await asyncio.to_thread(read_list, octets, one.authority, now, self._yield)
            one.fetched_at = int(one.file.stat().st_mtime)
        except FileNotFoundError:
            return
        except (OSError, Malformed) as problem:
            log.error("the revocation list kept in %s cannot be used: %s", one.file, problem)

    def _yield(self) -> None:
        """In the thread that reads: let others run; end when nobody wants the list any more."""
        if self._ending:
            raise FetchFailed("the service is ending")
        time.sleep(_YIELD)

    def _apply(self) -> None:
        self._revocations.replace([Listed(one.authority, one.held, one.fatal) for one in self._crls])


@contextlib.asynccontextmanager
async def open_crls(context: Context, cache: Cache, make: MakeSource | None = None) -> AsyncIterator[Crls]:
    """The lists, those that were kept in force, until the block ends. Raises CannotStart."""
    by_scheme = partial(open_source, most=MOST, via=context.installation.instance, monotonic=context.clocks.monotonic)
    crls = Crls(context, cache, make or by_scheme)
    try:
        crls.adopt(await crls.prepare(context.config))
    except (OSError, ValueError) as problem:
        raise CannotStart(f"smime.crl: {problem}") from None
    try:
        yield crls
    finally:
        await crls.close()


def _authority(section: CrlSection) -> Authority:
    assert section.issuer_file is not None  # the configuration says so
    return authority(section.issuer_file.read_bytes())


def _write(file: Path, octets: bytes) -> None:
    """As a whole or not at all, for our eyes only."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(octets)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
