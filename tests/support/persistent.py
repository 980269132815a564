"""A client that asks on one connection for as long as that lasts, then on another."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Awaitable, Callable

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def keep_asking(
    port: Callable[[], int], over: asyncio.Event, seen: collections.Counter[str], talk: Talk, pause: float
) -> None:
    """Until it is over. talk: asks on one connection; seen: what ended connections is counted here, by a word; pause:
    seconds after a connection that was refused."""
    while not over.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port())
        except OSError:
            seen["refused"] += 1
            await asyncio.sleep(pause)
            continue
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            seen["reset"] += 1
        except TimeoutError:
            seen["no reply"] += 1
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
