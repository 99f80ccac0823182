from os import PathLike
from types import TracebackType
from typing import Any, AsyncIterator, Coroutine, Generic, Iterator, Optional, Type, TypeVar, Union
from typing_extensions import Buffer

T = TypeVar("T")

class WaterwayError(Exception):
    """The root of what Waterway raises, besides `queue.Full`, `queue.Empty`, `TimeoutError`, `MemoryError` and `ValueError`."""

class OpenError(WaterwayError):
    """A segment or a channel could not be opened. The text says why, and what to do."""

class Mismatch(OpenError):
    """A channel is there, and has other options than those asked for. The text names both."""

class Closed(WaterwayError):
    """The channel is closed: its other ends have gone, or this end was closed by its owner."""

class Forked(WaterwayError):
    """A handle was inherited by a forked child. Open the segment again there."""

class Damaged(WaterwayError):
    """A message is none that a `Queue` has put there."""

class Message:
    """A message of a channel: read-only bytes in shared memory, for `memoryview(message)` and whatever takes a buffer.

    The message stays while it, or a view of it, is there. Then it is acknowledged and its memory is free; or before, by `ack`.
    """

    def ack(self) -> None:
        """Acknowledges the message and frees its memory.

        Raises `BufferError` while there are views, and `ValueError` if it has been given back already.
        """

    def nack(self) -> None:
        """Gives the message back to the channel, to be received again, if the channel delivers at least once. Raises like `ack`."""

    @property
    def sequence(self) -> int:
        """The number of the message in its channel."""

    @property
    def delivery_count(self) -> int:
        """How often it was delivered; 1 the first time."""

    def __len__(self) -> int: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Sender:
    """The sending end of a channel of bytes. It leaves the channel by `close`, at the end of a `with`, or when nobody has it."""

    def send(self, data: Buffer) -> Coroutine[Any, Any, None]:
        """Sends under asyncio; waits for room in the channel and for memory. If the task is cancelled, nothing was sent.

        Raises `Closed` if there is no receiver any more, `ValueError` if the data is larger than the segment can ever hold.
        """

    def blocking_send(self, data: Buffer, timeout: Optional[float] = None) -> None:
        """Sends, and blocks the thread meanwhile; other threads run, and Ctrl-C ends it.

        Raises like `send`; `TimeoutError` after `timeout` seconds, with nothing sent.
        """

    def try_send(self, data: Buffer) -> None:
        """Sends if that is possible now. Raises `queue.Full`; `MemoryError` if there is no memory now; otherwise like `send`."""

    def is_closed(self) -> bool:
        """Whether there are no receivers any more."""

    def __len__(self) -> int:
        """How many messages wait."""

    @property
    def capacity(self) -> int:
        """How many can wait."""

    def close(self) -> None: ...
    def __enter__(self) -> Sender: ...
    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType], /
    ) -> None: ...

class Receiver:
    """The receiving end of a channel of bytes. Iterators, of both kinds, end when the last sender has gone and nothing waits."""

    def recv(self) -> Coroutine[Any, Any, Optional[Message]]:
        """Receives under asyncio. `None` if the last sender has gone and nothing waits. If the task is cancelled, nothing was taken."""

    def blocking_recv(self, timeout: Optional[float] = None) -> Optional[Message]:
        """Receives, and blocks the thread meanwhile; other threads run, and Ctrl-C ends it.

        `None` like `recv`. Raises `TimeoutError` after `timeout` seconds, with nothing taken.
        """

    def try_recv(self) -> Message:
        """Receives what waits. Raises `queue.Empty` if nothing does, `Closed` if nothing ever will."""

    def is_closed(self) -> bool:
        """Whether nothing is received any more but what waits."""

    def __len__(self) -> int:
        """How many messages wait."""

    @property
    def capacity(self) -> int:
        """How many can wait."""

    def close(self) -> None: ...
    def __iter__(self) -> Iterator[Message]: ...
    def __next__(self) -> Message: ...
    def __aiter__(self) -> AsyncIterator[Message]: ...
    def __anext__(self) -> Coroutine[Any, Any, Message]: ...
    def __enter__(self) -> Receiver: ...
    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType], /
    ) -> None: ...

class Segment:
    """A region of memory that processes share, by name. It is made if it is not there, and goes with the last who has it open."""

    def __new__(
        cls,
        name: str,
        *,
        size: Optional[int] = None,
        max_size: Optional[int] = None,
        dir: Union[str, PathLike[str], None] = None,
    ) -> Segment:
        """Opens or makes a segment. `size` bytes are taken at once, up to `max_size` when they are needed.

        Raises `OpenError`, and `ValueError` for an impossible name or size.
        """

    def sender(
        self,
        channel: str,
        *,
        capacity: Optional[int] = None,
        at_least_once: bool = False,
        max_deliveries: int = 16,
        persistent: bool = False,
    ) -> Sender:
        """A sender of a channel of bytes, which is made if it is not there. Raises `Mismatch` if it has other options."""

    def receiver(
        self,
        channel: str,
        *,
        capacity: Optional[int] = None,
        at_least_once: bool = False,
        max_deliveries: int = 16,
        persistent: bool = False,
    ) -> Receiver:
        """A receiver, like `sender`."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> Optional[PathLike[str]]: ...
    @property
    def held_bytes(self) -> int:
        """Bytes that messages and channels hold now."""

    def check(self) -> list[str]:
        """Looks whether everything is in order; says what is not. Nothing else may be at work in the segment."""

    def close(self) -> None:
        """Leaves the segment. Ends and messages that are left keep it."""

    def __enter__(self) -> Segment: ...
    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType], /
    ) -> None: ...
    @staticmethod
    def remove(name: str, *, dir: Union[str, PathLike[str], None] = None) -> None:
        """Removes a segment that nobody uses, or the name of one that somebody does."""

    @staticmethod
    def sweep(*, dir: Union[str, PathLike[str], None] = None) -> list[str]:
        """Removes what processes have left behind that died before they could; the names."""

class Queue(Generic[T]):
    """A queue between processes, as `multiprocessing.Queue`, by name.

    Whoever makes or unpickles a queue of the same name, in whatever process, has the same queue; in a forked child it opens itself
    again. It lasts as long as any process has its segment open.

    Arrays, and other buffers of pickle protocol 5, come out as read-only views into shared memory, whose message is kept until the
    last of them has gone. With `copy=True` they are copies that can be written to.

    With `at_least_once=True` an object that was got comes back, for somebody else, unless `task_done` was called for it: if the worker
    is killed, or closes the queue.
    """

    def __new__(
        cls,
        name: str,
        maxsize: int = 256,
        *,
        copy: bool = False,
        at_least_once: bool = False,
        max_deliveries: int = 16,
        segment: Union[str, Segment, None] = None,
    ) -> Queue[T]:
        """Opens or makes a queue. A `maxsize` of 0 or less means 65,536.

        Raises `Mismatch` if the queue is there with another `maxsize`, `at_least_once` or `max_deliveries`; `OpenError`.
        """

    def put(self, obj: T, block: bool = True, timeout: Optional[float] = None) -> None:
        """Puts an object. It is pickled here and now, so what cannot be pickled raises here.

        Raises `queue.Full` if there is no room, or no memory, in time; `ValueError` if the object is larger than the segment can ever
        hold, or the queue was closed.
        """

    def put_nowait(self, obj: T) -> None: ...
    def get(self, block: bool = True, timeout: Optional[float] = None) -> T:
        """Gets an object. Raises `queue.Empty` if there is none in time, `ValueError` if the queue was closed."""

    def get_nowait(self) -> T: ...
    def task_done(self) -> None:
        """Of a queue that delivers at least once: the oldest object that this thread has got here, and that is not done, is done.

        Raises `ValueError` if there is none.
        """

    def qsize(self) -> int: ...
    def empty(self) -> bool: ...
    def full(self) -> bool: ...
    def close(self) -> None:
        """This process puts and gets no more here. What it has got, and not done, comes back."""

    def join_thread(self) -> None:
        """Does nothing: what was put is in the queue."""

    def cancel_join_thread(self) -> None:
        """Does nothing: there is no thread."""

    @property
    def name(self) -> str: ...
    @property
    def maxsize(self) -> int: ...

class Bell:
    def __new__(cls) -> Bell: ...
    def fileno(self) -> int: ...
    def take(self) -> list[int]: ...

class Operation:
    def poll(self) -> Optional[tuple[Any]]: ...
    def cancel(self) -> None: ...
