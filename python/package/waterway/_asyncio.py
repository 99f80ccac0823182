"""How an event loop waits: one descriptor for each loop, which is readable when an operation can go on."""

import asyncio
import itertools
import os
import weakref
from typing import Any, Callable, Dict

from ._waterway import Bell, Operation

_numbers = itertools.count()


class _Waiting:
    """The operations that one event loop waits for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.process = os.getpid()
        self.bell = Bell()
        self.futures: Dict[int, "asyncio.Future[None]"] = {}
        loop.add_reader(self.bell.fileno(), self._rung)

    def _rung(self) -> None:
        for number in self.bell.take():
            future = self.futures.pop(number, None)
            if future is not None and not future.done():
                future.set_result(None)


_loops: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Waiting]" = weakref.WeakKeyDictionary()


async def drive(begin: Callable[..., Operation], *arguments: Any) -> Any:
    """Begins an operation and waits for it. If the task is cancelled, nothing has happened."""
    loop = asyncio.get_running_loop()
    waiting = _loops.get(loop)
    if waiting is None or waiting.process != os.getpid():
        waiting = _loops[loop] = _Waiting(loop)
    number = next(_numbers)
    operation = begin(*arguments, waiting.bell, number)
    try:
        while (outcome := operation.poll()) is None:
            future = waiting.futures[number] = loop.create_future()
            await future
        return outcome[0]
    finally:
        waiting.futures.pop(number, None)
        operation.cancel()


async def drive_next(begin: Callable[..., Operation]) -> Any:
    """The same for the next message of an iterator."""
    message = await drive(begin)
    if message is None:
        raise StopAsyncIteration
    return message
