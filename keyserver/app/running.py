"""The service from its first line to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator

from keyserver.app.context import CannotStart
from keyserver.app.desk import open_desk
from keyserver.app.listening import DRAIN, Listeners, open_all
from keyserver.app.parts import opened
from keyserver.clocks import Clocks
from keyserver.config import Config
from keyserver.listen.descriptors import raise_limit
from keyserver.observe import LogFormat
from keyserver.state import State, StateError

log = logging.getLogger("keyserver")

EXIT_CANNOT_START = 3
COMMANDS_END = 5.0  # seconds that a start waits for commands that work on the store at that moment


async def serve(
    config: Config,
    stop: asyncio.Event,
    *,
    ready: Callable[[str], None],
    hangup: Callable[[Callable[[], None]], None] = lambda reload: None,
) -> None:
    """The whole service until `stop` is set. `ready` hears one line per listener; `hangup` gets what SIGHUP does."""
    state = State(config.state_dir, config.cache.path)
    with _owned(state):
        await _serve(config, state, stop, ready, hangup)


async def _serve(
    config: Config,
    state: State,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    hangup: Callable[[Callable[[], None]], None],
) -> None:
    async with opened(config, Clocks.system()) as parts, asyncio.TaskGroup() as group:
        listeners = Listeners(parts.clocks.monotonic)
        keeper: asyncio.Task[None] | None = None
        reader = group.create_task(parts.intake.run())
        hangup(listeners.reload)
        try:
            await open_desk(parts, listeners, state)
            await open_all(parts, listeners, ready)
            keeper = group.create_task(parts.keeper.run())
            await stop.wait()
            log.info("stopping")
        finally:
            state.forget()
            await listeners.close()
            await parts.intake.drain(DRAIN)
            reader.cancel()
            if keeper is not None:
                keeper.cancel()


@contextlib.contextmanager
def _owned(state: State) -> Iterator[None]:
    """The locks, for as long as anything of the service runs. Raises CannotStart."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(state.owned(wait=COMMANDS_END))
        except StateError as problem:
            raise CannotStart(str(problem)) from None
        yield


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit code."""
    LogFormat(config.log.format == "json" or (config.log.format == "auto" and not sys.stderr.isatty())).install(
        config.log.level
    )

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(
            config,
            stop,
            ready=lambda line: print(line, file=sys.stderr, flush=True),
            hangup=lambda reload: loop.add_signal_handler(signal.SIGHUP, reload),
        )

    raise_limit()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read again
    code = 0
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main())
    except* CannotStart as problems:
        print(f"keyserver: {_first(problems)}", file=sys.stderr)
        code = EXIT_CANNOT_START
    finally:
        for handler in logging.getLogger().handlers:  # before whatever ended us shows
            handler.flush()
    return code


def _first(group: BaseExceptionGroup[CannotStart]) -> BaseException:
    """The one problem inside (nested) groups."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner
