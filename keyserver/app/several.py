"""The service in several processes: sockets bound, the core and the fronts composed, all handed to the supervisor."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from keyserver.app.context import CannotStart
from keyserver.app.front import FrontProcess, Setting
from keyserver.app.listening import ready_line, taken
from keyserver.clocks import Clocks
from keyserver.config import Config, Listening
from keyserver.install import InstallError, installation
from keyserver.listen.sockets import bind_for
from keyserver.notify import Manager
from keyserver.processes.agreed import Agreed
from keyserver.processes.control import Control
from keyserver.processes.ledger import Ledger
from keyserver.processes.news import Counter
from keyserver.processes.register import BY_FACE
from keyserver.processes.supervisor import Main, Supervisor

CORE_NICE = 5
"""How much nicer the core is than fronts that share its processors. Each step divides its part by 1.25 (Linux,
sched-nice-design): beside a front that is never idle it still has a quarter, so that a miss keeps its deadline."""

Run = Callable[[Callable[[], Coroutine[Any, Any, None]]], int]
"""Runs a process's main coroutine in a loop of its own; the exit code."""

Bound = Mapping[Listening, Sequence[socket.socket]]

CoreMain = Callable[[Control, Counter, Agreed, Bound], Coroutine[Any, Any, None]]


def supervise(
    config: Config, clocks: Clocks, core: CoreMain, run: Run, ready: Callable[[str], None], manager: Manager
) -> int:
    """Serve in `config.workers` fronts and a core, until SIGTERM or SIGINT; the exit code. The locks are the caller's.

    Raises CannotStart."""
    if not hasattr(os, "pidfd_open"):
        raise CannotStart("server.workers: several processes need Linux; set it to 0")
    try:
        instance = installation(config.state_dir, config.admin.token_file).instance
    except InstallError as problem:
        raise CannotStart(str(problem)) from None
    counter, ledger, agreed = Counter(), Ledger(config.workers), Agreed()
    shared = replace(clocks, base=counter.base)
    lines: list[str] = []
    fronts: list[dict[Listening, Sequence[socket.socket]]] = [{} for _ in range(config.workers)]
    cores: dict[Listening, Sequence[socket.socket]] = {}
    for one in config.listeners:
        if one.face in BY_FACE:
            for bound, socks in zip(fronts, _bind(one, config.workers), strict=True):
                bound[one] = socks
            lines += [ready_line(one, sock.getsockname()) for sock in fronts[0][one]]
        else:  # bound here, too: so the core keeps its ports when it is started again
            cores[one] = _bind(one, 1)[0]

    def say(more: Sequence[str]) -> None:
        for line in (*lines, *more):
            ready(line)
        manager.ready((*lines, *more))

    def front(number: int, bound: Bound) -> Main:
        setting = Setting(config, shared, counter, agreed, ledger, number, instance, bound)
        return lambda control: run(lambda: FrontProcess(setting).run(control))

    def core_main(control: Control) -> int:
        give_way(config.workers)
        return run(lambda: core(control, counter, agreed, cores))

    listening = [(None, sock) for socks in cores.values() for sock in socks]
    return Supervisor(
        core=core_main,
        fronts=[front(number, bound) for number, bound in enumerate(fronts)],
        listening=[
            *listening,
            *((number, sock) for number, bound in enumerate(fronts) for socks in bound.values() for sock in socks),
        ],
        clocks=clocks,
        manager=manager,
        ready=say,
    ).run()


def give_way(fronts: int) -> None:
    """Let fronts go before this process where they and it share processors: a hit waits no longer for the end of a
    turn of a miss. With a processor for each nothing would be gained, and a machine that others load would only make
    misses slower. Where it is not permitted, everything stays as it is."""
    if len(os.sched_getaffinity(0)) > fronts:
        return
    with contextlib.suppress(OSError):
        os.nice(CORE_NICE)


def _bind(one: Listening, processes: int) -> list[list[socket.socket]]:
    try:
        return bind_for(one.listener, processes)
    except OSError as problem:
        raise taken(one, problem) from None
