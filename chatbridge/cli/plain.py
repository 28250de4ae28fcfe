"""
What `--json` prints: domain values as plain JSON.

A value becomes an object with its fields as keys; times are RFC 3339 in UTC, enums their values, bytes
base64. A message has `text` besides, and each of its parts a `type`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, cast

from attrs import asdict, evolve, has

from chatbridge.domain import (
    Attachment,
    Conversation,
    Message,
    Opaque,
    Reasoning,
    Reply,
    Text,
    ToolCall,
    ToolResult,
)

__all__ = ["Json", "plain", "plain_reply", "time_text"]

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
"""What JSON can say."""

_PARTS = (Attachment, Opaque, Reasoning, Text, ToolCall, ToolResult)


def time_text(moment: datetime) -> str:
    """Write a time as in RFC 3339."""
    return moment.isoformat().replace("+00:00", "Z")


def kind_of(part: object) -> str:
    """Name the type of a part, such as ``tool_call``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(part).__name__).lower()


def plain(value: object) -> Json:
    """Say *value* in plain JSON."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, datetime):
        return time_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in cast(Mapping[object, object], value).items()}
    if isinstance(value, set | frozenset):
        return [*sorted(map(str, cast(Iterable[object], value)))]
    if isinstance(value, list | tuple):
        return [plain(each) for each in cast(Iterable[object], value)]
    if has(type(value)):
        fields = asdict(cast(Any, value), recurse=False)
        return _marks(value) | {name: plain(each) for name, each in fields.items()}
    return str(value)


def _marks(value: object) -> dict[str, Json]:
    if isinstance(value, Message):
        return {"text": value.text}
    return {"type": kind_of(value)} if isinstance(value, _PARTS) else {}


def plain_reply(reply: Reply, conversation: Conversation) -> Json:
    """Say *reply* in plain JSON, with its text, and its conversation's id and warnings."""
    reply = evolve(reply, warnings=(*conversation.warnings, *reply.warnings))
    shown = asdict(reply, recurse=False)
    return {"conversation_id": conversation.id, "text": reply.text} | {
        name: plain(value) for name, value in shown.items()
    }
