"""The error of a message, made to say no less than what is known of the message."""

from __future__ import annotations

from typing import Final, cast

from attrs import frozen

from chatbridge.errors import (
    AnswerLost,
    AnswerLostTimeout,
    ChatbridgeError,
    DeliveryUnknown,
    DeliveryUnknownTimeout,
    Facts,
    NotSent,
    NotSentTimeout,
    Outcome,
    ProviderFailed,
)
from chatbridge.settling import Seen
from chatbridge.turns import Turn, TurnState

__all__ = ["THERE", "Look", "after_looking", "no_less_than", "not_there"]

THERE: Final = frozenset({Seen.ALONE, Seen.FAILED, Seen.MIXED})
_CLEAR: Final = frozenset({Seen.ANSWERED, Seen.FAILED, Seen.MIXED})
_HARMLESS: Final = frozenset({Outcome.NOT_SENT, Outcome.REFUSED})


@frozen
class Look:
    """What looking for a turn's message came to; *problem* is why the conversation could not be read."""

    turn: Turn
    seen: Seen | None = None
    problem: ChatbridgeError | None = None

    @property
    def is_final(self) -> bool:
        """Whether another look can show no more."""
        if self.seen is Seen.ALONE and self.turn.from_api:
            return True  # The API itself has said that there will be no answer.
        if self.problem is not None:
            return not self.problem.retryable
        return self.seen in _CLEAR or self.turn.state is TurnState.NOT_SENT


def no_less_than(turn: Turn, error: ChatbridgeError) -> ChatbridgeError:
    """Give *error*, or where it says that nothing was done and *turn* tells otherwise, one that does not."""
    if error.outcome not in _HARMLESS:
        return error
    facts = _facts_of(error)
    if turn.state is TurnState.UNKNOWN:
        kind = DeliveryUnknownTimeout if error.timed_out else DeliveryUnknown
        text = f"{error}; but an earlier attempt to send the message may have succeeded"
        return _noted(kind(text, kind="lost", **facts), error)
    if turn.state is TurnState.ACCEPTED:
        text = f"{error}; but the message is in the conversation"
        return _noted(AnswerLost(text, kind="cut", partial=turn.partial, **facts), error)
    return error


def after_looking(error: ChatbridgeError, look: Look) -> ChatbridgeError:
    """Give the error that says what is known after looking, with what is noted on the first."""
    better = no_less_than(look.turn, _better(error, look))
    return better if better is error else _noted(better, error)


def not_there(error: ChatbridgeError) -> ChatbridgeError:
    """Give *error*, or where it leaves open whether its message arrived, one that says that nothing stays."""
    if error.outcome is not Outcome.UNKNOWN:
        return error
    kind = NotSentTimeout if error.timed_out else NotSent
    text = f"{error}; nothing was added to the conversation, and the message may be sent again"
    return _noted(kind(text, **_facts_of(error)), error)


def _better(error: ChatbridgeError, look: Look) -> ChatbridgeError:
    if look.turn.state is TurnState.NOT_SENT and error.outcome is not Outcome.NOT_SENT:
        return NotSent(f"{error}; the message is not in the conversation", **_facts_of(error))
    if look.seen not in THERE or not isinstance(error, DeliveryUnknown):
        return error
    facts, there = _facts_of(error), f"{error}; the message is in the conversation"
    if look.seen is Seen.MIXED:
        return AnswerLost(f"{there}, and its answer cannot be told from others", kind="cut", **facts)
    if error.from_api or look.seen is Seen.FAILED:
        return ProviderFailed(f"{there}, without an answer", kind="provider", **facts)
    return AnswerLostTimeout(f"{there}, and its answer did not come in time", kind="idle", **facts)


def _noted(error: ChatbridgeError, first: ChatbridgeError) -> ChatbridgeError:
    for note in getattr(first, "__notes__", ()):
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    return error


def _facts_of(error: ChatbridgeError) -> Facts:
    names = Facts.__annotations__
    return cast(Facts, {name: value for name, value in vars(error).items() if name in names})
