"""One message at a time in each conversation, in the order of the calls."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from weakref import ReferenceType, ref

from attrs import define, field

from chatbridge.bounds import expire
from chatbridge.clock import Clock
from chatbridge.errors import OverloadedTimeout, Phase, UsageError

__all__ = ["Lane", "Order"]


@define(eq=False)
class Lane:
    """The turn to speak in one conversation; given by `Order.take` to one at a time in an event loop."""

    conversation_id: str
    loop: asyncio.AbstractEventLoop
    lock: asyncio.Lock = field(factory=asyncio.Lock)
    users: int = 0
    # Who has it. Not the task itself, whose result may be the stream: nobody would hold that but the lane.
    task: ReferenceType[asyncio.Task[object]] | None = None


class Order:
    """The turns of a bridge's conversations; two handles on one conversation share its turn."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._waiting: set[asyncio.Timeout] = set()
        self._closed = False

    async def take(self, conversation_id: str, until: float) -> Lane:
        """
        Wait for the conversation's turn, and give it; what has it in an event loop that is closed does not.

        Raises:
            UsageError: This task has it already, and would wait for itself; or the turns are over.
            OverloadedTimeout: It did not come by *until*.
        """
        self._check_open()
        lane = self._lanes.get(conversation_id)
        if lane is None or lane.loop.is_closed():
            lane = self._lanes[conversation_id] = Lane(conversation_id, asyncio.get_running_loop())
        task = cast(asyncio.Task[object], asyncio.current_task())
        if lane.task is not None and lane.task() is task:
            raise UsageError(
                "this task has a message to the same conversation under way, and would wait for itself: "
                "finish or leave its stream first, and ask for a summary in another conversation"
            )
        lane.users += 1
        taken = False
        try:
            taken = await self._acquire(lane, until)
        finally:
            if not taken:
                self._leave(lane)
        if not taken:
            self._check_open()
            raise OverloadedTimeout(
                "earlier messages to the conversation took until the deadline",
                phase=Phase.QUEUE,
                conversation_id=conversation_id,
            )
        lane.task = ref(task)
        return lane

    async def _acquire(self, lane: Lane, until: float) -> bool:
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

    def give_back(self, lane: Lane, *, after: asyncio.Future[Any] | None = None) -> None:
        """
        Let the next one in, at once or once *after* is done.

        May be called in any thread where the event loop is closed; who waits there waits in vain.
        """
        lane.task = None
        if after is None or after.done():
            self._next(lane)
        else:
            after.add_done_callback(lambda _: self._next(lane))

    def _next(self, lane: Lane) -> None:
        if not lane.loop.is_closed():
            lane.lock.release()
        self._leave(lane)

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

    def _leave(self, lane: Lane) -> None:
        lane.users -= 1
        if not lane.users and self._lanes.get(lane.conversation_id) is lane:
            del self._lanes[lane.conversation_id]
