"""
What the messages of Tachyon hold, stored or streamed, and its parts in ours.

Sources: "Tachyon API 0.58.1" (document), and the server's documentation at commit 21a23c0.
"""

from __future__ import annotations

import mimetypes
import re
from collections.abc import Mapping
from typing import Any

from chatbridge.domain import Attachment, Opaque, Part, Text, ToolResult
from chatbridge.http import Mender, as_object, as_text, beyond, to_tool_call

NAME = "tachyon"


def to_opaque(content: object) -> Opaque:
    """Keep whole what is no part of ours."""
    return Opaque(NAME, as_text(as_object(content).get("type")), content)


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
