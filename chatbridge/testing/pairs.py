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
        UsageError: The last message has a result of a call that was not made right before it, or two of one.
    """
    warnings: list[str] = []
    made: set[str] = set()
    latest: list[ToolCall] = []
    answered: set[str] = set()
    for by_model, run in groupby(messages, lambda message: message.role is Role.ASSISTANT):
        parts = [part for message in run for part in message.parts]
        if by_model:
            latest = [part for part in parts if isinstance(part, ToolCall)]
            made |= {call.id for call in latest}
            answered = set()
        for part in parts:
            if by_model or not isinstance(part, ToolResult):
                continue
            answered.add(part.call_id)
            if part.call_id not in made:
                why = f"a result of the call {part.call_id!r}, which was not made right before it"
                warnings.append(f"left out of the history: {why}")
    _check_results(messages[-1], latest, name)
    unanswered = (call.name for call in latest if call.id not in answered)
    warnings += [
        f"a call of the tool {tool!r} was never answered; the model is told so" for tool in unanswered
    ]
    return list(dict.fromkeys(warnings))


def _check_results(message: Message, calls: Sequence[ToolCall], name: str) -> None:
    """Refuse results of none of *calls*, and a second one of any."""
    waiting = [call.id for call in calls]
    for part in message.parts:
        if message.role is Role.ASSISTANT or not isinstance(part, ToolResult):
            continue
        if part.call_id in waiting:
            waiting.remove(part.call_id)
            continue
        known = any(call.id == part.call_id for call in calls)
        why = "which has a result already" if known else "which was not made right before it"
        raise UsageError(f"{name} cannot be sent a result of the call {part.call_id!r}, {why}", provider=name)
