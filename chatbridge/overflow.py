"""What is done when a conversation is longer than its model takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from typing import cast

from chatbridge.domain import Message, Role, ToolResult
from chatbridge.errors import ConfigError

__all__ = [
    "CONTEXT_LENGTH",
    "Overflow",
    "begins_turn",
    "drop_oldest",
    "from_first_turn",
    "read_overflow",
    "without_first",
]

CONTEXT_LENGTH = "context_length_exceeded"
"""The code of an error by which an API says that a conversation is too long, whatever its own word is."""

Overflow = Callable[[Sequence[Message]], Sequence[Message]]
"""
Makes what was too long shorter: is given the messages that were refused, and gives those to send instead.

The last message is the one to be answered, and stays. To give back as many as there were is to give up.
"""


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


def read_overflow(overflow: object) -> Overflow | None:
    """
    Give the function that an option `overflow` stands for; None stands for the API's own error.

    Raises:
        ConfigError: It is neither a word that is known nor a plain function.
    """
    if overflow is None or overflow == "error":
        return None
    if overflow == "drop-oldest":
        return drop_oldest
    if callable(overflow) and not iscoroutinefunction(overflow):
        return cast(Overflow, overflow)
    kind = "coroutine function" if callable(overflow) else type(overflow).__name__
    raise ConfigError(
        f"overflow is 'error', 'drop-oldest' or a plain function from messages to messages, not a {kind}"
    )
