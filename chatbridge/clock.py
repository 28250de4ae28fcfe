"""Time and chance, in one place so that tests can hold both still."""

from __future__ import annotations

import asyncio
import random
import time
from contextvars import ContextVar
from typing import Protocol

__all__ = ["Clock", "SystemClock", "current_deadline", "deadline"]


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
