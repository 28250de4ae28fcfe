"""What is written down of each conversation, beside those who ask for it: a store may be slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from chatbridge.clock import Clock
from chatbridge.order import Lane, Order

__all__ = ["Writing"]

T = TypeVar("T")


class Calls:
    """The calls under way, each a `with` block, in which something may be found out that is to be written."""

    def __init__(self) -> None:
        self._count = 0
        self._none_left: asyncio.Event | None = None

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count and self._none_left is not None:
            self._none_left.set()

    async def over(self) -> None:
        """Wait until there is none."""
        while self._count:
            self._none_left = asyncio.Event()
            await self._none_left.wait()


class Writing:
    """
    The writing of one bridge: of one conversation one thing after the other, each in a task of its own.

    Who asked for it may leave; the conversation's turn is given back when all of it is written. A store in
    memory is never waited for, and nothing of this is done.

    Args:
        clock: Measures time.
        order: Whose turn it is in each conversation.
        durable: Whether the store outlasts the process.

    Attributes:
        calls: Those that `end` waits for.
    """

    # Seconds beyond a deadline in which a store may answer still.
    GRACE = 0.2
    # Seconds for which who is cancelled waits for what it has begun.
    LEAVING = 0.5
    # Seconds in which everything is to be written at the end.
    CLOSING = 5.0

    def __init__(self, clock: Clock, order: Order, *, durable: bool) -> None:
        self._clock = clock
        self._order = order
        self._durable = durable
        self._last: dict[str, asyncio.Task[Any]] = {}
        self.calls = Calls()

    def is_busy(self, conversation_id: str) -> bool:
        """Tell whether something of the conversation is being written."""
        task = self._last.get(conversation_id)
        return task is not None and not task.get_loop().is_closed()

    def begin(self, conversation_id: str, work: Callable[[], Awaitable[T]]) -> asyncio.Task[T]:
        """Do *work* after all that was begun before."""
        task = asyncio.ensure_future(_after(self._under_way(conversation_id), work))
        self._last[conversation_id] = task
        task.add_done_callback(partial(self._done, conversation_id))
        return task

    def _under_way(self, conversation_id: str) -> asyncio.Task[Any] | None:
        """Give what is being written last; in an event loop that is closed nothing is."""
        task = self._last.get(conversation_id)
        return None if task is None or task.get_loop().is_closed() else task

    def _done(self, conversation_id: str, task: asyncio.Task[Any]) -> None:
        if self._last.get(conversation_id) is task:
            del self._last[conversation_id]
        if not task.cancelled():
            task.exception()  # Perhaps nobody is left to be told.

    async def wait(
        self,
        conversation_id: str,
        work: Callable[[], Awaitable[T]],
        until: float,
        *,
        stop: bool = False,
        undo: Callable[[T], Awaitable[object]] | None = None,
    ) -> T:
        """
        Do *work* and give what it gives; it goes on where its caller is cancelled.

        Args:
            conversation_id: Of what.
            work: What is done.
            until: The deadline.
            stop: Whether it is cancelled as well when its caller leaves.
            undo: Is then done with what it gives all the same.

        Raises:
            TimeoutError: It was not done until then, and `GRACE`.
        """
        if not self._durable:
            return await work()
        task = self.begin(conversation_id, work)
        try:
            async with self._clock.timeout_at(max(until, self._clock.now()) + self.GRACE):
                await asyncio.wait([task])
        except BaseException as error:
            if stop:
                task.cancel()
            if undo is not None:
                self.begin(conversation_id, partial(_undo, task, undo))
            if isinstance(error, asyncio.CancelledError):
                await self._linger(conversation_id)
            raise
        return task.result()

    async def leave(self, conversation_id: str, work: Callable[[], Awaitable[object]]) -> None:
        """Do *work*, and wait for it no longer than `LEAVING`."""
        if self._durable:
            self.begin(conversation_id, work)
            await self._linger(conversation_id)
        else:
            await work()

    async def _linger(self, conversation_id: str) -> None:
        task = self._under_way(conversation_id)
        if task is not None:
            with suppress(TimeoutError):
                async with self._clock.timeout_at(self._clock.now() + self.LEAVING):
                    await asyncio.wait([task])

    def give_back(self, lane: Lane) -> None:
        """Let the next message to the conversation go, once all of the one before is written."""
        self._order.give_back(lane, after=self._under_way(lane.conversation_id))

    async def end(self) -> None:
        """Wait until everything is written, but no longer than `CLOSING`."""
        with suppress(TimeoutError):
            async with self._clock.timeout_at(self._clock.now() + self.CLOSING):
                await self.calls.over()
                while tasks := [task for task in map(self._under_way, self._last) if task is not None]:
                    await asyncio.wait(tasks)


async def _after(before: asyncio.Task[Any] | None, work: Callable[[], Awaitable[T]]) -> T:
    if before is not None:
        await asyncio.wait([before])
    return await work()


async def _undo(task: asyncio.Task[T], undo: Callable[[T], Awaitable[object]]) -> None:
    if not task.cancelled() and task.exception() is None:
        await undo(task.result())
