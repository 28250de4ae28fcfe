"""The turns of one bridge, as they are written down and told of."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypedDict, Unpack

from attrs import evolve, frozen

from chatbridge.clock import Clock
from chatbridge.domain import Message, Reply, Text
from chatbridge.errors import StoreError
from chatbridge.history.ledger import Ledger
from chatbridge.observe import run_hook
from chatbridge.text import printable
from chatbridge.trails import Trails
from chatbridge.turns import Turn, TurnEvent, TurnState

__all__ = ["OVER", "Book", "OnTurn"]

_log = logging.getLogger("chatbridge.turns")

OnTurn = Callable[[TurnEvent], object]
"""Is told of every change of a turn."""

# What is the same however often it is tried.
_FINAL: Final = frozenset({"value", "taken"})

OVER: Final = frozenset({TurnState.NOT_SENT, TurnState.REFUSED})
"""The states of messages that certainly are not in the conversation."""


class _Changes(TypedDict, total=False):
    partial: str
    from_api: bool
    reply: Reply | None


@frozen
class _Late:
    """What is known of a turn that was sent so often and could not be recorded, and why."""

    turn: Turn
    sends: int
    answer: Reply | None
    problem: StoreError


class Book:
    """
    Writes turns into a ledger and into the trails of their conversations, and tells of each change.

    Attributes:
        ledger: What keeps the turns.
        trails: What is known to be in each conversation.
        on_turn: Is told of each change; of a new turn before its message leaves.
    """

    # Of how many messages in doubt it is remembered when they were last under way.
    KNOWN = 1000

    def __init__(
        self, provider: str, ledger: Ledger, trails: Trails, clock: Clock, on_turn: OnTurn | None
    ) -> None:
        self.ledger = ledger
        self.trails = trails
        self._provider = provider
        self._clock = clock
        self.on_turn = on_turn
        self._ends: OrderedDict[str, float] = OrderedDict()
        self._late: dict[str, _Late] = {}
        # Why answers were stored without what no store takes; the last of them.
        self._reduced: OrderedDict[str, StoreError] = OrderedDict()

    def ended(self, turn: Turn) -> float:
        """Say when *turn* was last under way; it may have been until now where that is not remembered."""
        return self._ends.setdefault(turn.id, self._clock.now())

    async def change(
        self,
        turn: Turn,
        state: TurnState,
        answer: Reply | None = None,
        *,
        last: bool = False,
        **changes: Unpack[_Changes],
    ) -> Turn:
        """
        Note that *turn* is in *state*, by its *answer*.

        With the *last* word on it, its conversation is released.
        """
        after = self.become(turn, state, **changes)
        return await self.note(after, turn, answer, last=last)

    def become(self, turn: Turn, state: TurnState, **changes: Unpack[_Changes]) -> Turn:
        """Give *turn* as it is in *state* from now on; one sent again in vain is as it was before."""
        if state in OVER and turn.earlier is not None:
            # This time it did not arrive; what was known of the times before is known still.
            turn, changes = turn.earlier, {}
            state = turn.state
        if state in {TurnState.UNKNOWN, TurnState.ACCEPTED}:
            self._ends[turn.id] = self._clock.now()
            if len(self._ends) > self.KNOWN:
                self._ends.popitem(last=False)
        else:
            self._ends.pop(turn.id, None)
        return evolve(turn, state=state, **changes)

    async def waived(self, turn: Turn) -> Turn:
        """Take in that the caller has waived *turn* meanwhile."""
        try:
            known = await self.ledger.find(turn.conversation_id, turn.id)
        except StoreError:
            return turn  # What cannot be read now will be read before the turn is written.
        return evolve(turn, waived=True) if known is not None and known.waived else turn

    async def record(self, turn: Turn, before: Turn | None) -> Turn:
        """
        Record *turn* in place of what it was *before*.

        Raises:
            StoreError: The ledger cannot take it.
        """
        self.trails.record(turn, before)
        return self._told(await self.ledger.record(turn), before)

    async def waive(self, turn: Turn) -> Turn:
        """
        Record that the doubt about *turn* may stand, whatever else has become known of it meanwhile.

        Raises:
            StoreError: The ledger cannot take it.
        """
        return self._told(await self.ledger.waive(turn.conversation_id, turn.id) or turn, turn)

    async def note(
        self, turn: Turn, before: Turn, answer: Reply | None = None, *, last: bool = False
    ) -> Turn:
        """
        Record what became of a message; what the ledger does not take now is recorded by `catch_up`.

        What it never takes is left out. A message whose answer it does not take, since another process has
        the conversation now, is not in it.
        """
        self.trails.record(turn, before)
        try:
            turn = await self._write(turn, before.sends, answer, last=last)
        except StoreError as error:
            if error.kind not in _FINAL:
                self._late[turn.id] = _Late(turn, before.sends, answer, error)
            else:
                self._late.pop(turn.id, None)
                self._reduced[turn.id] = error
                if len(self._reduced) > self.KNOWN:
                    self._reduced.popitem(last=False)
            turn = self._unstored(turn, error)
        else:
            self._late.pop(turn.id, None)
        return self._told(turn, before)

    async def _write(self, turn: Turn, sends: int, answer: Reply | None, *, last: bool) -> Turn:
        """
        Record *turn* and its *answer*.

        Raises:
            StoreError: Of kind "value" where something of it can never be written: the rest of it is, if
                there is an answer. Without one, the message is at fault, and is not recorded at all.
        """
        try:
            return await self.ledger.record(turn, answer, last=last, sends=sends)
        except StoreError as error:
            if error.kind != "value":
                raise
            problem = error
        whole = turn.reply if answer is None else answer
        for rest in () if whole is None else (_texts_of(whole), None):
            try:
                reduced = evolve(turn, reply=turn.reply and rest)
                await self.ledger.record(reduced, rest, last=last, sends=sends)
                break
            except StoreError as error:
                if error.kind != "value":
                    raise
        raise problem

    def _unstored(self, turn: Turn, problem: StoreError) -> Turn:
        """Log that *turn* could not be recorded, and give it as it is then."""
        _log.warning(
            "%s: message %s is %s, which could not be stored: %s",
            self._provider,
            printable(turn.id),
            turn.state.value,
            problem,
        )
        return evolve(turn, state=TurnState.NOT_SENT) if problem.kind == "taken" else turn

    def problem(self, turn: Turn) -> StoreError | None:
        """Say why *turn* is not recorded as it is; None if it is."""
        late = self._late.get(turn.id)
        return self._reduced.pop(turn.id, None) if late is None else late.problem

    @property
    def late(self) -> set[str]:
        """The conversations of what the ledger did not take at its time."""
        return {late.turn.conversation_id for late in self._late.values()}

    async def catch_up(self, conversation_id: str | None = None) -> None:
        """
        Record what the ledger did not take at its time, of one conversation or of all.

        A conversation that is still held is not released by it.

        Raises:
            StoreError: It still does not take all of it.
        """
        problem: StoreError | None = None
        for late in tuple(self._late.values()):
            if conversation_id in {None, late.turn.conversation_id}:
                last, final = not self.ledger.holds(late.turn.conversation_id), None
                try:
                    await self._write(late.turn, late.sends, late.answer, last=last)
                except StoreError as error:
                    if error.kind not in _FINAL:
                        problem = problem or error
                        continue
                    final = error
                if self._late.get(late.turn.id) is late:
                    del self._late[late.turn.id]
                    if final is not None:
                        turn = self._unstored(late.turn, final)
                        if turn.state is not late.turn.state:
                            self._told(turn, late.turn)
        if problem is not None:
            raise problem

    def _told(self, turn: Turn, before: Turn | None) -> Turn:
        if self.on_turn is not None:
            state = None if before is None or turn.state is TurnState.PENDING else before.state
            run_hook(self.on_turn, TurnEvent(self._provider, turn, state))
        return turn

    def warn(self, turn: Turn, why: str) -> None:
        """Log that *turn* is in doubt, if it is."""
        if turn.state is TurnState.UNKNOWN:
            _log.warning(
                "%s: whether message %s arrived in conversation %s is not known: %s",
                self._provider,
                printable(turn.id),
                printable(turn.conversation_id),
                why,
            )


def _texts_of(reply: Reply) -> Reply:
    """Give the texts of *reply*, which any store takes."""
    return Reply(
        tuple(
            Message(
                message.role, tuple(part for part in message.parts if isinstance(part, Text)), id=message.id
            )
            for message in reply.messages
        ),
        recovered=reply.recovered,
    )
