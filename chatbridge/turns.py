"""
Turns: each message to a conversation, and what is known of its delivery.

A turn is recorded before anything of it leaves, and again whenever more is known. What keeps them is a
`Ledger`; the one here forgets them with the bridge.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from attrs import frozen

from chatbridge.domain import Message, Reply

__all__ = ["Ledger", "MemoryLedger", "Turn", "TurnEvent", "TurnState"]


class TurnState(StrEnum):
    """
    What is known of a message.

    It begins as `pending`. It is `delivered` with its answer, `refused` by the server, certainly `not_sent`
    (so not in the conversation), `accepted` with its answer lost or cut short, or `unknown`.
    """

    PENDING = "pending"
    DELIVERED = "delivered"
    REFUSED = "refused"
    NOT_SENT = "not_sent"
    ACCEPTED = "accepted"
    UNKNOWN = "unknown"


@frozen
class Turn:
    """
    One message of the user's to a conversation, and what became of it.

    Attributes:
        id: The message's id, made before anything left.
        message: As it went out.
        started_at: When it went out first, by the clock of this machine.
        partial: The text of the answer that had arrived, if it broke off.
        reply: The answer, where it was found by reading the conversation back.
        from_api: Whether the API itself reported a failure.
        waived: Whether the caller has said that the doubt may stand.
        baseline: How many messages of the same text were in the conversation before it, for certain and
            perhaps; None where that is not known.
        sends: How often it was sent and may have arrived: more than once only by `resend`.
        earlier: The turn as it was before it was sent again.
    """

    id: str
    conversation_id: str
    message: Message
    started_at: datetime
    state: TurnState = TurnState.PENDING
    partial: str = ""
    reply: Reply | None = None
    from_api: bool = False
    waived: bool = False
    baseline: tuple[int, int] | None = None
    sends: int = 1
    earlier: Turn | None = None

    @property
    def unsettled(self) -> bool:
        """Whether reading the conversation back could tell more of it."""
        return self.state in _UNSETTLED

    @property
    def blocks(self) -> bool:
        """Whether the next message to the conversation must wait for a word on this one."""
        return self.state in _IN_DOUBT and not self.waived


_IN_DOUBT = frozenset({TurnState.PENDING, TurnState.UNKNOWN})
_UNSETTLED = _IN_DOUBT | {TurnState.ACCEPTED}


@frozen
class TurnEvent:
    """
    A turn has changed; what hooks are told.

    Attributes:
        provider: The backend's name.
        turn: As it is now.
        before: Its state before; None when it begins.
    """

    provider: str
    turn: Turn
    before: TurnState | None


class Ledger(Protocol):
    """What keeps turns."""

    async def record(self, turn: Turn, answer: Reply | None = None) -> None:
        """Keep *turn*, in place of what is kept under its id, and where histories are kept its *answer*."""
        ...

    async def find(self, conversation_id: str, turn_id: str) -> Turn | None:
        """Give a turn; None where it is not known."""
        ...

    async def turns(self, conversation_id: str) -> Sequence[Turn]:
        """Give the turns of a conversation, oldest first."""
        ...

    async def unsettled(self, conversation_id: str) -> Sequence[Turn]:
        """Give those of them that are pending, unknown or accepted, oldest first."""
        ...


class MemoryLedger:
    """
    Keeps turns for as long as the program runs.

    Of those that block nothing it keeps the last thousand, over all conversations.
    """

    KEPT = 1000

    def __init__(self) -> None:
        self._turns: dict[str, dict[str, Turn]] = {}
        self._unsettled: dict[str, dict[str, Turn]] = {}
        self._may_go: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def record(self, turn: Turn, answer: Reply | None = None) -> None:  # noqa: ARG002 - no histories here
        """Keep *turn*, in place of what is kept under its id."""
        self._turns.setdefault(turn.conversation_id, {})[turn.id] = turn
        if turn.unsettled:
            self._unsettled.setdefault(turn.conversation_id, {})[turn.id] = turn
        else:
            _remove(self._unsettled, turn.conversation_id, turn.id)
        place = turn.conversation_id, turn.id
        if turn.blocks:
            self._may_go.pop(place, None)
            return
        self._may_go[place] = None
        if len(self._may_go) > self.KEPT:
            oldest, _ = self._may_go.popitem(last=False)
            _remove(self._turns, *oldest)
            _remove(self._unsettled, *oldest)

    async def find(self, conversation_id: str, turn_id: str) -> Turn | None:
        """Give a turn; None where it is not known."""
        return self._turns.get(conversation_id, {}).get(turn_id)

    async def turns(self, conversation_id: str) -> Sequence[Turn]:
        """Give the turns of a conversation, oldest first."""
        return tuple(self._turns.get(conversation_id, {}).values())

    async def unsettled(self, conversation_id: str) -> Sequence[Turn]:
        """Give those of them that are pending, unknown or accepted, oldest first."""
        return tuple(self._unsettled.get(conversation_id, {}).values())


def _remove(turns: dict[str, dict[str, Turn]], conversation_id: str, turn_id: str) -> None:
    kept = turns.get(conversation_id)
    if kept is not None and kept.pop(turn_id, None) is not None and not kept:
        del turns[conversation_id]
