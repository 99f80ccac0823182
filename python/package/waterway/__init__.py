"""Queues and channels between processes, through shared memory.

`Queue` is `multiprocessing.Queue`, by name: what is put in one process is got in another, NumPy arrays without a copy, and a
worker that is killed holds up nobody. `Segment` gives channels of bytes, for threads and for asyncio.
"""

from queue import Empty, Full
from typing import Any, Optional, Tuple

from ._waterway import (
    Closed,
    Damaged,
    Forked,
    Message,
    Mismatch,
    OpenError,
    Queue,
    Receiver,
    Segment,
    Sender,
    WaterwayError,
)

__all__ = [
    "Closed",
    "Damaged",
    "Empty",
    "Forked",
    "Full",
    "Message",
    "Mismatch",
    "OpenError",
    "Queue",
    "Receiver",
    "Segment",
    "Sender",
    "WaterwayError",
]


def _remake_segment(name: str, size: Optional[int], max_size: Optional[int], dir: Any) -> Segment:
    return Segment(name, size=size, max_size=max_size, dir=dir)


def _remake_queue(
    name: str, maxsize: int, copy: bool, max_deliveries: Optional[int], place: Tuple[str, Optional[int], Optional[int], Any]
) -> Queue:
    more = {} if max_deliveries is None else {"at_least_once": True, "max_deliveries": max_deliveries}
    return Queue(name, maxsize, copy=copy, segment=place, **more)
