"""`keyserver cache migrate`: everything from this cache's store to another one, of whatever kind."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keyserver.cli.options import DONE, USAGE, CommandError, ConfigOption, SetOption, load_config
from keyserver.cli.progress import counting

if TYPE_CHECKING:
    from keyserver.config import Config
    from keyserver.store.transfer import Part, Progress, Transfer


def migrate(
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The other store, as cache.database names one.")],
    password_file: Annotated[
        Path | None, typer.Option("--to-password-file", metavar="FILE", help="The password to it (PostgreSQL).")
    ] = None,
    config: ConfigOption = None,
    settings: SetOption = None,
) -> int:
    """Copy everything to another, empty store, and compare both. No service may run.

    Broken off, it goes on where it was. All of it: entries, revocations, records, blocks, approvals, tokens, sessions,
    the audit, pauses, what upstreams were told."""
    configuration = load_config(config, settings)
    from keyserver.config.database import shown, wrong_with

    if wrong := wrong_with(to):
        raise CommandError(f"--to {shown(to)}: {wrong}", code=USAGE)
    if to == configuration.cache.database:
        raise CommandError("--to: that is the store of now (cache.database)", code=USAGE)
    with _alone(configuration, to):
        counts = asyncio.run(_migrate(configuration, to, password_file))
    print(", ".join(f"{count} {part}" for part, count in counts.items()))
    print(f'both stores hold the same; now set cache.database = "{shown(to)}"', file=sys.stderr)
    return DONE


async def _migrate(config: Config, to: str, password_file: Path | None) -> dict[Part, int]:
    """Rows of each part, once they are in both stores. Raises CommandError."""
    from keyserver.store import transfer
    from keyserver.store.base import StoreError, StoreRefused

    try:
        async with _opened(config, config.cache.database, config.cache.database_password_file) as source:
            counts = {part: await source.count(part) for part in transfer.Part}
            async with _opened(config, to, password_file) as target:
                await transfer.check(source, target)
                with _shown("copying", counts) as progress:
                    await transfer.copy(source, target, progress)
                with _shown("comparing", counts) as progress:
                    await transfer.verify(source, target, progress)
    except transfer.Differs as problem:
        raise CommandError(str(problem), "copy to an empty store, while no service runs on either") from None
    except (StoreError, StoreRefused) as problem:
        raise CommandError(str(problem)) from None
    return counts


@contextlib.asynccontextmanager
async def _opened(config: Config, url: str, password_file: Path | None) -> AsyncIterator[Transfer]:
    from keyserver.app.cache import hygiene_of
    from keyserver.changes import Changes
    from keyserver.config.passwords import read_password
    from keyserver.store.opening import open_store

    try:
        password = read_password("password", password_file).decode() if password_file is not None else None
    except (OSError, UnicodeDecodeError) as problem:
        raise CommandError(f"{password_file}: {getattr(problem, 'strerror', None) or 'no text'}", code=USAGE) from None
    store = await open_store(url, hygiene_of(), Changes(), config.cache.max_size, password)
    try:
        yield store.transfer
    finally:
        await store.close()


@contextlib.contextmanager
def _alone(config: Config, to: str) -> Iterator[None]:
    """No service on this machine starts on either store meanwhile. Raises CommandError where one runs."""
    from keyserver.config.database import SQLITE
    from keyserver.state import State, StateError

    states = [State(config.state_dir, config.cache.path)]
    if to.startswith(SQLITE):
        file = Path(to.removeprefix(SQLITE))
        states.append(State(file.parent, file))
    with contextlib.ExitStack() as stack:
        try:
            for state in states:
                stack.enter_context(state.shared())
        except StateError as problem:
            raise CommandError(str(problem), "stop it first: nothing may change meanwhile") from None
        yield


@contextlib.contextmanager
def _shown(what: str, counts: dict[Part, int]) -> Iterator[Progress]:
    """A bar for all parts together."""
    with counting() as bar:
        task = bar.add_task(what, total=sum(counts.values()))

        def done(part: Part, count: int) -> None:
            bar.update(task, advance=count, description=f"{what} {part}")

        yield done
