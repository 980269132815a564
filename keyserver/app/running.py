"""The service from its first line to SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from keyserver.admin.concerns import at_start
from keyserver.app.admin_socket import open_admin_socket
from keyserver.app.context import CannotStart
from keyserver.app.front import agreed_on
from keyserver.app.invitations import run_automatic
from keyserver.app.listening import DRAIN, Listeners, open_all
from keyserver.app.log import install_log
from keyserver.app.parts import Parts, opened
from keyserver.app.reloading import Reloader
from keyserver.app.several import supervise
from keyserver.clocks import Clocks
from keyserver.config import Config, Listening
from keyserver.listen.descriptors import raise_limit
from keyserver.notify import Manager
from keyserver.processes.agreed import Agreed
from keyserver.processes.control import Control
from keyserver.processes.fronts import Fronts
from keyserver.processes.news import Counter
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
    whole: Callable[[], None] = lambda: None,
    reloaded: Callable[[], None] = lambda: None,
) -> None:
    """The whole service until `stop` is set. `ready` hears one line per listener; `hangup` gets what SIGHUP does;
    `whole` is called when everything is open, `reloaded` when what SIGHUP began is over, whatever came of it."""
    state = State(config.state_dir, config.cache.path)
    with _owned(state):
        await _serve(config, Clocks.system(), state, stop, ready, hangup, reloaded, lambda parts, listeners: whole)


async def _serve(
    config: Config,
    clocks: Clocks,
    state: State,
    stop: asyncio.Event,
    ready: Callable[[str], None],
    hangup: Callable[[Callable[[], None]], None],
    reloaded: Callable[[], None],
    among: Callable[[Parts, Listeners], Callable[[], None]] | None = None,
) -> None:
    """`among`: joins other processes, whose listeners it enters; what it returns is called when everything is open."""
    async with opened(config, clocks) as parts, asyncio.TaskGroup() as group:
        listeners = Listeners(parts.clocks.monotonic)
        joined = among(parts, listeners) if among is not None else None
        background = [group.create_task(parts.crls.run())]
        reader = group.create_task(parts.intake.run())
        inviter = group.create_task(run_automatic(parts.automatic, parts.operations))
        reloader = Reloader(parts, listeners)

        async def hang_up() -> None:
            await reloader.hang_up()
            reloaded()

        def again() -> None:
            group.create_task(hang_up())

        listeners.config, listeners.reloads = lambda: reloader.config, reloader
        try:
            await open_admin_socket(parts, listeners, state)
            await open_all(parts, listeners, ready)
            for concern in at_start(config, os.geteuid()):
                log.warning("%s. %s.", concern.what, concern.cure)
            if joined is not None:
                joined()
            hangup(again)
            background += map(group.create_task, (parts.upkeep.run(), parts.events.webhook.run(), parts.digest.run()))
            await stop.wait()
            log.info("stopping")
        finally:
            state.forget()
            await listeners.close()
            await parts.intake.drain(DRAIN)
            reader.cancel()
            inviter.cancel()
            for task in background:
                task.cancel()


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
    install_log(config)

    manager = Manager(os.environ, os.getpid(), Clocks.system().monotonic)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        lines: list[str] = []
        alive = loop.create_task(manager.keep_alive())

        def end() -> None:
            manager.stopping()
            stop.set()

        def ready(line: str) -> None:
            lines.append(line)
            _say(line)

        def again(reload: Callable[[], None]) -> None:
            manager.reloading()
            reload()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        await serve(
            config,
            stop,
            ready=ready,
            hangup=lambda reload: loop.add_signal_handler(signal.SIGHUP, again, reload),
            whole=lambda: manager.ready(lines),
            reloaded=manager.reloaded,
        )
        alive.cancel()

    raise_limit()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read again
    if not config.workers:
        return _run(main)
    try:
        with _owned(State(config.state_dir, config.cache.path)):  # the children hold the locks, too
            return supervise(config, Clocks.system(), partial(_core, config), _run, _say, manager)
    except CannotStart as problem:
        print(f"keyserver: {problem}", file=sys.stderr)
        return EXIT_CANNOT_START


async def _core(
    config: Config,
    control: Control,
    counter: Counter,
    agreed: Agreed,
    bound: Mapping[Listening, Sequence[socket.socket]],
) -> None:
    """The core of a service of several processes, until the supervisor ends it."""
    _, config = agreed_on(agreed, config)
    stop = asyncio.Event()
    lines: list[str] = []
    again: list[Callable[[], None]] = []

    def reload() -> None:
        for read in again:
            read()

    def reloaded() -> None:
        control.tell({"reloaded": True})

    def among(parts: Parts, listeners: Listeners) -> Callable[[], None]:
        fronts = Fronts(counter, control, agreed, stop=stop.set, reload=reload)
        listeners.fronts, listeners.bound = fronts, bound
        parts.hot.append(fronts)

        def join() -> None:
            fronts.begin(
                parts.changes,
                hits=parts.observer.hot,
                searched=lambda names: parts.resolver.note_asked(names, parts.clocks.now()),
            )
            fronts.ready(lines)

        return join

    state = State(config.state_dir, config.cache.path)
    clocks = replace(Clocks.system(), base=counter.base)
    await _serve(config, clocks, state, stop, lines.append, again.append, reloaded, among)


def _run(main: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """A process's main coroutine in a loop of its own; the exit code."""
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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _first(group: BaseExceptionGroup[CannotStart]) -> BaseException:
    """The one problem inside (nested) groups."""
    inner: BaseException = group
    while isinstance(inner, BaseExceptionGroup):
        inner = inner.exceptions[0]
    return inner
