"""One message at a time in each conversation, in the order of the calls."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import ReferenceType, ref

from attrs import define, field

from chatbridge.bounds import expire
from chatbridge.clock import Clock
from chatbridge.errors import OverloadedTimeout, Phase, UsageError

__all__ = ["Order"]


@define(eq=False)
class _Lane:
    lock: asyncio.Lock = field(factory=asyncio.Lock)
    users: int = 0
    # Not the task itself, whose result may be the stream: nobody would hold that any more but the lane.
    streaming: ReferenceType[asyncio.Task[object]] | None = None


class Order:
    """The turns of a bridge's conversations; two handles on one conversation share its turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lanes: dict[str, _Lane] = {}
        self._waiting: set[asyncio.Timeout] = set()
        self._closed = False

    async def take(self, conversation_id: str, until: float, *, streaming: bool = False) -> None:
        """
        Wait for the conversation's turn.

        Raises:
            UsageError: This task holds it already with an open stream, and would wait for itself; or
                the turns are over.
            OverloadedTimeout: It did not come by *until*.
        """
        self._check_open()
        lane = self._lanes.setdefault(conversation_id, _Lane())
        task = asyncio.current_task()
        if lane.streaming is not None and lane.streaming() is task:
            raise UsageError(
                "this task is still reading a stream of the same conversation: "
                "finish or leave it before the next message"
            )
        lane.users += 1
        taken = False
        try:
            taken = await self._acquire(lane, until)
        finally:
            if not taken:
                self._leave(conversation_id, lane)
        if not taken:
            self._check_open()
            raise OverloadedTimeout(
                "earlier messages to the conversation took until the deadline",
                phase=Phase.QUEUE,
                conversation_id=conversation_id,
            )
        lane.streaming = ref(task) if streaming and task is not None else None

    async def _acquire(self, lane: _Lane, until: float) -> bool:
        lock = lane.lock
        if lane.users == 1:
            return await lock.acquire()
        timer = self._clock.timeout_at(until)
        self._waiting.add(timer)
        try:
            async with timer:
                await lock.acquire()
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(timer)
        return not self._closed

    def give_back(self, conversation_id: str, *, after: asyncio.Future[Any] | None = None) -> None:
        """Let the next one in, at once or once *after* is done."""
        lane = self._lanes[conversation_id]
        lane.streaming = None
        if after is None or after.done():
            self._next(conversation_id, lane)
        else:
            after.add_done_callback(lambda _: self._next(conversation_id, lane))

    def _next(self, conversation_id: str, lane: _Lane) -> None:
        lane.lock.release()
        self._leave(conversation_id, lane)

    def abandon(self, conversation_id: str) -> None:
        """
        Begin anew with a conversation whose turn somebody has in an event loop that is closed.

        May be called in any thread. Who waits already waits in vain.
        """
        self._lanes.pop(conversation_id, None)

    def is_held(self, conversation_id: str) -> bool:
        """Tell whether somebody has the conversation's turn, or waits for it."""
        return conversation_id in self._lanes

    def close(self) -> None:
        """Let nobody in any more; those who wait get UsageError at once."""
        self._closed = True
        expire(self._clock, self._waiting)

    def _check_open(self) -> None:
        if self._closed:
            raise UsageError("the bridge is closed")

    def _leave(self, conversation_id: str, lane: _Lane) -> None:
        lane.users -= 1
        if not lane.users:
            del self._lanes[conversation_id]
