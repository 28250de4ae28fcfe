"""A clock that moves only when a test moves it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakKeyDictionary

__all__ = ["ManualClock"]


class ManualClock:
    """
    Time for tests: it stands still until `advance`, and waiting costs none.

    Attributes:
        slept: The seconds of each `sleep`, in order. A sleep moves the clock on by itself.
    """

    def __init__(self, random: Callable[[], float] = lambda: 0.5, wall: float = 1_700_000_000.0) -> None:
        self.slept: list[float] = []
        self._now = 1000.0
        self._wall = wall
        self._random = random
        self._timeouts: WeakKeyDictionary[asyncio.Timeout, float] = WeakKeyDictionary()

    def now(self) -> float:
        """Seconds since some moment; 1000 at first."""
        return self._now

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._wall + self._now - 1000.0

    async def sleep(self, seconds: float) -> None:
        """Record the wait and be done with it at once, the clock moved on; timeouts that come first fire."""
        self.slept.append(seconds)
        until = self._now + seconds
        while due := [when for when in self._timeouts.values() if self._now < when < until]:
            self.advance(min(due) - self._now)
            await asyncio.sleep(0)
        self.advance(max(0.0, until - self._now))
        await asyncio.sleep(0)

    def timeout_at(self, when: float) -> asyncio.Timeout:
        """Make a timeout that fires when the clock is moved to *when* or beyond."""
        timeout = asyncio.timeout(0 if when <= self._now else None)
        self._timeouts[timeout] = when
        return timeout

    def postpone(self, timeout: asyncio.Timeout, when: float) -> None:
        """Move a running timeout."""
        self._timeouts[timeout] = when
        timeout.reschedule(asyncio.get_running_loop().time() if when <= self._now else None)

    def set_wall(self, seconds: float) -> None:
        """Let it be *seconds* since 1970 now."""
        self._wall = seconds - self._now + 1000.0

    def random(self) -> float:
        """Draw what the test chose."""
        return self._random()

    def advance(self, seconds: float) -> None:
        """Move on, and fire the timeouts that are due."""
        self._now += seconds
        for timeout, when in list(self._timeouts.items()):
            if when <= self._now:
                self._fire(timeout)

    def _fire(self, timeout: asyncio.Timeout) -> None:
        with suppress(RuntimeError, AssertionError):  # It is over already, or has not begun.
            timeout.reschedule(asyncio.get_running_loop().time())
            del self._timeouts[timeout]
