"""At most so many calls under way to one origin; the others wait in the order they came."""

from __future__ import annotations

import asyncio

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
        self._free = asyncio.Semaphore(concurrency)
        self._waiting = 0
        self._clock = clock

    async def acquire(self, deadline: float) -> None:
        """
        Take a place.

        Raises:
            Failure: In the phase `queue`; nothing was sent.
        """
        if not self._free.locked():
            await self._free.acquire()
            return
        if self._waiting >= self.LONGEST_QUEUE:
            raise Failure(Phase.QUEUE, f"{self._waiting} calls wait already")
        self._waiting += 1
        late = False
        try:
            async with self._clock.timeout_at(deadline):
                await self._free.acquire()
        except TimeoutError:
            late = True
        finally:
            self._waiting -= 1
        if late:
            raise Failure(Phase.QUEUE, "the deadline passed before the call's turn came", timed_out=True)

    def release(self) -> None:
        """Give the place back."""
        self._free.release()
