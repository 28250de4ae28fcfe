"""What is done when a conversation is longer than its model takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from chatbridge.domain import Message, Role, ToolResult
from chatbridge.errors import ConfigError, UsageError
from chatbridge.text import quoted

__all__ = [
    "CONTEXT_LENGTH",
    "SHORTENED",
    "Overflow",
    "begins_turn",
    "drop_oldest",
    "from_first_turn",
    "made_shorter",
    "read_overflow",
    "without_first",
]

CONTEXT_LENGTH = "context_length_exceeded"
"""The code of an error by which an API says that a conversation is too long, whatever its own word is."""

Overflow = Callable[[Sequence[Message]], Sequence[Message] | Awaitable[Sequence[Message]]]
"""
Makes what was too long shorter: is given the messages that were refused, and gives those to send instead.

It may be asynchronous, to ask a model for a summary; its time is part of the message's. It asks in another
conversation: the one that it shortens waits for it.

They are a list of its own, and new messages may stand in their place, such as a summary. The last one is the
one to be answered: it stays the last, and is there once. To give back as many as there were, or none, is to
give up.
For one message it is called `SHORTENED` times at most, each time with what it gave before, so it should leave
out much at a time. What it raises goes to who sent the message. Only where a call of its own failed, took too
long or was cancelled is that not told as the fate of the message, which is that it was too long: a
ChatbridgeError, TimeoutError or CancelledError is the cause of the API's own error.
"""

SHORTENED = 12
"""How often a conversation that is too long is made shorter for one message."""


def begins_turn(message: Message) -> bool:
    """Tell whether a turn begins with *message*: the user's, unless it gives results of tools."""
    return message.role is Role.USER and not any(isinstance(part, ToolResult) for part in message.parts)


def without_first(messages: Sequence[Message], cut: int) -> list[Message]:
    """Leave out the first *cut* messages, but none of the system's."""
    return [*(message for message in messages[:cut] if message.role is Role.SYSTEM), *messages[cut:]]


def from_first_turn(messages: Sequence[Message]) -> list[Message] | None:
    """Leave out what comes before the first turn, but none of the system's; None where no turn begins."""
    begin = next((number for number, message in enumerate(messages) if begins_turn(message)), None)
    return None if begin is None else without_first(messages, begin)


def drop_oldest(messages: Sequence[Message]) -> Sequence[Message]:
    """
    Leave out the older half of the turns before the last one.

    A turn is the user's message and all up to the next one, so that calls of tools stay with their results.
    Messages of the system stay.
    """
    starts = [number for number, message in enumerate(messages) if begins_turn(message)]
    if not starts:
        return messages
    kept = (len(starts) - 1) // 2
    return without_first(messages, starts[len(starts) - 1 - kept])


def made_shorter(left: object, messages: Sequence[Message]) -> Sequence[Message] | None:
    """
    Give what a function for overflow has *left* of *messages*; None where it gives up.

    Raises:
        UsageError: It gives something else than messages that end with the one to be answered.
    """
    kind = type(left).__name__
    found = cast(Sequence[object], left) if isinstance(left, Sequence) else ()
    others = sorted({type(each).__name__ for each in found if not isinstance(each, Message)})
    if others or found is not left:
        raise UsageError(
            f"overflow gives a sequence of messages, and here it gave a {' of '.join((kind, *others[:1]))}"
        )
    shorter = cast(Sequence[Message], left)
    last = messages[-1]
    if not shorter:
        return None
    if shorter[-1] is not last or _times(last, shorter) > _times(last, messages):
        raise UsageError(
            "what overflow leaves of a conversation does not end with the message to be answered, or has it "
            "more than once"
        )
    return shorter if len(shorter) < len(messages) else None


def _times(message: Message, messages: Sequence[Message]) -> int:
    return sum(each is message for each in messages)


def read_overflow(overflow: object) -> Overflow | None:
    """
    Give the function that an option `overflow` stands for; None stands for the API's own error.

    Raises:
        ConfigError: It is neither a word that is known nor a function.
    """
    if overflow is None or overflow == "error":
        return None
    if overflow == "drop-oldest":
        return drop_oldest
    if callable(overflow):
        return cast(Overflow, overflow)
    raise ConfigError(
        "overflow is 'error', 'drop-oldest' or a function from messages to messages, not "
        f"{quoted(str(overflow))}"
    )
