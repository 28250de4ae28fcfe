"""
Turns: each message to a conversation, and what is known of its delivery.

A turn is recorded before anything of it leaves, and again whenever more is known, in a store
(`chatbridge.history`).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from attrs import frozen

from chatbridge.domain import Message, Reply

__all__ = ["Turn", "TurnEvent", "TurnState"]


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
