"""What is here of an answer that is still coming, in a store that outlasts the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from chatbridge.clock import Clock
from chatbridge.domain import PartAdded, StreamEvent, Text, TextDelta
from chatbridge.events import shown_text

__all__ = ["Progress"]


class Progress:
    """
    Keeps the text of one stream as it grows, beside who reads it.

    That the answer has begun is kept at once, and then no more of its text is missing than `BYTES`, nor for
    longer than `SECONDS`, but for the time that the store takes. One that fails is tried again ever later.

    Args:
        clock: Measures time.
        seen: The events that were handed out; `add` is told of each.
        save: Begins to keep the text, in a task that says whether it could.
    """

    BYTES = 4096
    SECONDS = 1.0
    LONGEST_PAUSE = 30.0

    def __init__(
        self, clock: Clock, seen: Sequence[StreamEvent], save: Callable[[str], asyncio.Task[bool]]
    ) -> None:
        self._clock = clock
        self._seen = seen
        self._save = save
        self._kept: str | None = None
        self._unkept = self.BYTES
        self._waits = False
        self._due = 0.0
        # Seconds until it is tried again, while it cannot be kept.
        self._pause = 0.0
        self._full = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    def add(self, event: StreamEvent) -> None:
        """Take in that *event* was handed out."""
        if self._ended:
            return
        if isinstance(event, TextDelta):
            self._unkept += len(event.text.encode(errors="replace"))
        elif isinstance(event, PartAdded) and isinstance(event.part, Text):
            self._unkept += len(event.part.text.encode(errors="replace"))
        if not self._waits:
            self._waits, self._due = True, self._clock.now() + self.SECONDS
        if self._unkept >= self.BYTES and not self._pause:
            self._full.set()
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    def end(self) -> None:
        """Keep no more; what is being written of it is."""
        self._ended = True
        if self._task is not None:
            with suppress(RuntimeError):  # Its loop is closed.
                self._task.cancel()

    def flush(self) -> None:
        """Begin to keep what is here and is not kept yet, and end."""
        if not self._ended and self._seen:
            text = shown_text(self._seen)
            if text != self._kept:
                self._save(text)
        self.end()

    async def _run(self) -> None:
        while self._waits:
            await self._wait()
            self._waits, self._unkept = False, 0
            self._full.clear()
            text = shown_text(self._seen)
            if text != self._kept:
                await self._keep(text)
        self._task = None

    async def _wait(self) -> None:
        if not self._full.is_set():
            with suppress(TimeoutError):
                async with self._clock.timeout_at(self._due):
                    await self._full.wait()

    async def _keep(self, text: str) -> None:
        saving = self._save(text)
        await asyncio.wait([saving])
        if saving.result():
            self._kept, self._pause = text, 0.0
        else:
            self._pause = min(max(2 * self._pause, self.SECONDS), self.LONGEST_PAUSE)
            self._waits, self._due = True, self._clock.now() + self._pause
            self._full.clear()
