"""Waiting for a backend, within limits of time and no longer than the bridge is open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar, cast

from chatbridge.clock import Clock, deadline
from chatbridge.errors import (
    ChatbridgeError,
    DeliveryUnknown,
    DeliveryUnknownTimeout,
    Facts,
    Unavailable,
    UnavailableTimeout,
    UsageError,
)

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["Bounds", "expire", "is_cancelled"]

T = TypeVar("T")


def expire(clock: Clock, timers: Iterable[asyncio.Timeout]) -> None:
    """Let running *timers* fire now."""
    for timer in tuple(timers):
        if not timer.expired():
            clock.postpone(timer, clock.now())


def is_cancelled() -> bool:
    """Tell whether somebody cancelled the current task: not so where only what it waits for was cancelled."""
    return cast(asyncio.Task[object], asyncio.current_task()).cancelling() > 0


class Bounds:
    """
    Every wait of one bridge for its backend.

    A backend on the bridge's transport is *trusted*: the transport keeps to deadlines, watches
    streams and ends what is under way when it closes. Any other is watched here.

    Attributes:
        provider: The backend's name.
        timeout: Seconds that one call may take in all.
        patience: Seconds that a stream may be silent once it has begun.
        trusted: Whether the backend keeps to limits by itself.
        closed: Whether the bridge was closed.
    """

    # What a backend may take beyond its limit before it is given up, and to end when told to.
    GRACE = 0.2
    # What a backend, or one of its streams, may take to close.
    CLOSING = 1.0

    def __init__(
        self, clock: Clock, *, provider: str, timeout: float, patience: float, trusted: bool = False
    ) -> None:
        self.provider = provider
        self.timeout = timeout
        self.patience = patience
        self.trusted = trusted
        self.closed = False
        self._clock = clock
        self._timers: set[asyncio.Timeout] = set()
        self._quiet: asyncio.Event | None = None

    def check_open(self) -> None:
        """Raise UsageError once the bridge is closed."""
        if self.closed:
            raise UsageError("the bridge is closed")

    async def call(self, call: Awaitable[T], *, creates: bool = False, until: float | None = None) -> T:
        """
        Await *call*, whose endpoint calls share one deadline.

        Raises:
            DeliveryUnknown: Of a call that *creates*: it took too long, the backend broke it off, or the
                bridge was closed.
            Unavailable: The same of another call.
        """
        try:
            return await self.wait(call, self._clock.now() + self.timeout if until is None else until)
        except ChatbridgeError:
            raise
        except TimeoutError:
            broken = False
        except asyncio.CancelledError:
            if is_cancelled():
                raise
            broken = True
        raise self.gave_up(creates=creates, broken=broken)

    async def each(self, items: AsyncIterator[T], **facts: Unpack[Facts]) -> AsyncIterator[T]:
        """Yield *items*, each wait for one bounded as a call is; *facts* go to the errors."""
        try:
            while True:
                self.check_open()
                try:
                    item = await self.call(anext(items))
                except StopAsyncIteration:
                    return
                yield item
        except ChatbridgeError as error:
            raise error.because(**facts)
        finally:
            if isinstance(items, AsyncGenerator):
                await self.close(cast(AsyncGenerator[T, None], items).aclose())

    def gave_up(self, *, creates: bool, broken: bool = False) -> ChatbridgeError:
        """Make the error for a call that was not awaited to its end, or that the backend has *broken* off."""
        if self.closed or broken:
            message = f"{self.provider} cancelled the call by itself"
            if self.closed:
                message = f"the bridge was closed before {self.provider} answered"
            if creates:
                return DeliveryUnknown(message, kind="lost", provider=self.provider)
            return Unavailable(message, provider=self.provider)
        message = f"{self.provider} did not answer within {self.timeout:g} s"
        if creates:
            return DeliveryUnknownTimeout(message, kind="timeout", provider=self.provider)
        return UnavailableTimeout(message, provider=self.provider)

    async def wait(self, call: Awaitable[T], until: float, *, give_up: float | None = None) -> T:
        """
        Await *call*, whose endpoint calls share the deadline *until*.

        Raises:
            TimeoutError: It did not end by *give_up*, by default *until*, plus `GRACE`, or the bridge closed.
        """
        with deadline(until):
            if self.trusted:
                return await call
            timer = self._clock.timeout_at((until if give_up is None else give_up) + self.GRACE)
            self._timers.add(timer)
            try:
                async with timer:
                    return await call
            finally:
                self._timers.discard(timer)
                if self._quiet is not None and not self._timers:
                    self._quiet.set()

    async def close(self, call: Awaitable[object]) -> None:
        """Await *call*, which closes something, and give up on it after `CLOSING` and `GRACE`."""
        try:
            await self.wait(call, self._clock.now() + self.CLOSING)
        except TimeoutError:
            pass
        except asyncio.CancelledError:
            if is_cancelled():
                raise

    async def end(self) -> None:
        """Give what still waits a moment to end by itself, then end it."""
        self._quiet = asyncio.Event()
        for _ in range(2):
            if not self._timers:
                return
            with suppress(TimeoutError):
                async with self._clock.timeout_at(self._clock.now() + self.GRACE):
                    await self._quiet.wait()
            expire(self._clock, self._timers)
