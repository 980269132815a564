"""Starts the core and the fronts, starts them again when they die, and ends them all. Nothing else, and no loop of its
own: a plain wait for children, their words and signals."""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from keyserver.clocks import Clocks
from keyserver.notify import SIGNS, Manager
from keyserver.processes.control import Control, Message, die_with, hear, tell

CALM = 10.0  # seconds after which a process that dies is started again at once
FIRST, MOST = 0.1, 5.0  # seconds until it is, where it died sooner; doubled each time
DRAIN = 7.0  # seconds that fronts have for what is under way, and then the core

_LOG = logging.getLogger("keyserver.processes")

Main = Callable[[Control], int]
"""What a child runs; its exit code."""


@dataclass(slots=True)
class Child:
    """One process, and what became of it. `front`: its number, None for the core."""

    main: Main
    front: int | None
    pid: int = 0
    pidfd: int = -1
    control: socket.socket | None = None
    since: int = 0
    began: float = 0.0
    restarts: int = 0
    quick: int = 0
    due: float | None = 0.0
    """When to start it, on the monotonic clock; None while it runs."""
    alive: float | None = None
    """When it gave its last sign of life, on the monotonic clock; None before the first, or where nobody watches."""
    ready: Sequence[str] | None = None
    """The lines that it said when it was ready."""

    @property
    def name(self) -> str:
        """For the log."""
        return "core" if self.front is None else f"front {self.front}"


@dataclass
class Supervisor:
    """core, fronts: what they run. listening: sockets that children inherit, for each front (None: the core's).
    manager: who hears of us; where it watches us, we watch our children by the same measure."""

    core: Main
    fronts: Sequence[Main]
    listening: Iterable[tuple[int | None, socket.socket]]
    clocks: Clocks
    manager: Manager
    ready: Callable[[Sequence[str]], None]
    """Called once, with the lines of the core, when everybody is ready."""

    _children: list[Child] = field(init=False)
    _said: bool = False
    _stopping: float | None = None
    """When those who have been told to end are killed, on the monotonic clock."""
    _core_told: bool = False
    _code: int = 0

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or until a child cannot start at all; the exit code."""
        self._began = self.clocks.now()
        self._watched = self.clocks.monotonic()
        self._core = Child(self.core, None)
        self._children = [self._core, *(Child(main, number) for number, main in enumerate(self.fronts))]
        self._listening = list(self.listening)
        self._signals: list[int] = []
        self._wake, wake = socket.socketpair()
        for end in (self._wake, wake):
            end.setblocking(False)
        self._mine = [self._wake, wake]
        signal.set_wakeup_fd(wake.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: self._signals.append(number))
        gc.collect()
        gc.freeze()  # so that children share the pages of everything imported for as long as they can
        with selectors.DefaultSelector() as self._selector:
            self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
            while not self._over():
                self._start_due()
                for key, _ in self._selector.select(self._patience()):
                    key.data()
                self._obey()
                self._watch()
        return self._code

    # children

    def _start_due(self) -> None:
        now = self.clocks.monotonic()
        for child in self._children:
            if child.due is not None and child.due <= now and self._stopping is None:
                self._start(child)

    def _start(self, child: Child) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        supervisor = os.getpid()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            ours.close()
            self._become(child, theirs, supervisor)
        theirs.close()
        child.pid, child.pidfd, child.control = pid, os.pidfd_open(pid), ours
        child.since, child.began, child.due = self.clocks.now(), self.clocks.monotonic(), None
        child.alive = None
        child.ready = None if not self._said else ()
        self._selector.register(child.pidfd, selectors.EVENT_READ, lambda: self._died(child))
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._heard(child))
        for front in self._children[1:] if child is self._core else [child]:
            self._connect(front)

    def _become(self, child: Child, control: socket.socket, supervisor: int) -> None:
        """The child's whole life."""
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # the supervisor hears them for everybody
                signal.signal(number, signal.SIG_IGN)
            die_with(supervisor)
            self._selector.close()
            for end in self._mine:
                end.close()
            for other in self._children:
                if other.control is not None:
                    other.control.close()
                    os.close(other.pidfd)
            mine = {id(sock) for front, sock in self._listening if front == child.front}
            for front, sock in self._listening:
                if front != child.front and id(sock) not in mine:  # a Unix socket is several fronts'
                    sock.close()
            code = child.main(Control(control, self.manager.watchdog))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _connect(self, front: Child) -> None:
        """Give the core and a front their connections to each other."""
        core = self._core
        if core.control is None or front.control is None or front.front is None:
            return
        pairs = [*socket.socketpair(), *socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)]
        line, their_line, news, their_news = (sock.fileno() for sock in pairs)
        facts = {"pid": front.pid, "since": front.since, "restarts": front.restarts}
        whole = {"began": self._began, "since": core.since, "restarts": core.restarts}
        try:
            tell(core.control, {"do": "admit", "front": front.front, **facts, "core": whole}, [line, news, front.pidfd])
            tell(front.control, {"do": "connect"}, [their_line, their_news])
        except OSError:
            pass  # one of them is dying; its successor is connected anew
        for sock in pairs:
            sock.close()

    def _died(self, child: Child) -> None:
        _, status = os.waitpid(child.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._selector.unregister(child.pidfd)
        os.close(child.pidfd)
        assert child.control is not None
        if child.control in self._selector.get_map():
            self._selector.unregister(child.control)
        child.control.close()
        child.control = None
        if self._stopping is not None:
            return
        if not self._said:
            self._code = code if code > 0 else 1
            self._stop()
            return
        now = self.clocks.monotonic()
        child.quick = child.quick + 1 if now - child.began < CALM else 0
        wait = min(MOST, FIRST * 2 ** (child.quick - 2)) if child.quick > 1 else 0.0
        child.due = now + wait
        child.restarts += 1
        facts = {"process": child.name, "pid": child.pid, "code": code, "restarts": child.restarts, "seconds": wait}
        _LOG.error("a process died and is started again", extra={"facts": facts})

    def _heard(self, child: Child) -> None:
        assert child.control is not None
        word = hear(child.control)
        if word is None:
            self._selector.unregister(child.control)  # its death comes, too
            return
        child.alive = self.clocks.monotonic() if "alive" in word[0] else child.alive
        if child is self._core and self._said and "alive" not in word[0]:
            self.manager.reloaded()  # or started again while it was to reload
        child.ready = word[0].get("ready", child.ready)
        if not self._said and all(one.ready is not None for one in self._children):
            self._said = True
            self.ready(self._core.ready or ())

    # signals

    def _woken(self) -> None:
        self._wake.recv(4096)

    def _obey(self) -> None:
        signals, self._signals = self._signals, []
        for number in signals:
            if number == signal.SIGHUP:
                self.manager.reloading()
                self._tell({"do": "reload"}, [self._core])  # which sees to it that fronts do the same
            elif self._stopping is None:
                _LOG.info("stopping")
                self.manager.stopping()
                self._stop()
        if self._stopping is None:
            return
        fronts = [child for child in self._children[1:] if child.control is not None]
        late = self.clocks.monotonic() >= self._stopping
        if fronts and late:
            self._kill(fronts)
        if not fronts and self._core.control is not None:
            if not self._core_told:
                self._core_told = True
                self._stopping = self.clocks.monotonic() + DRAIN
                self._tell({"do": "stop"}, [self._core])
            elif late:
                self._kill([self._core])

    def _stop(self) -> None:
        """Nothing new is taken; fronts first, since what they have under way is the core's to answer."""
        self._stopping = self.clocks.monotonic() + DRAIN
        for _, sock in self._listening:
            sock.close()
        self._tell({"do": "stop"}, self._children[1:])

    def _tell(self, message: Message, children: Iterable[Child]) -> None:
        for child in children:
            if child.control is not None:
                try:
                    tell(child.control, message)
                except OSError:
                    continue

    def _kill(self, children: Iterable[Child]) -> None:
        for child in children:
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    def _over(self) -> bool:
        return self._stopping is not None and all(child.control is None for child in self._children)

    def _patience(self) -> float | None:
        """Seconds until something is to be done without anything having happened."""
        if self._stopping is not None:
            return max(0.05, min(0.5, self._stopping - self.clocks.monotonic()))
        due = [child.due for child in self._children if child.due is not None]
        if self.manager.watchdog is not None:
            due.append(self._watched + self.manager.watchdog / SIGNS)
        return max(0.0, min(due) - self.clocks.monotonic()) if due else None

    def _watch(self) -> None:
        """Give a sign of life, and end children who give none."""
        now, most = self.clocks.monotonic(), self.manager.watchdog
        if most is None or now < self._watched + most / SIGNS:
            return
        slept, self._watched = now - self._watched > most / 2, now
        self.manager.alive()
        for child in self._children:
            if child.alive is None or child.control is None:
                continue
            if slept:  # we did not run ourselves, so perhaps nobody did
                child.alive = now
            elif now - child.alive > most:
                facts = {"process": child.name, "pid": child.pid}
                _LOG.error("a process gives no sign of life and is ended", extra={"facts": facts})
                child.alive = None
                self._kill([child])
