"""Looking for messages in doubt in their conversation. Looking never sends."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from attrs import evolve

from chatbridge.backend import ChatBackend, Profile, SettleBy
from chatbridge.book import OVER, Book
from chatbridge.bounds import Bounds
from chatbridge.clock import Clock, Pauses
from chatbridge.domain import Message
from chatbridge.errors import BadAnswer, ChatbridgeError, ChatbridgeWarning
from chatbridge.history.ledger import Ledger
from chatbridge.settling import History, Seen, Trail, find, fingerprint
from chatbridge.text import printable
from chatbridge.turns import Turn, TurnState
from chatbridge.verdicts import THERE, Look

__all__ = ["Search"]

_log = logging.getLogger("chatbridge.turns")


class Search:
    """
    Reads conversations of one bridge for what became of messages.

    Attributes:
        possible: Whether the API shows what arrived.
    """

    # Seconds from the first look to the second; the pauses double up to the longest.
    FIRST_PAUSE = 0.25
    LONGEST_PAUSE = 8.0
    # Seconds that one look may take.
    LONGEST_LOOK = 30.0

    def __init__(
        self, backend: ChatBackend, profile: Profile, bounds: Bounds, clock: Clock, book: Book
    ) -> None:
        self.possible = SettleBy.READ_BACK in profile.settle_by
        self._backend = backend
        self._profile = profile
        self._bounds = bounds
        self._clock = clock
        self._book = book
        self._pauses = Pauses(clock)

    def close(self) -> None:
        """End the pauses between looks."""
        self._pauses.close()

    async def learn(self, conversation_id: str, until: float) -> None:
        """Read what is in a conversation, so that a message to it can be told from older ones."""
        history: list[Message] | None = None
        try:
            history = await self._bounds.call(self._read(conversation_id), until=until)
        except ChatbridgeWarning:  # Where warnings are errors.
            pass
        except ChatbridgeError as error:
            if error.retryable and not error.timed_out and not isinstance(error, BadAnswer):
                return
        doubtful = await self._book.ledger.unsettled(conversation_id)
        self._book.trails.remember(conversation_id, history, doubtful)

    async def _read(self, conversation_id: str) -> list[Message]:
        return [message async for message in self._backend.list_messages(conversation_id)]

    async def watch(self, turns: Iterable[Turn], give_up: float, at_most: float, until: float) -> list[Look]:
        """
        Look until all is clear, or until *give_up*.

        For the answer to a message that is there look until *at_most*; a look may take *until* the deadline.
        """
        pause, looks = self.FIRST_PAUSE, [Look(turn) for turn in turns]
        while True:
            looks = await self._look(looks, min(until, self._clock.now() + self.LONGEST_LOOK))
            now = self._clock.now()
            moments = [self._next(look, now, give_up, at_most) for look in looks]
            due = [moment for moment in moments if moment is not None]
            if not due:
                return looks
            await self._pauses.wait(min(now + pause, *due) - now)
            if self._bounds.closed:
                return looks
            pause = min(2 * pause, self.LONGEST_PAUSE)

    def _next(self, look: Look, now: float, give_up: float, at_most: float) -> float | None:
        """Say when to look again at the latest; None where that is no use."""
        if look.is_final or look.turn.waived:
            return None
        proof = self._proof(look.turn)
        if look.seen is Seen.ABSENT and proof is not None and max(now, proof) <= give_up:
            return max(now, proof)
        last = at_most if look.seen is Seen.ALONE else give_up
        return last if now < last else None

    def _proof(self, turn: Turn) -> float | None:
        """Say from when on absence proves that the message of *turn* did not arrive."""
        if turn.from_api:
            return self._book.ended(turn)
        absent_after = self._profile.absent_after
        return None if absent_after is None else self._book.ended(turn) + absent_after

    async def _look(self, looks: Sequence[Look], until: float) -> list[Look]:
        """Look once, for all turns of *looks*, which are of one conversation, that are not clear."""
        open_ones = [look for look in looks if not look.is_final]
        if not open_ones:
            return list(looks)
        conversation_id = open_ones[0].turn.conversation_id
        begun, problem, messages = self._clock.now(), None, list[Message]()
        try:
            messages = await self._bounds.call(self._read(conversation_id), until=until)
        except ChatbridgeError as error:
            problem = error
        except ChatbridgeWarning as warning:  # Where warnings are errors.
            problem = BadAnswer(str(warning), provider=self._profile.name)
        history, equals = History(messages), _Equals(self._book.ledger, conversation_id)
        return [
            look
            if look.is_final
            else evolve(look, turn=await self._book.waived(look.turn), problem=problem)
            if problem is not None
            else await self._judge(look.turn, history, equals, begun)
            for look in looks
        ]

    async def _judge(self, turn: Turn, history: History, equals: _Equals, begun: float) -> Look:
        """Take in what a look that began at *begun* shows of *turn*."""
        trail = self._book.trails.get(turn.conversation_id)
        if trail is None and turn.baseline is not None:  # It went out long ago, or from a process that died.
            trail = Trail.recalled(turn, await equals.of(turn))
        found = find(turn, history, trail)
        seen, proof = found.seen, self._proof(turn)
        if seen is Seen.ANSWERED and _may_be_followed(turn, await equals.of(turn)):
            seen = Seen.MIXED
        if seen is Seen.ANSWERED:
            turn = await self._book.change(turn, TurnState.DELIVERED, reply=found.reply, partial="")
            _log.info("%s: message %s was found with its answer", self._profile.name, printable(turn.id))
        elif seen in THERE and turn.state is not TurnState.ACCEPTED:
            turn = await self._book.note(evolve(turn, state=TurnState.ACCEPTED), turn)
        elif seen is Seen.ABSENT and proof is not None and proof <= begun:
            if not turn.from_api:
                turn = evolve(turn, earlier=None)  # It would show, whichever of its sendings had arrived.
            turn = await self._book.change(turn, TurnState.NOT_SENT)
        else:
            turn = await self._book.waived(turn)
        return Look(turn, seen)


class _Equals:
    """
    The turns of one conversation by the texts of their messages, read once for one look.

    What the look shows of older ones does not matter to those that come after them.
    """

    def __init__(self, ledger: Ledger, conversation_id: str) -> None:
        self._ledger = ledger
        self._conversation_id = conversation_id
        self._turns: dict[bytes, list[Turn]] | None = None

    async def of(self, turn: Turn) -> Sequence[Turn]:
        """Give those of the text of *turn*, oldest first."""
        if self._turns is None:
            self._turns = {}
            for each in await self._ledger.turns(self._conversation_id):
                self._turns.setdefault(fingerprint(each.message), []).append(each)
        return self._turns.get(fingerprint(turn.message), ())


def _may_be_followed(turn: Turn, equals: Sequence[Turn]) -> bool:
    """Tell whether one of *equals*, which have the same text, may stand behind *turn*."""
    behind = turn.sends > 1
    for other in equals:
        if other.id == turn.id:
            behind = True
        elif behind and other.state not in OVER:
            return True
    return False
