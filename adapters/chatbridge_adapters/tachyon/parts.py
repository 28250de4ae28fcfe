"""
What the messages of Tachyon hold, stored or streamed: JSON read leniently, and its parts in ours.

Sources: "Tachyon API 0.58.1" (document), and the server's documentation at commit 21a23c0.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from chatbridge.domain import Attachment, Opaque, Part, Progress, Text, ToolCall, ToolResult
from chatbridge.http import BrokenContent, Frame, Mender, Raw, beyond, loads

NAME = "tachyon"
DONE = "[DONE]"


def as_object(value: object) -> Mapping[str, Any]:
    """Give an object as it is, and an empty one for other JSON."""
    return cast(Mapping[str, Any], value) if isinstance(value, dict) else {}


def as_list(content: object) -> list[Any]:
    """Give a content, which is one part or a list of them, as a list; nothing is none."""
    parts: list[Any] = cast(Any, content) if isinstance(content, list) else [content]
    return [part for part in parts if part is not None]


def as_text(value: object) -> str:
    """Give a text as it is, nothing as an empty one, and other JSON written out."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def read_loosely(data: bytes) -> object:
    """Read JSON, or text where it is none; nothing is None."""
    if not data:
        return None
    with suppress(BrokenContent):
        return loads(data)
    return data.decode("utf-8", "replace")


def read_fields(frame: Frame) -> Mapping[str, Any]:
    """Read an object, whatever the data of *frame* is: what is none is its `message`."""
    value = read_loosely(frame.data.strip())
    fields = as_object(value)
    return fields if value is None or fields is value else {"message": value}


def tells_failure(fields: Mapping[str, Any]) -> bool:
    """Tell whether the data of an event that is not named so is an error all the same."""
    told = (fields.get("message"), fields.get("error"))
    return fields.get("type") == "error" or any(each is not None for each in told)


def to_progress(beside: Raw, mended: Mender) -> Progress:
    """Say an event that is no part of an answer in ours."""
    data = mended(beside)
    return Progress(as_text(data.get("type")), data)


def beside_usage(usage: Raw) -> dict[str, Any]:
    """Pick for `extra` what the API tells of usage beyond our model."""
    more = beyond(
        usage,
        "type",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cache_read_input_tokens",
        "total_cost",
    )
    return {"usage": more} if more else {}


def to_opaque(content: object) -> Opaque:
    """Keep whole what is no part of ours."""
    return Opaque(NAME, as_text(as_object(content).get("type")), content)


def to_tool_call(
    call_id: str, name: str, arguments: str, unread: Opaque, mended: Mender
) -> ToolCall | Opaque:
    """Say a call of a tool in ours; *unread* stands for it where its arguments are no JSON object."""
    try:
        value: object = loads(mended(arguments).encode()) if arguments.strip() else {}
    except BrokenContent:
        return unread
    if not isinstance(value, dict):
        return unread
    return ToolCall(mended(call_id), mended(name), mended(cast(dict[str, Any], value)))


def to_part(content: object, mended: Mender) -> tuple[Part, dict[str, Any]]:
    """Say one part of a stored message in ours, and give what else the API tells with it."""
    if isinstance(content, str):
        return Text(content), {}
    fields = as_object(content)
    part, known = _read(fields, mended)
    if part is None or isinstance(part, Opaque):
        return to_opaque(content), {}
    return part, beyond(fields, "type", *known)


def _read(content: Mapping[str, Any], mended: Mender) -> tuple[Part | None, tuple[str, ...]]:
    """Read a part, and name its fields; None for what is not as documented."""
    match content:
        case {"type": "text", "text": str(text)}:
            return Text(text), ("text",)
        case {"type": "image", "image": str(url)}:
            return Attachment(_media_type(url, "image/*"), url=url), ("image",)
        case {"type": "file", "file": str(url)}:
            return Attachment(_media_type(url, "application/octet-stream"), url=url), ("file",)
        case {"type": "tool-call", "tool_call_id": str(call_id), "tool_name": str(name), **rest}:
            call = to_tool_call(call_id, name, as_text(rest.get("args")), to_opaque(content), mended)
            return call, ("tool_call_id", "tool_name", "args")
        case {"type": "tool-result", "tool_call_id": str(call_id), "result": result, **rest}:
            failed = rest.get("is_error") is True
            return ToolResult(call_id, as_text(result), is_error=failed), (
                "tool_call_id", "result", "is_error",
            )  # fmt: skip
        case {"type": "attempt-completion", "result": result}:
            return Text(as_text(result)), ("result",)
        case _:
            return None, ()


def _media_type(url: str, unknown: str) -> str:
    """Read the media type off a `data:` URL, or guess it by the end of another's path."""
    if url.startswith("data:"):
        return re.split("[;,]", url[5:], maxsplit=1)[0] or unknown
    name = re.split("[?#]", url, maxsplit=1)[0].rpartition("/")[2]
    return mimetypes.guess_type(name)[0] or unknown
