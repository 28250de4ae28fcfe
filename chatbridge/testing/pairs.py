"""Calls of tools and their results in a history, as the adapters of APIs that keep nothing see to them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from chatbridge.domain import Message, Role, ToolCall, ToolResult
from chatbridge.errors import UsageError

__all__ = ["unpaired"]


def unpaired(messages: Sequence[Message], name: str) -> list[str]:
    """
    Warn of results that answer no call, and of the latest calls, if nothing answered them.

    Args:
        messages: The history, and last what is to be answered.
        name: The backend's.

    Raises:
        UsageError: The last message has a result of a call that was not made right before it.
    """
    warnings: list[str] = []
    made: set[str] = set()
    latest: dict[str, str] = {}
    answered: set[str] = set()
    for by_model, run in groupby(messages, lambda message: message.role is Role.ASSISTANT):
        parts = [(message, part) for message in run for part in message.parts]
        if by_model:
            latest = {part.id: part.name for _, part in parts if isinstance(part, ToolCall)}
            made |= latest.keys()
            answered = set()
        for message, part in parts:
            if by_model or not isinstance(part, ToolResult):
                continue
            is_newest = message is messages[-1]
            answered.add(part.call_id)
            if part.call_id not in (latest if is_newest else made):
                why = f"a result of the call {part.call_id!r}, which was not made right before it"
                if is_newest:
                    raise UsageError(f"{name} cannot be sent {why}", provider=name)
                warnings.append(f"left out of the history: {why}")
    unanswered = (tool for call_id, tool in latest.items() if call_id not in answered)
    warnings += [
        f"a call of the tool {tool!r} was never answered; the model is told so" for tool in unanswered
    ]
    return list(dict.fromkeys(warnings))
