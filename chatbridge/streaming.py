"""An answer as the application reads it: event by event, or as text."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self, cast

from attrs import evolve

from chatbridge.backend import ChatBackend, Feature, Support
from chatbridge.bounds import is_cancelled
from chatbridge.clock import deadline
from chatbridge.delivery import Delivery, delivering
from chatbridge.domain import (
    Finished,
    Message,
    PartAdded,
    Reply,
    Reset,
    Role,
    SendOptions,
    Started,
    StreamEvent,
    Text,
)
from chatbridge.errors import AnswerLost, ChatbridgeError, StreamCut, StreamCutTimeout, UsageError
from chatbridge.events import GAP, paragraph, shown_text, text_of
from chatbridge.order import Lane
from chatbridge.progress import Progress
from chatbridge.sending import Outgoing
from chatbridge.turns import Turn

if TYPE_CHECKING:
    from chatbridge.bridge import Bridge

__all__ = ["ReplyStream"]


class ReplyStream:
    """
    One streamed answer, as an asynchronous context manager.

    Entering it sends the message and waits for the first event; leaving it, at the end or
    early, closes the connection and lets the next message to the conversation go; a task that is still
    reading gets `StreamCut`. Iterating gives the events, of which the last is `Finished`; `text` gives the
    text alone.
    """

    def __init__(
        self, bridge: Bridge, conversation_id: str, outgoing: Outgoing, *, resend: bool = False
    ) -> None:
        self._bridge = bridge
        self._conversation_id = conversation_id
        self._outgoing = outgoing
        self._resend = resend
        self._turn: Turn | None = None
        self._delivery = Delivery()
        self._source: AsyncGenerator[StreamEvent, None] | None = None
        self._first: StreamEvent | None = None
        self._seen: list[StreamEvent] = []
        self._reply: Reply | None = None
        self._entered = False
        # The conversation's turn to speak, while this stream has it.
        self._lane: Lane | None = None
        self._reader: asyncio.Task[object] | None = None
        # There once the stream is left while a task reads it; set when that task has closed it.
        self._let_go: asyncio.Event | None = None
        self._begun = False
        # Keeps what is here of the answer, where the store outlasts the process.
        self._progress: Progress | None = None
        # Seconds of waiting that are left; what the reader takes between two events is not counted.
        self._budget = 0.0

    async def __aenter__(self) -> Self:
        if self._entered:
            raise UsageError("a stream is entered once: each is one message")
        with self._bridge.deliveries.writing.calls:
            return await self._enter()

    async def _enter(self) -> Self:
        self._entered = True
        clock = self._bridge.clock
        until = clock.now() + self._bridge.options.timeout
        try:
            self._lane = await self._bridge.order.take(self._conversation_id, until)
            self._turn = await self._bridge.deliveries.begin(
                self._conversation_id, self._outgoing.message, until, resend=self._resend
            )
            self._delivery = Delivery(self._turn.id)
            self._source = self._open(self._turn.message)
            self._progress = self._bridge.deliveries.follow(self._turn, self._seen)
        except ChatbridgeError as error:
            failed = error
        except BaseException:
            await self._close()
            raise
        else:
            self._budget = until - clock.now()
            self._first = await self._next()
            return self
        raise await self._over(failed)

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._interrupt()
        finally:
            await self._close()

    def __aiter__(self) -> Self:
        self._check_entered()
        return self

    async def __anext__(self) -> StreamEvent:
        self._check_entered()
        with self._bridge.deliveries.writing.calls:
            event, self._first = self._first, None
            if event is None:
                if self._source is None:
                    raise StopAsyncIteration
                event = await self._next()
            if isinstance(event, Finished):
                event = await self._end(event)
            self._seen.append(event)
            if self._progress is not None and self._turn is not None:
                self._progress.add(event)
            return event

    async def _end(self, event: Finished) -> Finished:
        """Write the answer down."""
        self._reply = self._finished(event.reply)
        turn = self._last_word()
        try:
            if turn is not None:
                until = self._bridge.clock.now() + self._budget
                self._reply = await self._bridge.deliveries.delivered(turn, self._reply, until)
        finally:
            await self._close()
        return Finished(self._reply)

    def _last_word(self) -> Turn | None:
        """Give the turn, if there is to be a last word on it, which nothing is to follow."""
        turn, self._turn = self._turn, None
        if self._progress is not None:
            self._progress.end()
        return turn

    async def text(self) -> AsyncIterator[str]:
        """
        Give the text as it arrives.

        What was given cannot be taken back: after a `Reset` nothing more comes, and `reply` has the
        final text and a warning.
        """
        begun: set[int] = set()
        taken_back = False
        async for event in self:
            taken_back = taken_back or isinstance(event, Reset)
            text = "" if taken_back else text_of(event, begun)
            if text:
                yield text

    @property
    def reply(self) -> Reply:
        """
        The whole answer, once the stream has been read to its end.

        Raises:
            UsageError: It has not.
        """
        if self._reply is None:
            raise UsageError("the stream has not been read to its end, so there is no reply yet")
        return self._reply

    @property
    def partial(self) -> str:
        """The text that was handed out so far."""
        return shown_text(self._seen)

    def _check_entered(self) -> None:
        if not self._entered:
            raise UsageError("a stream is used with 'async with', which sends the message")

    def _open(self, message: Message) -> AsyncGenerator[StreamEvent, None]:
        backend = self._bridge.backend
        native = self._bridge.profile.support(Feature.STREAM) is not Support.EMULATED
        open_stream = backend.stream if native else partial(_whole, backend)
        return open_stream(self._conversation_id, message, self._outgoing.options)

    async def _next(self) -> StreamEvent:
        """Wait for the next event; where none comes, close the stream and say why."""
        failed: ChatbridgeError
        if self._reader is not None or self._source is None or self._reply is not None:
            raise self._explained(UsageError("a stream is read by one task at a time"))
        try:
            if self._bridge.bounds.closed:
                raise self._gave_up()
            event = await self._wait(self._source)
        except ChatbridgeError as error:
            failed = error
        except StopAsyncIteration:
            failed = StreamCut("the backend ended its stream without a reply", kind="cut")
        except TimeoutError:
            failed = self._gave_up()
        except BaseException:
            await self._close()
            raise
        else:
            self._begun = True
            return event
        if self._begun or self._turn is None:
            raise await self._over(failed)
        return await self._recover(self._turn, failed)

    async def _recover(self, turn: Turn, failed: ChatbridgeError) -> StreamEvent:
        """Find out what became of a message without an answer, and go on with the answer if it is there."""
        until = self._bridge.clock.now() + self._budget
        try:
            await self._close_source()
            self._last_word()
            reply = await self._bridge.deliveries.recover(
                turn, self._explained(failed), self._delivery, until
            )
        except ChatbridgeError as error:
            failed = error
        except BaseException:
            await self._close()
            raise
        else:
            self._source = _replayed(reply)
            return await self._next()
        raise await self._over(failed)

    async def _over(self, failed: ChatbridgeError) -> ChatbridgeError:
        """Close the stream, and give the error that says why."""
        failed = self._explained(failed)
        turn = self._last_word()
        try:
            if turn is not None:
                until = self._bridge.clock.now() + self._budget
                failed = await self._bridge.deliveries.failed(
                    turn, failed, self._delivery, until, self._shown
                )
                self._bridge.deliveries.warn_of(failed)
        finally:
            await self._close()
        return failed

    async def _wait(self, source: AsyncGenerator[StreamEvent, None]) -> StreamEvent:
        """Wait for the next event, until another task leaves the stream."""
        clock, bounds = self._bridge.clock, self._bridge.bounds
        started = clock.now()
        until = started + self._budget
        task = cast(asyncio.Task[object], asyncio.current_task())
        cancelled = task.cancelling()
        self._reader = task
        try:
            if bounds.trusted and self._begun:
                with deadline(until):
                    event = await anext(source)
            elif not self._begun:
                with delivering(self._delivery):
                    event = await bounds.wait(anext(source), until)
            else:
                give_up = min(until, started + bounds.patience)
                event = await bounds.wait(anext(source), until, give_up=give_up)
            if self._let_go is None:
                return event
        except asyncio.CancelledError:
            if is_cancelled() if self._let_go is None else task.cancelling() - 1 > cancelled:
                raise
        finally:
            self._reader = None
            self._budget -= clock.now() - started
            if self._let_go is not None:
                task.uncancel()  # It was `_interrupt` that cancelled it.
        if self._let_go is None:
            raise self._gave_up(broken=True)
        raise StreamCut("the stream was left while it was being read", kind="cut")

    async def _interrupt(self) -> None:
        """End the wait of another task that is still reading."""
        if self._reader is not None:
            self._let_go = asyncio.Event()
            self._reader.cancel()
            await self._bridge.bounds.close(self._let_go.wait())

    def _gave_up(self, *, broken: bool = False) -> ChatbridgeError:
        if not self._begun:
            return self._bridge.bounds.gave_up(creates=True, broken=broken)
        if self._bridge.bounds.closed:
            return StreamCut("the bridge was closed before the answer was complete", kind="cut")
        if broken:
            return StreamCut("the backend cancelled its stream by itself", kind="cut")
        return StreamCutTimeout("the answer stopped coming", kind="idle")

    def _explained(self, error: ChatbridgeError) -> ChatbridgeError:
        if isinstance(error, AnswerLost):
            error.partial = error.partial or self.partial
            error.events = error.events or tuple(self._seen)
        return error.because(
            provider=error.provider or self._bridge.profile.name,
            conversation_id=self._conversation_id,
            client_id=error.client_id or self._outgoing.message.id,
        )

    def _finished(self, reply: Reply) -> Reply:
        """Add to *reply* what there is to warn of."""
        reasons = {event.reason for event in self._seen if isinstance(event, Reset)}
        taken_back = sorted(reasons.difference(reply.warnings))
        if taken_back:
            notes = (f"what was shown was taken back: {reason}" for reason in taken_back)
            reply = evolve(reply, warnings=(*reply.warnings, *notes))
        return self._outgoing.warned(reply)

    async def _close(self) -> None:
        lane = self._lane
        if lane is None or self._reader is not None:
            return  # The reader closes it, once the backend lets it.
        self._lane = None
        turn = self._last_word()
        try:
            try:
                await self._close_source()
            finally:
                if turn is not None:
                    await self._bridge.deliveries.stopped(turn, self._delivery, self._shown)
        finally:
            self._bridge.deliveries.writing.give_back(lane)
            if self._let_go is not None:
                self._let_go.set()

    async def _close_source(self) -> None:
        source, self._source, self._first = self._source, None, None
        if source is not None:
            # The answer is here, or not wanted any more: that the backend fails to close changes nothing.
            with suppress(ChatbridgeError):
                await self._bridge.bounds.close(source.aclose())

    @property
    def _shown(self) -> str | None:
        """The text of an answer that has begun."""
        return self.partial if self._begun else None

    def __del__(self) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            self._source = None  # The event loop closes it.
            if self._progress is not None:
                with suppress(RuntimeError):  # The loop is closed.
                    lane.loop.call_soon_threadsafe(self._progress.end)
            self._bridge.deliveries.dropped(lane, self._turn, self._delivery, self._shown)
            warnings.warn(
                "a stream was dropped without being left", ResourceWarning, source=self, stacklevel=1
            )


async def _whole(
    backend: ChatBackend, conversation_id: str, message: Message, options: SendOptions
) -> AsyncGenerator[StreamEvent, None]:
    """Give the answer of an API that cannot stream, each part in one piece."""
    async for event in _replayed(await backend.send(conversation_id, message, options)):
        yield event


async def _replayed(reply: Reply) -> AsyncGenerator[StreamEvent, None]:
    """Give an answer that is there already."""
    yield Started(reply.message.id, reply.model)
    for event in _in_pieces(reply):
        yield event
    yield Finished(reply)


def _in_pieces(reply: Reply) -> Iterator[StreamEvent]:
    """Give the parts of *reply* as events, whose text together is that of the reply."""
    index, gap = 0, ""
    for message in reply.messages:
        if message.role is not Role.ASSISTANT:
            continue
        for part in message.parts:
            if not isinstance(part, Text):
                yield PartAdded(part, index)
            elif part.text:
                yield from paragraph(part.text, index, gap)
                gap = ""
            index += 1
        gap = GAP if message.text else gap
