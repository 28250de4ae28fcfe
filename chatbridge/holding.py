"""One sender at a time in each conversation, whatever task, bridge or process it is in."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from chatbridge.book import Book
from chatbridge.bounds import Bounds
from chatbridge.clock import Clock, Pauses
from chatbridge.errors import OverloadedTimeout, Phase, StoreError
from chatbridge.history.rows import Hold
from chatbridge.order import Order

__all__ = ["Holding"]


class Holding:
    """The conversations that one bridge holds, against all others that have the same store."""

    # Seconds after which it is tried again to hold what another holds; they double up to the longest.
    FIRST_PAUSE = 0.05
    LONGEST_PAUSE = 1.0

    def __init__(self, order: Order, book: Book, bounds: Bounds, clock: Clock) -> None:
        self._order = order
        self._book = book
        self._bounds = bounds
        self._clock = clock
        self._pauses = Pauses(clock)

    @asynccontextmanager
    async def alone(self, conversation_id: str, until: float) -> AsyncGenerator[None]:
        """
        Let nobody else send to the conversation, in whatever process, for the block.

        Raises:
            OverloadedTimeout: Others did until then.
            UsageError: This task has a message to it under way.
        """
        lane = await self._order.take(conversation_id, until)
        try:
            await self.hold(conversation_id, until)
            yield
        finally:
            try:
                await self.release(conversation_id)
            finally:
                self._order.give_back(lane)

    async def hold(self, conversation_id: str, until: float) -> None:
        """
        Hold the conversation, of which no other that has the store may then make use.

        Raises:
            OverloadedTimeout: Another one does until then.
        """
        pause = self.FIRST_PAUSE
        while not await self.try_to_hold(conversation_id):
            now = self._clock.now()
            if now >= until:
                raise OverloadedTimeout(
                    "another process has been sending to the conversation until the deadline",
                    phase=Phase.QUEUE,
                    conversation_id=conversation_id,
                )
            await self._pauses.wait(min(pause, until - now))
            self._bounds.check_open()
            pause = min(2 * pause, self.LONGEST_PAUSE)

    async def try_to_hold(self, conversation_id: str) -> bool:
        """Hold the conversation, unless another does; what others may have said there is not known then."""
        await self._book.catch_up(conversation_id)
        hold = await self._book.ledger.hold(conversation_id)
        if hold is not Hold.OURS:
            self._book.trails.forget(conversation_id)
        return hold is not Hold.BUSY

    async def release(self, conversation_id: str) -> None:
        """Let others hold the conversation."""
        with suppress(StoreError):  # Then it is free once the time is over for which it was held.
            await self._book.ledger.release(conversation_id)

    def close(self) -> None:
        """End all waits for others."""
        self._pauses.close()
