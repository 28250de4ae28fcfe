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
        self._waiting = set[asyncio.Timeout]()
        self._clock = clock
        self._closed = False

    async def acquire(self, deadline: float) -> None:
        """
        Take a place.

        Raises:
            Failure: In the phase `queue`, or `local` when closed; nothing was sent.
        """
        self._check()
        if not self._free.locked():
            await self._free.acquire()
            return
        if len(self._waiting) >= self.LONGEST_QUEUE:
            raise Failure(Phase.QUEUE, f"{len(self._waiting)} calls wait already")
        timer = self._clock.timeout_at(deadline)
        self._waiting.add(timer)
        late = False
        try:
            async with timer:
                await self._free.acquire()
        except TimeoutError:
            late = True
        finally:
            self._waiting.discard(timer)
        if late:
            self._check()
            raise Failure(Phase.QUEUE, "the deadline passed before the call's turn came", timed_out=True)

    def _check(self) -> None:
        if self._closed:
            raise Failure(Phase.LOCAL, "the bridge is closed")

    def close(self) -> None:
        """Turn away all who wait, and who comes from now on."""
        self._closed = True
        for timer in self._waiting:
            if not timer.expired():
                self._clock.postpone(timer, self._clock.now())

    def release(self) -> None:
        """Give the place back."""
        self._free.release()
