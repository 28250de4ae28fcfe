"""
Every message of a bridge, from before it leaves until it is known what became of it.

A message in doubt is looked for in the conversation, where the API shows one. Looking never sends.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Final, cast
from weakref import WeakSet

from attrs import evolve

from chatbridge.admission import Admission
from chatbridge.backend import ChatBackend, Profile
from chatbridge.book import OVER, Book, OnTurn
from chatbridge.bounds import Bounds
from chatbridge.clock import Clock
from chatbridge.completing import is_kept_here
from chatbridge.delivery import Delivery, delivering
from chatbridge.domain import Message, Reply, SendOptions, StreamEvent
from chatbridge.errors import (
    AnswerLost,
    ChatbridgeError,
    Outcome,
    StoreError,
    UnsupportedFeature,
    UsageError,
)
from chatbridge.history.ledger import Ledger
from chatbridge.holding import Holding
from chatbridge.order import Lane, Order
from chatbridge.progress import Progress
from chatbridge.search import Search
from chatbridge.trails import Trails
from chatbridge.turns import Turn, TurnState
from chatbridge.verdicts import Look, after_looking, no_less_than, not_there
from chatbridge.writing import Writing

__all__ = ["Deliveries", "OnTurn"]

_STATES: Final = {
    Outcome.NOT_SENT: TurnState.NOT_SENT,
    Outcome.REFUSED: TurnState.REFUSED,
    Outcome.ACCEPTED: TurnState.ACCEPTED,
    Outcome.UNKNOWN: TurnState.UNKNOWN,
}


class Deliveries:
    """
    The turns of one bridge.

    Attributes:
        ledger: What keeps them.
        writing: What is being written of them.
    """

    # Seconds before the deadline at which the last look begins.
    LAST_LOOK = 1.0

    def __init__(
        self,
        backend: ChatBackend,
        profile: Profile,
        bounds: Bounds,
        order: Order,
        clock: Clock,
        *,
        settle_timeout: float,
        ledger: Ledger,
        on_turn: OnTurn | None = None,
    ) -> None:
        self.ledger = ledger
        self._backend = backend
        self._profile = profile
        self._bounds = bounds
        self.writing = Writing(clock, order, durable=ledger.store.durable)
        self._clock = clock
        self._settle_timeout = settle_timeout
        self._book = Book(profile.name, self.ledger, Trails(order.is_held), clock, on_turn)
        ledger.late = self._write_late
        self._holding = Holding(order, self._book, bounds, clock)
        self._search = Search(backend, profile, bounds, clock, self._book)
        self._admission = Admission(
            backend,
            profile,
            self._book,
            self._holding,
            self._search,
            bounds,
            clock,
            settle_timeout=settle_timeout,
        )
        self._coming = WeakSet[Progress]()
        # Whether a message that was not answered is certainly not in its conversation.
        self._certain = is_kept_here(profile)

    @property
    def can_settle(self) -> bool:
        """Whether anything can be found out of a message in doubt."""
        return self._certain or self._search.possible

    @property
    def on_turn(self) -> OnTurn | None:
        """What is told of each change of a turn; of a new one before its message leaves."""
        return self._book.on_turn

    @on_turn.setter
    def on_turn(self, hook: OnTurn | None) -> None:
        self._book.on_turn = hook

    def created(self, conversation_id: str, history: Sequence[Message]) -> None:
        """Take in that a conversation was made, with *history* in it."""
        if self._search.possible:
            self._book.trails.remember(conversation_id, history)

    async def deleted(self, conversation_id: str) -> None:
        """Take in that a conversation is gone, and with it every doubt."""
        self._book.trails.forget(conversation_id)
        with suppress(StoreError):  # The deletion is done.
            for turn in await self.ledger.unsettled(conversation_id):
                if turn.state is not TurnState.PENDING:
                    await self.waive(conversation_id, turn)

    def _write_late(self) -> set[str]:
        """Begin to record what the store did not take at its time, and give the conversations of it."""
        late = self._book.late
        for conversation_id in late:
            if not self.writing.is_busy(conversation_id):
                self.writing.begin(conversation_id, partial(self._book.catch_up, conversation_id))
        return late

    async def turns(self, conversation_id: str) -> tuple[Turn, ...]:
        """Give the turns of a conversation, oldest first."""
        await self._book.catch_up(conversation_id)
        return tuple(await self.ledger.turns(conversation_id))

    def alone(self, conversation_id: str, until: float) -> AbstractAsyncContextManager[None]:
        """Let nobody else send to the conversation for a block, as `Holding.alone` does."""
        return self._holding.alone(conversation_id, until)

    async def begin(
        self, conversation_id: str, message: Message, until: float, *, resend: bool = False
    ) -> Turn:
        """
        Record that *message* is about to leave.

        Raises:
            UnsettledTurn: An earlier message is in doubt, and *resend* does not say that it may be.
            UsageError: The message was sent before, and *resend* does not say to send it again.
            NotFound: Only the store could have the conversation, and it has not.
            StoreError: The turn cannot be recorded, or not in time.
        """
        begin = partial(self._admission.admit, conversation_id, message, until, resend=resend)
        try:
            return await self.writing.wait(conversation_id, begin, until, stop=True, undo=self._take_back)
        except ChatbridgeError:
            raise
        except TimeoutError:
            pass
        raise StoreError(
            "the store did not answer until the deadline, and the message was not sent; try again",
            kind="locked",
            provider=self._profile.name,
            conversation_id=conversation_id,
            client_id=message.id,
        )

    async def _take_back(self, turn: Turn) -> None:
        await self._book.change(turn, TurnState.NOT_SENT, last=True)

    async def send(
        self,
        conversation_id: str,
        message: Message,
        options: SendOptions,
        until: float,
        *,
        resend: bool = False,
    ) -> Reply:
        """Send *message* as a turn, and find out what became of it if that is in doubt."""
        with self.writing.calls:
            return await self._send(conversation_id, message, options, until, resend=resend)

    async def _send(
        self, conversation_id: str, message: Message, options: SendOptions, until: float, *, resend: bool
    ) -> Reply:
        turn = await self.begin(conversation_id, message, until, resend=resend)
        delivery = Delivery(turn.id)
        try:
            with delivering(delivery):
                call = self._backend.send(conversation_id, turn.message, options)
                reply = await self._bounds.call(call, creates=True, until=until)
        except ChatbridgeError as error:
            failed = error
        except BaseException:
            await self.stopped(turn, delivery)
            raise
        else:
            return await self.delivered(turn, reply, until)
        return await self.recover(turn, failed, delivery, until)

    async def delivered(self, turn: Turn, reply: Reply, until: float) -> Reply:
        """
        Record that the answer is here, and give it.

        Raises:
            StoreError: It cannot be recorded, or not in time; the answer is in it.
        """
        after = self._book.become(turn, TurnState.DELIVERED)
        note = partial(self._book.note, after, turn, reply, last=True)
        try:
            after = await self.writing.wait(turn.conversation_id, note, until)
        except TimeoutError:
            late = "the store did not answer until the deadline"
            problem: StoreError | None = StoreError(late, kind="locked")
        else:
            problem = self._book.problem(after)
        return self._stored(after, reply, problem)

    def _stored(self, turn: Turn, reply: Reply, problem: StoreError | None) -> Reply:
        if problem is None:
            return reply
        raise StoreError(
            f"the answer is here, and could not be stored: {problem}",
            kind=problem.kind,
            reply=reply,
            provider=self._profile.name,
            conversation_id=turn.conversation_id,
            client_id=turn.id,
            turn=turn,
        )

    def follow(self, turn: Turn, seen: Sequence[StreamEvent]) -> Progress | None:
        """Keep what is *seen* of an answer while it is coming, in a store that outlasts the process."""
        if not self.ledger.store.durable:
            return None

        def save(shown: str) -> asyncio.Task[bool]:
            return self.writing.begin(turn.conversation_id, partial(self._progress, turn, shown))

        progress = Progress(self._clock, seen, save)
        self._coming.add(progress)
        return progress

    async def _progress(self, turn: Turn, shown: str) -> bool:
        try:
            await self.ledger.record(evolve(turn, state=TurnState.ACCEPTED, partial=shown))
        except StoreError:  # Which will be told at its end.
            return False
        return True

    async def stopped(self, turn: Turn, delivery: Delivery, shown: str | None = None) -> None:
        """
        Record that nobody waits for the answer any more; *shown* is what had come of it, if it had begun.

        Of a delivery that nobody told of, anything may be true.
        """
        await self.writing.leave(turn.conversation_id, partial(self._stopped, turn, delivery, shown))

    async def _stopped(self, turn: Turn, delivery: Delivery, shown: str | None) -> None:
        if shown is not None:
            await self._book.change(turn, TurnState.ACCEPTED, partial=shown, last=True)
            return
        outcome = delivery.outcome or Outcome.UNKNOWN
        if self._certain and outcome is not Outcome.REFUSED:
            outcome = Outcome.NOT_SENT
        turn = await self._book.change(turn, _STATES[outcome], last=True)
        self._book.warn(turn, "nobody waited for the answer")

    def dropped(
        self,
        lane: Lane,
        turn: Turn | None,
        delivery: Delivery,
        shown: str | None,
    ) -> None:
        """
        Record the same of a stream that nobody holds any more, and let the next message go in its *lane*.

        Where the loop is closed nothing can be recorded, and the message is in doubt.
        """

        def begin() -> None:  # Who holds nothing any more may be found out in any thread.
            if turn is not None:
                self.writing.begin(lane.conversation_id, partial(self._stopped, turn, delivery, shown))
            self.writing.give_back(lane)

        if _running_loop() is lane.loop:
            begin()
            return
        try:
            lane.loop.call_soon_threadsafe(begin)
        except RuntimeError:  # The loop is closed.
            self.writing.give_back(lane)

    def stop(self) -> None:
        """End all pauses."""
        self._search.close()
        self._holding.close()

    async def close(self) -> None:
        """Wait until everything is recorded, and let others hold what is held; not for ever."""
        for progress in tuple(self._coming):
            progress.flush()
        await self.writing.end()
        with suppress(TimeoutError):
            await self.writing.wait("", self._finish, self._clock.now() + self.writing.CLOSING)

    async def _finish(self) -> None:
        with suppress(StoreError):
            await self._book.catch_up()
        await self.ledger.close()

    async def failed(
        self,
        turn: Turn,
        error: ChatbridgeError,
        delivery: Delivery,
        until: float,
        shown: str | None = None,
        *,
        last: bool = True,
    ) -> ChatbridgeError:
        """
        Record what *error* says of the turn, and give it with the turn in it.

        A message whose *delivery* was seen, or whose answer had begun with *shown*, is accepted whatever
        the error says.
        """
        error = not_there(error) if self._certain else error
        state = _STATES[error.outcome]
        begun = shown is not None or delivery.outcome is Outcome.ACCEPTED
        if state in OVER and begun and not self._certain:
            state = TurnState.ACCEPTED
        told = error.partial if isinstance(error, AnswerLost) else shown
        after = self._book.become(turn, state, partial=told or "", from_api=error.from_api)
        note = partial(self._book.note, after, turn, last=last)
        try:
            turn = await self.writing.wait(turn.conversation_id, note, until)
        except TimeoutError:
            turn = after  # It is written once the store lets it.
        error = no_less_than(turn, error)
        return error.because(turn=turn, client_id=turn.id, conversation_id=turn.conversation_id)

    async def recover(self, turn: Turn, error: ChatbridgeError, delivery: Delivery, until: float) -> Reply:
        """
        Find out what became of a message whose sending ended in *error*, and give the answer if it is there.

        Raises:
            ChatbridgeError: *error*, or what is known better by now.
        """
        try:
            return await self._recover(turn, error, delivery, until)
        finally:
            release = partial(self._holding.release, turn.conversation_id)
            await self.writing.leave(turn.conversation_id, release)

    async def _recover(self, turn: Turn, error: ChatbridgeError, delivery: Delivery, until: float) -> Reply:
        looks = self._looks_after(error)
        error = await self.failed(turn, error, delivery, until, last=False)
        look = Look(cast(Turn, error.turn))
        if looks and look.turn.unsettled:
            watch = partial(self._watch_after, look.turn, until)
            with suppress(StoreError, TimeoutError):  # What is known of the message by now is told.
                look = await self.writing.wait(
                    turn.conversation_id, watch, until + self._bounds.GRACE, stop=True
                )
        if look.turn.reply is not None:
            return self._stored(look.turn, look.turn.reply, self._book.problem(look.turn))
        error = after_looking(error, look).because(turn=look.turn)
        self.warn_of(error)
        raise error

    async def _watch_after(self, turn: Turn, until: float) -> Look:
        last = until - self.LAST_LOOK
        give_up = min(last, self._clock.now() + self._settle_timeout)
        await self._holding.try_to_hold(turn.conversation_id)  # It may be lost after too long a wait.
        (look,) = await self._search.watch([turn], give_up, last, until)
        return look

    async def settle(self, conversation_id: str, wait: float | None = None) -> tuple[Turn, ...]:
        """
        Look for the messages in doubt, for up to *wait* seconds; give those that had not been waived.

        Raises:
            UnsupportedFeature: The API does not show what arrived in a conversation.
            OverloadedTimeout: A message was on its way all the time.
            StoreError: The turns cannot be read.
            ChatbridgeError: The conversation could not be read.
        """
        if not self.can_settle:
            raise UnsupportedFeature(
                backend=self._profile.name,
                feature="settling: it does not show what arrived in a conversation",
                instead="chat.waive(turn), once you know or do not mind",
            )
        if wait is not None and (not math.isfinite(wait) or wait < 0):
            raise UsageError(f"to wait for {wait} seconds makes no sense", provider=self._profile.name)
        give_up = self._clock.now() + (self._settle_timeout if wait is None else wait)
        with self.writing.calls:
            async with self.alone(conversation_id, give_up):
                if self._certain:
                    cleared = await self._admission.clear(conversation_id)
                    if not cleared:
                        await self._admission.check_there(conversation_id)
                    return tuple(turn for turn in cleared if not turn.waived)
                turns = await self.ledger.unsettled(conversation_id)
                looks = await self._watch(turns, give_up)
        for look in looks:
            if look.problem is not None:
                raise look.problem.because(conversation_id=conversation_id, turn=look.turn)
        return tuple(look.turn for turn, look in zip(turns, looks, strict=True) if not turn.waived)

    async def look(self, conversation_id: str) -> None:
        """Look once for the messages in doubt, where that can be done; whoever does it is alone there."""
        if self._search.possible:
            await self._watch(await self.ledger.unsettled(conversation_id), self._clock.now())

    async def _watch(self, turns: Sequence[Turn], give_up: float) -> list[Look]:
        return await self._search.watch(turns, give_up, give_up, give_up + self._bounds.timeout)

    async def waive(self, conversation_id: str, turn: Turn) -> Turn:
        """
        Let the doubt about *turn* stand, so that the next message may go.

        Raises:
            UsageError: The conversation has no such turn.
        """
        if not isinstance(cast(object, turn), Turn):
            raise UsageError(f"waive takes a turn of the conversation's, not a {type(turn).__name__}")
        await self._book.catch_up(conversation_id)
        known = await self.ledger.find(conversation_id, turn.id)
        if known is None:
            raise UsageError(f"the conversation has no turn {turn.id!r}", provider=self._profile.name)
        if not known.blocks:
            return known
        return await self._book.waive(known)

    def warn_of(self, error: ChatbridgeError) -> None:
        """Log that the message of *error* is in doubt, if it is."""
        if error.turn is not None:
            self._book.warn(error.turn, type(error).__name__)

    def _looks_after(self, error: ChatbridgeError) -> bool:
        """Tell whether the conversation is read at once: not for what the API itself says of an answer."""
        if not self._search.possible or not self._settle_timeout or self._bounds.closed:
            return False
        return error.outcome is Outcome.UNKNOWN or not error.from_api


def _running_loop() -> asyncio.AbstractEventLoop | None:
    with suppress(RuntimeError):
        return asyncio.get_running_loop()
    return None
