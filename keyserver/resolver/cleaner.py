"""Cleaning: what is brief at once, small inputs in a thread, large ones in a process that can be bounded and killed."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from keyserver.model import Kind, Refused
from keyserver.resolver.worker import LENGTH, READY, Clean, Cleaned, guarded

SMALL = 64 << 10  # octets: up to here a thread does it; its share of the interpreter is not felt beside it
AT_ONCE = 0.001  # seconds: after so much of it in one turn of the loop, what is brief takes a thread, too
_MOST_REPLY = 256 << 20
_START = 30.0  # seconds until a new worker is ready
_CLOSED = Refused("not cleaned: the service is ending", fatal=True)
_BOOT = (
    "import sys, pickle; sys.path[:] = pickle.load(sys.stdin.buffer);"
    "from keyserver.resolver.worker import serve; serve(sys.stdin.buffer, sys.stdout.buffer)"
)

Brief: TypeAlias = Callable[[bytes, int], Cleaned | None]


class Cleaner:
    """Runs the cleaning functions of both kinds. The worker process starts with the first large input.

    functions: by kind; module-level functions (or partials of them), as the worker imports them by name.
    brief: by kind; functions that do the same within 2 ms or return None. A thread would cost more than what is left;
    `monotonic` measures it, in seconds.
    seconds: a large input that takes longer is given up, and its process killed.
    memory: octets of address space that the worker may use; above `resident` it is replaced after its task.
    """

    def __init__(
        self,
        functions: Mapping[Kind, Clean],
        *,
        monotonic: Callable[[], float],
        brief: Mapping[Kind, Brief] | None = None,
        small: int = SMALL,
        seconds: float = 10.0,
        memory: int = 192 << 20,
        resident: int = 80 << 20,
        threads: int = 2,
    ) -> None:
        self._functions = dict(functions)
        self._brief = dict(brief or {})
        self._monotonic = monotonic
        self._held = 0.0  # seconds of this turn of the loop
        self._small = small
        self._seconds = seconds
        self._setup = (self._functions, memory, resident)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="clean")
        self._worker: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()  # one large input at a time
        self._closed = False

    async def clean(self, kind: Kind, octets: bytes, now: int) -> Cleaned:
        """What became of every certificate in `octets`. Never raises for any octets; a fatal refusal for what broke
        or outlasted its process."""
        if self._closed:
            return [_CLOSED]
        loop = asyncio.get_running_loop()
        if (cleaned := self._at_once(loop, kind, octets, now)) is not None:
            return cleaned
        if len(octets) <= self._small:
            return await loop.run_in_executor(self._threads, guarded, self._functions[kind], octets, now)
        async with self._turn:
            if self._closed:
                return [_CLOSED]
            try:
                worker = await self._running()
                async with asyncio.timeout(self._seconds):
                    return await self._in_worker(worker, kind, octets, now)
            except TimeoutError:
                reason = f"took longer than {self._seconds:g} s to clean"
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                reason = f"its cleaning process ended: {type(error).__name__}"
            except BaseException:
                await self._kill()  # its reply must not become that of the next input
                raise
            await self._kill()
            return [Refused(reason, fatal=True)]

    def _at_once(self, loop: asyncio.AbstractEventLoop, kind: Kind, octets: bytes, now: int) -> Cleaned | None:
        """In the loop's thread, if that is short and the loop has not been held already."""
        brief = self._brief.get(kind)
        if brief is None or self._held >= AT_ONCE:
            return None
        if not self._held:
            loop.call_soon(self._turned)
        began = self._monotonic()
        try:
            return brief(octets, now)
        except Exception:  # a fault of ours: `guarded` says which
            return None
        finally:
            self._held += self._monotonic() - began

    def _turned(self) -> None:
        self._held = 0.0

    async def close(self) -> None:
        """End the worker and the threads; what is under way is given up."""
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._kill()

    async def _running(self) -> asyncio.subprocess.Process:
        """The worker; if there is none, a fresh interpreter that imports the cleaning functions and nothing else."""
        worker = self._worker
        if worker is not None and worker.returncode is None:
            return worker
        pipe = asyncio.subprocess.PIPE
        worker = self._worker = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _BOOT, stdin=pipe, stdout=pipe
        )
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write(pickle.dumps(sys.path) + pickle.dumps(self._setup))
        async with asyncio.timeout(_START):
            await worker.stdout.readexactly(len(READY))
        return worker

    async def _in_worker(self, worker: asyncio.subprocess.Process, kind: Kind, octets: bytes, now: int) -> Cleaned:
        assert worker.stdin is not None and worker.stdout is not None
        head = pickle.dumps((kind, now))
        worker.stdin.write(LENGTH.pack(len(head)) + head + LENGTH.pack(len(octets)))
        worker.stdin.write(octets)  # apart: joining megabytes would hold up the loop
        await worker.stdin.drain()
        (length,) = LENGTH.unpack(await worker.stdout.readexactly(LENGTH.size))
        if length > _MOST_REPLY:
            raise EOFError
        stays, cleaned = pickle.loads(await worker.stdout.readexactly(length))  # noqa: S301 - from our own process
        if not stays:
            await self._kill()
        return list(cleaned)

    async def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if worker.stdin is not None:
            worker.stdin.close()
        if worker.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
        await worker.wait()
