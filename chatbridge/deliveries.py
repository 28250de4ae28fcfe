"""
Every message of a bridge, from before it leaves until it is known what became of it.

A message in doubt is looked for in the conversation, where the API shows one. Looking never sends.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final, TypedDict, Unpack, cast

from attrs import evolve, frozen

from chatbridge.backend import ChatBackend, Profile, SettleBy
from chatbridge.bounds import Bounds
from chatbridge.clock import Clock, Pauses
from chatbridge.delivery import Delivery, delivering
from chatbridge.domain import Message, Reply, SendOptions
from chatbridge.errors import (
    AnswerLost,
    AnswerLostTimeout,
    BadAnswer,
    ChatbridgeError,
    ChatbridgeWarning,
    DeliveryUnknown,
    Facts,
    NotSent,
    Outcome,
    ProviderFailed,
    UnsettledTurn,
    UnsupportedFeature,
    UsageError,
)
from chatbridge.observe import run_hook
from chatbridge.order import Order
from chatbridge.settling import Seen, Trail, find
from chatbridge.turns import Ledger, MemoryLedger, Turn, TurnEvent, TurnState

__all__ = ["Deliveries", "OnTurn"]

_log = logging.getLogger("chatbridge.turns")

OnTurn = Callable[[TurnEvent], object]
"""Is told of every change of a turn."""

_STATES: Final = {
    Outcome.NOT_SENT: TurnState.NOT_SENT,
    Outcome.REFUSED: TurnState.REFUSED,
    Outcome.ACCEPTED: TurnState.ACCEPTED,
    Outcome.UNKNOWN: TurnState.UNKNOWN,
}
_CLEAR: Final = frozenset({Seen.ANSWERED, Seen.FAILED, Seen.MIXED})
_THERE: Final = frozenset({Seen.ALONE, Seen.FAILED, Seen.MIXED})
_OVER: Final = frozenset({TurnState.NOT_SENT, TurnState.REFUSED})


class _Changes(TypedDict, total=False):
    partial: str
    from_api: bool
    reply: Reply | None


@frozen
class _Look:
    """What looking for a turn's message came to; *problem* is why the conversation could not be read."""

    turn: Turn
    seen: Seen | None = None
    problem: ChatbridgeError | None = None

    @property
    def is_final(self) -> bool:
        if self.seen is Seen.ALONE and self.turn.from_api:
            return True  # The API itself has said that there will be no answer.
        if self.problem is not None:
            return not self.problem.retryable
        return self.seen in _CLEAR or self.turn.state is TurnState.NOT_SENT


class Deliveries:
    """
    The turns of one bridge.

    Attributes:
        ledger: What keeps them.
    """

    # Seconds from the first look to the second; the pauses double up to the longest.
    FIRST_PAUSE = 0.25
    LONGEST_PAUSE = 8.0
    # Seconds before the deadline at which the last look begins.
    LAST_LOOK = 1.0
    # How much of a conversation that was made elsewhere is read before the first message to it.
    LEARNED = 1000
    # How many conversations' contents are remembered.
    KNOWN = 1000

    def __init__(
        self,
        backend: ChatBackend,
        profile: Profile,
        bounds: Bounds,
        order: Order,
        clock: Clock,
        *,
        settle_timeout: float,
        ledger: Ledger | None = None,
        on_turn: OnTurn | None = None,
    ) -> None:
        self.ledger: Ledger = MemoryLedger() if ledger is None else ledger
        self._backend = backend
        self._profile = profile
        self._bounds = bounds
        self._order = order
        self._clock = clock
        self._settle_timeout = settle_timeout
        self._on_turn = on_turn
        self._can_look = SettleBy.READ_BACK in profile.settle_by
        # None of a conversation that could not be read whole: then an equal text may be an old one.
        self._trails: OrderedDict[str, Trail | None] = OrderedDict()
        self._ends: OrderedDict[str, float] = OrderedDict()
        self._pauses = Pauses(clock)
        self._recording: set[asyncio.Task[None]] = set()

    def created(self, conversation_id: str, history: Sequence[Message]) -> None:
        """Take in that a conversation was made, with *history* in it."""
        if self._can_look:
            self._remember(conversation_id, Trail.of(history))

    async def begin(
        self, conversation_id: str, message: Message, until: float, *, resend: bool = False
    ) -> Turn:
        """
        Record that *message* is about to leave.

        Raises:
            UnsettledTurn: An earlier message is in doubt, and *resend* does not say that it may be.
            UsageError: The message was sent before, and *resend* does not say to send it again.
        """
        doubtful = [turn for turn in await self.ledger.unsettled(conversation_id) if turn.blocks]
        if resend:
            same = next((turn for turn in doubtful if message.same_content(turn.message)), None)
            if same is not None and same.id != message.id:
                message = evolve(message, id=same.id)
        elif doubtful:
            raise self._blocked(doubtful[0])
        before = await self.ledger.find(conversation_id, cast(str, message.id))
        if before is not None and before.state not in _OVER and not resend:
            raise UsageError(
                f"the message {before.id} was sent before and is {before.state.value}: "
                "send a new one, or say resend=True to send it again",
                provider=self._profile.name,
                turn=before,
            )
        for turn in doubtful:
            if turn.id != message.id:
                await self._record(evolve(turn, waived=True), turn)
        if conversation_id in self._trails:
            self._trails.move_to_end(conversation_id)
        elif self._can_look and self._settle_timeout:
            await self._learn(conversation_id, until)
        again = before is not None and before.state not in _OVER
        turn = Turn(
            cast(str, message.id),
            conversation_id,
            message,
            datetime.fromtimestamp(self._clock.wall(), UTC),
            sends=before.sends + 1 if before is not None and again else 1,
            earlier=before.state if before is not None and again else None,
        )
        await self._record(turn, before)
        return turn

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
            await self.delivered(turn)
            return reply
        return await self.recover(turn, failed, until)

    async def delivered(self, turn: Turn) -> Turn:
        """Record that the answer is here."""
        return await self._change(turn, TurnState.DELIVERED)

    async def stopped(self, turn: Turn, delivery: Delivery, partial: str | None = None) -> Turn:
        """
        Record that nobody waits for the answer any more; *partial* is what had come of it, if it had begun.

        Only our transport tells of a delivery how far it came.
        """
        if partial is not None:
            return await self._change(turn, TurnState.ACCEPTED, partial=partial)
        known = delivery.outcome if self._bounds.trusted else Outcome.UNKNOWN
        turn = await self._change(turn, _STATES[known])
        self._warn(turn, "nobody waited for the answer")
        return turn

    def dropped(
        self, conversation_id: str, turn: Turn | None, delivery: Delivery, partial: str | None
    ) -> None:
        """Record the same of a stream that nobody holds any more, and let the next message go."""

        async def record() -> None:
            try:
                if turn is not None:
                    await self.stopped(turn, delivery, partial)
            finally:
                self._order.give_back(conversation_id)

        with suppress(RuntimeError):  # There is no event loop any more.
            task = asyncio.get_running_loop().create_task(record())
            self._recording.add(task)
            task.add_done_callback(self._recording.discard)

    async def close(self) -> None:
        """End the pauses between looks, and wait until everything is recorded."""
        self._pauses.close()
        if self._recording:
            await asyncio.wait(self._recording)

    async def failed(self, turn: Turn, error: ChatbridgeError) -> Turn:
        """Record what *error* says of the turn, and let it carry the turn."""
        partial = error.partial if isinstance(error, AnswerLost) else ""
        turn = await self._change(turn, _STATES[error.outcome], partial=partial, from_api=error.from_api)
        error.because(turn=turn, client_id=turn.id, conversation_id=turn.conversation_id)
        return turn

    async def recover(self, turn: Turn, error: ChatbridgeError, until: float) -> Reply:
        """
        Find out what became of a message whose sending ended in *error*, and give the answer if it is there.

        Raises:
            ChatbridgeError: *error*, or what is known better by now.
        """
        turn = await self.failed(turn, error)
        look = _Look(turn)
        if turn.unsettled and self._looks_after(error):
            last = until - self.LAST_LOOK
            give_up = min(last, self._clock.now() + self._settle_timeout)
            (look,) = await self._watch([turn], give_up, last, until)
        if look.turn.reply is not None:
            return look.turn.reply
        error = _better(error, look)
        self._warn(look.turn, type(error).__name__)
        raise error.because(turn=look.turn)

    async def settle(self, conversation_id: str, wait: float | None = None) -> tuple[Turn, ...]:
        """
        Look for the messages in doubt, for up to *wait* seconds.

        Raises:
            UnsupportedFeature: The API does not show what is in a conversation.
            ChatbridgeError: The conversation could not be read.
        """
        if not self._can_look:
            raise UnsupportedFeature(
                backend=self._profile.name,
                feature="settling: it does not show what is in a conversation",
                instead="chat.waive(turn), once you know or do not mind",
            )
        await self._order.take(conversation_id, self._clock.now() + self._bounds.timeout)
        try:
            turns = await self.ledger.unsettled(conversation_id)
            give_up = self._clock.now() + (self._settle_timeout if wait is None else wait)
            looks = await self._watch(turns, give_up, give_up, give_up + self._bounds.timeout)
        finally:
            self._order.give_back(conversation_id)
        for look in looks:
            if look.problem is not None:
                raise look.problem.because(conversation_id=conversation_id, turn=look.turn)
        return tuple(look.turn for look in looks)

    async def waive(self, conversation_id: str, turn: Turn) -> Turn:
        """
        Let the doubt about *turn* stand, so that the next message may go.

        Raises:
            UsageError: The conversation has no such turn.
        """
        known = await self.ledger.find(conversation_id, turn.id)
        if known is None:
            raise UsageError(f"the conversation has no turn {turn.id!r}", provider=self._profile.name)
        if not known.blocks:
            return known
        return await self._record(evolve(known, waived=True), known)

    def _blocked(self, turn: Turn) -> UnsettledTurn:
        cure = "chat.settle() finds out, " if self._can_look else f"{self._profile.name} cannot tell; "
        return UnsettledTurn(
            f"whether the message {turn.id} arrived is not known, and it blocks the next one: "
            f"{cure}chat.waive(turn) lets the doubt stand, resend=True does and sends this one",
            provider=self._profile.name,
            conversation_id=turn.conversation_id,
            turn=turn,
        )

    def _warn(self, turn: Turn, why: str) -> None:
        if turn.state is TurnState.UNKNOWN:
            _log.warning(
                "%s: whether message %s arrived in conversation %s is not known: %s",
                self._profile.name,
                turn.id,
                turn.conversation_id,
                why,
            )

    async def _change(self, turn: Turn, state: TurnState, **changes: Unpack[_Changes]) -> Turn:
        before = turn
        if state in _OVER and turn.earlier is not None:
            # This time it did not arrive; what was known of the times before is known still.
            state = turn.earlier
            turn = evolve(turn, sends=turn.sends - 1, earlier=None)
        if state in {TurnState.UNKNOWN, TurnState.ACCEPTED}:
            self._ends[turn.id] = self._clock.now()
            if len(self._ends) > self.KNOWN:
                self._ends.popitem(last=False)
        else:
            self._ends.pop(turn.id, None)
        return await self._record(evolve(turn, state=state, **changes), before)

    async def _record(self, turn: Turn, before: Turn | None) -> Turn:
        trail = self._trails.get(turn.conversation_id)
        if trail is not None:
            trail.record(turn, before)
        await self.ledger.record(turn)
        if self._on_turn is not None:
            state = None if before is None or turn.state is TurnState.PENDING else before.state
            run_hook(self._on_turn, TurnEvent(self._profile.name, turn, state))
        return turn

    def _remember(self, conversation_id: str, trail: Trail | None) -> None:
        self._trails[conversation_id] = trail
        if len(self._trails) > self.KNOWN:
            self._trails.popitem(last=False)

    async def _learn(self, conversation_id: str, until: float) -> None:
        """Read what is in a conversation, so that a message to it can be told from older ones."""
        try:
            history = await self._bounds.call(self._read(conversation_id, self.LEARNED + 1), until=until)
        except ChatbridgeWarning:  # Where warnings are errors.
            self._remember(conversation_id, None)
            return
        except ChatbridgeError as error:
            if not error.retryable or isinstance(error, BadAnswer):
                self._remember(conversation_id, None)
            return
        trail = None if len(history) > self.LEARNED else Trail.of(history)
        if trail is not None:
            for turn in await self.ledger.unsettled(conversation_id):
                trail.record(turn, None)
        self._remember(conversation_id, trail)

    async def _read(self, conversation_id: str, limit: int | None = None) -> list[Message]:
        messages = self._backend.list_messages(conversation_id, limit=limit)
        return [message async for message in messages]

    def _looks_after(self, error: ChatbridgeError) -> bool:
        """Tell whether the conversation is read at once: not for what the API itself says of an answer."""
        if not self._can_look or not self._settle_timeout or self._bounds.closed:
            return False
        return error.outcome is Outcome.UNKNOWN or not error.from_api

    async def _watch(
        self, turns: Iterable[Turn], give_up: float, at_most: float, until: float
    ) -> list[_Look]:
        """
        Look until all is clear, or until *give_up*.

        For the answer to a message that is there, and for the moment that proves absence, look until
        *at_most*; each look may take *until* the deadline.
        """
        pause, looks = self.FIRST_PAUSE, [_Look(turn) for turn in turns]
        while True:
            looks = await self._look(looks, until)
            now = self._clock.now()
            moments = [self._next(look, now, give_up, at_most) for look in looks]
            due = [moment for moment in moments if moment is not None]
            if not due:
                return looks
            await self._pauses.wait(min(now + pause, *due) - now)
            if self._bounds.closed:
                return looks
            pause = min(2 * pause, self.LONGEST_PAUSE)

    def _next(self, look: _Look, now: float, give_up: float, at_most: float) -> float | None:
        """Say when to look again at the latest; None where that is no use."""
        if look.is_final or look.turn.waived:
            return None
        proof = self._proof(look.turn)
        if look.seen is Seen.ABSENT and proof is not None and max(now, proof) <= at_most:
            return max(now, proof)
        last = at_most if look.seen is Seen.ALONE else give_up
        return last if now < last else None

    def _proof(self, turn: Turn) -> float | None:
        """Say from when on absence proves that the message of *turn* did not arrive."""
        if turn.from_api:
            return self._ends.get(turn.id, self._clock.now())
        if self._profile.absent_after is None:
            return None
        # A turn that was stopped in another process may have been sent until now.
        return self._ends.setdefault(turn.id, self._clock.now()) + self._profile.absent_after

    async def _look(self, looks: Sequence[_Look], until: float) -> list[_Look]:
        """Look once, for all turns of *looks*, which are of one conversation, that are not clear."""
        open_ones = [look for look in looks if not look.is_final]
        if not open_ones:
            return list(looks)
        conversation_id = open_ones[0].turn.conversation_id
        begun, problem, history = self._clock.now(), None, list[Message]()
        try:
            history = await self._bounds.call(self._read(conversation_id), until=until)
        except ChatbridgeError as error:
            problem = error
        except ChatbridgeWarning as warning:  # Where warnings are errors.
            problem = BadAnswer(str(warning), provider=self._profile.name)
        return [
            look
            if look.is_final
            else evolve(look, problem=problem)
            if problem is not None
            else await self._judge(look.turn, history, begun)
            for look in looks
        ]

    async def _judge(self, turn: Turn, history: Sequence[Message], begun: float) -> _Look:
        """Take in what a look that began at *begun* shows of *turn*."""
        found, proof = find(turn, history, self._trails.get(turn.conversation_id)), self._proof(turn)
        if found.seen is Seen.ANSWERED:
            turn = await self._change(turn, TurnState.DELIVERED, reply=found.reply, partial="")
            _log.info("%s: message %s was found with its answer", self._profile.name, turn.id)
        elif found.seen in _THERE and turn.state is not TurnState.ACCEPTED:
            turn = await self._record(evolve(turn, state=TurnState.ACCEPTED), turn)
        elif found.seen is Seen.ABSENT and proof is not None and proof <= begun:
            turn = await self._change(turn, TurnState.NOT_SENT)
        return _Look(turn, found.seen)


def _better(error: ChatbridgeError, look: _Look) -> ChatbridgeError:
    """Give the error that says what is known after looking, with what is noted on the first."""
    better = _after(error, look)
    if better is not error:
        for note in getattr(error, "__notes__", ()):
            better.add_note(note)
    return better


def _after(error: ChatbridgeError, look: _Look) -> ChatbridgeError:
    if look.turn.state is TurnState.NOT_SENT and error.outcome is not Outcome.NOT_SENT:
        return NotSent(f"{error}; the message is not in the conversation", **_facts_of(error))
    if look.seen not in _THERE or not isinstance(error, DeliveryUnknown):
        return error
    facts, there = _facts_of(error), f"{error}; the message is in the conversation"
    if look.seen is Seen.MIXED:
        return AnswerLost(f"{there}, and its answer cannot be told from others", kind="cut", **facts)
    if error.from_api or look.seen is Seen.FAILED:
        return ProviderFailed(f"{there}, without an answer", kind="provider", **facts)
    return AnswerLostTimeout(f"{there}, and its answer did not come in time", kind="idle", **facts)


def _facts_of(error: ChatbridgeError) -> Facts:
    names = Facts.__annotations__
    return cast(Facts, {name: value for name, value in vars(error).items() if name in names})
