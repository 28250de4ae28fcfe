"""Which message may leave a conversation, and as which turn."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import cast

from attrs import evolve

from chatbridge.backend import ChatBackend, Profile
from chatbridge.book import OVER, Book
from chatbridge.bounds import Bounds
from chatbridge.clock import Clock
from chatbridge.completing import is_kept_here
from chatbridge.domain import Message
from chatbridge.errors import NotFound, StoreError, UnsettledTurn, UsageError
from chatbridge.holding import Holding
from chatbridge.search import Search
from chatbridge.turns import Turn, TurnState

__all__ = ["Admission"]


class Admission:
    """
    Lets messages leave, each as a turn that is recorded before.

    Args:
        backend: Where the conversations are.
        profile: What it can do.
        book: Keeps the turns.
        holding: Lets one at a time send to a conversation.
        search: Finds out what a conversation has.
        bounds: Say whether the bridge is closed.
        clock: Measures time.
        settle_timeout: Seconds in which a conversation is read before the first message to it.
    """

    def __init__(
        self,
        backend: ChatBackend,
        profile: Profile,
        book: Book,
        holding: Holding,
        search: Search,
        bounds: Bounds,
        clock: Clock,
        *,
        settle_timeout: float,
    ) -> None:
        self._backend = backend
        self._profile = profile
        self._book = book
        self._ledger = book.ledger
        self._holding = holding
        self._search = search
        self._bounds = bounds
        self._clock = clock
        self._settle_timeout = settle_timeout
        # Whether a message that was not answered is certainly not in its conversation.
        self._certain = is_kept_here(profile)

    async def admit(self, conversation_id: str, message: Message, until: float, *, resend: bool) -> Turn:
        """
        Hold the conversation, and record that *message* is about to leave.

        Raises:
            UnsettledTurn: An earlier message is in doubt, and *resend* does not say that it may be.
            UsageError: The message was sent before, and *resend* does not say to send it again.
            NotFound: Only the store could have the conversation, and it has not.
            StoreError: The turn cannot be recorded.
        """
        await self._holding.hold(conversation_id, until)
        try:
            await self.check_there(conversation_id)
            return await self._begin(conversation_id, message, until, resend=resend)
        except BaseException:
            await self._holding.release(conversation_id)
            raise

    async def check_there(self, conversation_id: str) -> None:
        """Raise NotFound where the store alone can have the conversation, and has not; who asks holds it."""
        if self._certain:
            try:
                await self._backend.get_conversation(conversation_id)
            except NotFound:
                with suppress(StoreError):
                    await self._ledger.drop_if_empty(conversation_id)
                raise

    async def _begin(self, conversation_id: str, message: Message, until: float, *, resend: bool) -> Turn:
        await self.clear(conversation_id)
        doubtful = [turn for turn in await self._ledger.unsettled(conversation_id) if turn.blocks]
        if resend:
            same = next((turn for turn in doubtful if message.same_content(turn.message)), None)
            if same is not None and same.id != message.id:
                message = evolve(message, id=same.id)
        elif doubtful:
            raise self._blocked(doubtful[0])
        before = self._standing(await self._ledger.find(conversation_id, cast(str, message.id)))
        again = before is not None and before.state not in OVER
        if again and not resend:
            raise self._sent_before(cast(Turn, before))
        await self._prepare(conversation_id, until)
        now = datetime.fromtimestamp(self._clock.wall(), UTC)
        trail = self._book.trails.get(conversation_id)
        baseline = None if trail is None else trail.baseline(message)
        turn = Turn(cast(str, message.id), conversation_id, message, now, baseline=baseline)
        if before is not None and again:
            turn = evolve(
                turn,
                started_at=before.started_at,
                baseline=before.baseline,
                sends=before.sends + 1,
                earlier=before,
            )
        try:
            await self._book.record(turn, before)
            for other in doubtful:
                if other.id != turn.id:
                    await self._book.waive(other)
            self._bounds.check_open()
        except BaseException:
            await self._book.change(turn, TurnState.NOT_SENT)
            raise
        return turn

    def _standing(self, turn: Turn | None) -> Turn | None:
        """Give what stands of *turn*: where its conversation is kept here, no answer that broke off does."""
        while self._certain and turn is not None and turn.state is TurnState.ACCEPTED:
            turn = turn.earlier
        return turn

    async def clear(self, conversation_id: str) -> tuple[Turn, ...]:
        """Note what is known by itself of the messages in doubt; who does it is alone there."""
        doubtful = await self._ledger.unsettled(conversation_id) if self._certain else ()
        return tuple(
            [
                await self._book.change(turn, TurnState.NOT_SENT)
                for turn in doubtful
                if turn.state is not TurnState.ACCEPTED
            ]
        )

    async def _prepare(self, conversation_id: str, until: float) -> None:
        """Make sure that a message to the conversation can be told from older ones, where it can be."""
        if conversation_id in self._book.trails:
            self._book.trails.use(conversation_id)
        elif self._search.possible and self._settle_timeout:
            now = self._clock.now()
            # The message needs time as well.
            await self._search.learn(conversation_id, min(now + self._settle_timeout, (now + until) / 2))
            self._bounds.check_open()

    def _sent_before(self, turn: Turn) -> UsageError:
        return UsageError(
            f"the message {turn.id} was sent before and is {turn.state.value}: "
            "send a new one, or say resend=True to send it again",
            provider=self._profile.name,
            turn=turn,
        )

    def _blocked(self, turn: Turn) -> UnsettledTurn:
        cure = "chat.settle() finds out, " if self._search.possible else f"{self._profile.name} cannot tell; "
        return UnsettledTurn(
            f"whether the message {turn.id} arrived is not known, and it blocks the next one: "
            f"{cure}chat.waive(turn) lets the doubt stand, resend=True does and sends this one",
            provider=self._profile.name,
            conversation_id=turn.conversation_id,
            turn=turn,
        )
