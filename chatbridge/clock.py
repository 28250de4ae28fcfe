"""Time and chance, in one place so that tests can hold both still."""

from __future__ import annotations

import asyncio
import random
import time
from contextvars import ContextVar
from typing import Protocol

__all__ = ["Clock", "Pauses", "SystemClock", "current_deadline", "deadline"]


class Clock(Protocol):
    """
    What measures time, waits and draws lots.

    `chatbridge.testing.clock.ManualClock` is one that stands still.
    """

    def now(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def wall(self) -> float:
        """Seconds since 1970, for dates that servers send."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    def timeout_at(self, when: float) -> asyncio.Timeout:
        """Raise TimeoutError in the block at *when* by `now`; `postpone` moves the moment."""
        ...

    def postpone(self, timeout: asyncio.Timeout, when: float) -> None:
        """Move a running timeout to *when* by `now`."""
        ...

    def random(self) -> float:
        """Draw a number from 0 up to 1."""
        ...


class SystemClock:
    """The event loop's clock."""

    def now(self) -> float:
        """Seconds by the running loop's clock."""
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        """Wait by the running loop's clock."""
        await asyncio.sleep(seconds)

    def timeout_at(self, when: float) -> asyncio.Timeout:
        """Raise TimeoutError in the block at *when*."""
        return asyncio.timeout_at(when)

    def postpone(self, timeout: asyncio.Timeout, when: float) -> None:
        """Move a running timeout."""
        timeout.reschedule(when)

    def random(self) -> float:
        """Draw from Python's generator; nothing here needs secrecy."""
        return random.random()  # noqa: S311 - jitter


class Pauses:
    """Waits that end at once when what they belong to is closed."""

    # A clock that is late is not the pause's to notice.
    SLACK = 60.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: set[asyncio.Timeout] = set()

    async def wait(self, seconds: float) -> None:
        """Wait, or until `close`."""
        timer = self._clock.timeout_at(self._clock.now() + seconds + self.SLACK)
        self._timers.add(timer)
        try:
            async with timer:
                await self._clock.sleep(seconds)
        except TimeoutError:
            pass  # Closed.
        finally:
            self._timers.discard(timer)

    def close(self) -> None:
        """End all waits."""
        for timer in self._timers:
            if not timer.expired():
                self._clock.postpone(timer, self._clock.now())


_deadline: ContextVar[float | None] = ContextVar("chatbridge_deadline", default=None)


def current_deadline() -> float | None:
    """When the call in progress must be over, by its bridge's clock; None outside of one."""
    return _deadline.get()


class deadline:  # noqa: N801 - used like a function
    """Let every endpoint call in the block share one deadline, *when* by the bridge's clock."""

    # A class, as `contextlib.contextmanager` would cost as much as a streamed chunk.
    __slots__ = ("_token", "_when")

    def __init__(self, when: float) -> None:
        self._when = when

    def __enter__(self) -> None:
        self._token = _deadline.set(self._when)

    def __exit__(self, *_: object) -> None:
        _deadline.reset(self._token)
