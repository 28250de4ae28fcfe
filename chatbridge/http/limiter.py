"""At most so many calls under way to one origin; the others wait in the order they came."""

from __future__ import annotations

import asyncio
from collections import deque

from chatbridge.clock import Clock
from chatbridge.errors import Phase
from chatbridge.retry import Failure

__all__ = ["Limiter"]


class Limiter:
    """
    Lets *concurrency* calls through at once, and up to `LONGEST_QUEUE` wait.

    Waiting counts against a call's deadline.
    """

    LONGEST_QUEUE = 64

    def __init__(self, concurrency: int, clock: Clock) -> None:
        self._free = concurrency
        # Who waits, each for its future; who was given a place is gone from here, though it has not run.
        self._queue: deque[asyncio.Future[None]] = deque()
        self._timers = set[asyncio.Timeout]()
        self._clock = clock
        self._closed = False

    async def acquire(self, deadline: float) -> None:
        """
        Take a place.

        Raises:
            Failure: In the phase `queue`, or `local` when closed; nothing was sent.
        """
        self._check()
        if self._free:
            self._free -= 1
            return
        if len(self._queue) >= self.LONGEST_QUEUE:
            raise Failure(Phase.QUEUE, f"{len(self._queue)} calls wait already")
        if not await self._wait(deadline):
            self._check()
            raise Failure(Phase.QUEUE, "the deadline passed before the call's turn came", timed_out=True)

    async def _wait(self, deadline: float) -> bool:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        timer, taken = self._clock.timeout_at(deadline), False
        self._timers.add(timer)
        try:
            async with timer:
                await turn
                taken = True
        except TimeoutError:
            return False
        finally:
            self._timers.discard(timer)
            if not taken:
                self._leave(turn)
        return True

    def _leave(self, turn: asyncio.Future[None]) -> None:
        """Give up waiting, or the place that came too late."""
        if turn in self._queue:
            self._queue.remove(turn)
        elif not turn.cancelled():
            self.release()

    def _check(self) -> None:
        if self._closed:
            raise Failure(Phase.LOCAL, "the bridge is closed")

    def close(self) -> None:
        """Turn away all who wait, and who comes from now on."""
        self._closed = True
        for timer in self._timers:
            if not timer.expired():
                self._clock.postpone(timer, self._clock.now())

    def release(self) -> None:
        """Give the place back, to the one who has waited longest."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
