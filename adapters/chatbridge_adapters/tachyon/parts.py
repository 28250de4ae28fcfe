"""
The parts of Tachyon's messages: stored ones as they are, streamed ones put together.

Sources: "Tachyon API 0.58.1" (document), and the server's documentation at commit 21a23c0.
"""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Mapping
from typing import Any, cast

from attrs import define, field

from chatbridge.domain import (
    Attachment,
    Opaque,
    Part,
    PartAdded,
    Reset,
    StreamEvent,
    Text,
    TextDelta,
    ToolCall,
    ToolResult,
)
from chatbridge.http import BrokenContent, Mender, Raw, TextFold, beyond, loads

NAME = "tachyon"


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


def to_part(content: str | Mapping[str, Any], mended: Mender) -> tuple[Part, dict[str, Any]]:
    """Say one part of a stored message in ours, and give what else the API tells with it."""
    if isinstance(content, str):
        return Text(content), {}
    part, known = _read(content, mended)
    return part, {} if isinstance(part, Opaque) else beyond(content, "type", *known)


def _read(content: Mapping[str, Any], mended: Mender) -> tuple[Part, tuple[str, ...]]:
    """Read a part; what is not as documented is kept whole."""
    match content:
        case {"type": "text", "text": str(text)}:
            return Text(text), ("text",)
        case {"type": "image", "image": str(url)}:
            return Attachment(_media_type(url, "image/*"), url=url), ("image",)
        case {"type": "file", "file": str(url)}:
            return Attachment(_media_type(url, "application/octet-stream"), url=url), ("file",)
        case {"type": "tool-call", "tool_call_id": str(call_id), "tool_name": str(name), "args": str(args)}:
            return to_tool_call(call_id, name, args, _unread(content), mended), (
                "tool_call_id", "tool_name", "args",
            )  # fmt: skip
        case {"type": "tool-result", "tool_call_id": str(call_id), "result": str(result)}:
            return ToolResult(call_id, result), ("tool_call_id", "result")
        case {"type": "attempt-completion", "result": str(result)}:
            return Text(result), ("result",)
        case _:
            return _unread(content), ()


def _unread(content: Mapping[str, Any]) -> Opaque:
    return Opaque(NAME, as_text(content.get("type")), content)


def _media_type(url: str, unknown: str) -> str:
    """Read the media type off a `data:` URL, or guess it by the end of another's path."""
    if url.startswith("data:"):
        return re.split("[;,]", url[5:], maxsplit=1)[0] or unknown
    name = re.split("[?#]", url, maxsplit=1)[0].rpartition("/")[2]
    return mimetypes.guess_type(name)[0] or unknown


@define
class PartsFold:
    """
    The parts of one answer, put together from its pieces, in the order in which they begin.

    Attributes:
        mended: Mends what is no piece of a text.
    """

    mended: Mender = field(factory=Mender)
    _parts: list[TextFold | Part | None] = field(factory=list[TextFold | Part | None])
    _reasons: list[str] = field(factory=list[str])

    @property
    def parts(self) -> tuple[Part, ...]:
        """What there is so far; a text that stays empty is none."""
        parts = (Text(part.shown) if isinstance(part, TextFold) else part for part in self._parts)
        return tuple(part for part in parts if part is not None and part != Text(""))

    @property
    def warnings(self) -> list[str]:
        """What had to be mended or taken back, each once."""
        of_texts = [each for part in self._parts if isinstance(part, TextFold) for each in part.warnings]
        halves = [Mender.WARNING] if self.mended.replaced else []
        return list(dict.fromkeys([*self._reasons, *of_texts, *halves]))

    def begin(self) -> int:
        """Begin a part that is no text, and give its index."""
        self._parts.append(None)
        return len(self._parts) - 1

    def last_text(self, *, fresh: bool = False) -> TextFold:
        """Give the text at the end; one begins where something else is there, or a *fresh* one is wanted."""
        last = self._parts[-1] if self._parts else None
        if isinstance(last, TextFold) and not fresh:
            return last
        text = TextFold(len(self._parts))
        self._parts.append(text)
        return text

    def put(self, part: Part, index: int | None = None) -> StreamEvent:
        """Put a part that is no text where it began, or at the end."""
        if index is None:
            index = self.begin()
        self._parts[index] = part
        return PartAdded(part, index)

    def take_back(self, text: TextFold, reason: str) -> list[StreamEvent]:
        """Take a text out of the answer, and show again what else there is."""
        self._parts[text.index] = None
        self._reasons.append(reason)
        shown: list[StreamEvent] = [Reset(reason)]
        for index, part in enumerate(self._parts):
            if isinstance(part, TextFold):
                shown.extend([TextDelta(part.shown, index)] if part.shown else [])
            elif part is not None:
                shown.append(PartAdded(part, index))
        return shown

    def finish(self) -> list[StreamEvent]:
        """End the texts."""
        return [event for part in self._parts if isinstance(part, TextFold) for event in part.finish()]
