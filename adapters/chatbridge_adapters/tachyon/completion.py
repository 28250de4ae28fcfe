"""
What travels when a chatroom is asked for a completion, whole or as server-sent events.

Sources: "Tachyon API 0.58.1" (document), and the server's documentation at commit 21a23c0, which alone shows
the stream. The document declares the form of a chunk for whole answers too; both forms are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from attrs import Attribute, define, field, frozen

from chatbridge.domain import Message, Opaque, Reply, Role, StreamEvent, ToolResult, Usage
from chatbridge.http import BrokenContent, Frame, Raw, beyond, keep_raw, loads, to_finish_reason, to_usage
from chatbridge_adapters.tachyon.parts import (
    NAME,
    PartsFold,
    as_list,
    as_object,
    as_text,
    beside_usage,
    to_tool_call,
)

DONE = "[DONE]"


@frozen
class RequestMessage:
    """A message to a room."""

    role: str
    content: str


@frozen(kw_only=True)
class CompletionRequest:
    """A message to answer; what is left out is up to the server."""

    messages: list[RequestMessage]
    model: str | None = None
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    max_completion_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    tools: list[Mapping[str, Any]] | None = None
    tool_choice: str | None = None
    response_format: Mapping[str, Any] | None = None
    user: str | None = None
    memory_settings: Mapping[str, Any] | None = None
    communication_style: str | None = None
    explanation_style: str | None = None
    technical_level: str | None = None


def _text_or_list(_: object, __: Attribute[Any], value: object) -> None:
    if not isinstance(value, str | list | None):
        raise TypeError("expected a text or a list")


@define
class Said:
    """What a choice says: a message, or what a chunk adds to it. `content` may be a list of parts."""

    role: str | None = None
    content: Any = field(default=None, validator=_text_or_list)
    tool_calls: list[Mapping[str, Any]] | None = None
    raw: Raw = keep_raw()


@define
class Choice:
    """One answer; only one is asked for."""

    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None
    raw: Raw = keep_raw()


@define
class Chunk:
    """
    One event of a streamed answer.

    Attributes:
        error: What failed; then there is no more.
        object: `[DONE]` stands for the end mark.
    """

    choices: list[Choice] | None = field(default=None, kw_only=True)
    model: str | None = None
    usage: Raw | None = None
    error: Any = None
    object: Any = None
    raw: Raw = keep_raw()


def _says_something(_: object, __: Attribute[Any], value: list[Choice] | None) -> None:
    if not value or (value[0].message is None and value[0].delta is None):
        raise TypeError("expected a choice with a message")


@define
class Completion(Chunk):
    """A whole answer."""

    choices: list[Choice] | None = field(kw_only=True, validator=_says_something)


def read_event(frame: Frame) -> object:
    """
    Make of an event what a `Chunk` is built from: the end mark and failures are no chunks.

    Raises:
        BrokenContent: Its data is not JSON.
    """
    data = frame.data.strip()
    if data == DONE.encode():
        return {"object": DONE}
    if frame.name == "error":
        return {"error": read_loosely(data) or {}}
    value: object = loads(data) if data else {}
    fields = as_object(value)
    if "message" in fields and "choices" not in fields:
        return {"error": value}  # One whose event has no name.
    return value


def read_loosely(data: bytes) -> object:
    """Read JSON, or text where it is none."""
    with suppress(BrokenContent):
        return loads(data)
    return data.decode("utf-8", "replace")


def _words(part: object) -> str | None:
    """Give the text of a part; None where it is no text."""
    match part:
        case str(text) | {"type": "text", "text": str(text)}:
            return text
        case _:
            return None


@define
class _Call:
    """A call of a tool whose pieces arrive."""

    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(factory=list[str])

    def add(self, piece: Mapping[str, Any]) -> None:
        given = as_object(piece.get("function"))
        self.id = as_text(piece.get("id")) or self.id
        self.name = as_text(given.get("name")) or self.name
        self.arguments.append(as_text(given.get("arguments")))


@define
class CompletionFold:
    """
    An answer, put together from a stream or taken whole.

    A delta with content but no role is what a tool on the server gave; it belongs to the last call before it.
    """

    model: str | None = None
    _usage: Usage | None = None
    _reason: str | None = None
    _parts: PartsFold = field(factory=PartsFold)
    _calls: dict[int, _Call] = field(factory=dict[int, _Call])
    _called: str = ""
    _told: dict[str, Any] = field(factory=dict[str, Any])
    _of_chunks: dict[str, Any] = field(factory=dict[str, Any])
    _of_choices: dict[str, Any] = field(factory=dict[str, Any])
    _of_messages: dict[str, Any] = field(factory=dict[str, Any])

    def take(self, chunk: Chunk, *, whole: bool = False) -> list[StreamEvent]:
        """Take a chunk, or a *whole* answer, and tell what it adds."""
        if chunk.model != self.model:
            self.model = self._parts.mended(chunk.model) or self.model
        if chunk.usage is not None:
            self._usage = to_usage(chunk.usage) or self._usage
            self._told |= beside_usage(chunk.usage)
        self._of_chunks.update(chunk.raw)  # What is known of it is picked out once, at the end.
        if not chunk.choices:
            return []
        choice = chunk.choices[0]
        self._reason = choice.finish_reason or self._reason
        self._of_choices.update(choice.raw)
        if choice.message is not None:
            return self._take(choice.message, whole=True)
        return [] if choice.delta is None else self._take(choice.delta, whole=whole)

    def finish(self) -> list[StreamEvent]:
        """End the answer."""
        return [*self._complete(), *self._parts.finish()]

    def reply(self) -> Reply:
        """Give the answer, once it has ended."""
        mended = self._parts.mended
        of_message = beyond(self._of_messages, "role", "content", "tool_calls")
        message = Message(Role.ASSISTANT, self._parts.parts, extra=mended(of_message))
        reason = mended(self._reason)
        extra = mended({
            **beyond(self._of_chunks, "object", "model", "choices", "usage"),
            **beyond(self._of_choices, "index", "delta", "message", "finish_reason"),
            **self._told,
        })  # fmt: skip
        return Reply(
            (message,),
            finish_reason=to_finish_reason(reason),
            raw_finish_reason=reason,
            usage=self._usage,
            model=self.model,
            warnings=self._parts.warnings,
            extra=extra,
        )

    def _take(self, said: Said, *, whole: bool) -> list[StreamEvent]:
        self._of_messages.update(said.raw)
        events: list[StreamEvent] = []
        if said.content:
            events = self._complete()
            result = said.role == "tool" or (said.role is None and not whole)
            events.extend(self._give(said.content) if result else self._say(said.content))
        for position, piece in enumerate(said.tool_calls or ()):
            events.extend(self._call(position, piece))
        return events

    def _say(self, content: str | list[object]) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        for part in as_list(content):
            text = _words(part)
            if text is None:
                data = self._parts.mended(part)
                kind = as_text(as_object(data).get("type"))
                events.append(self._parts.put(Opaque(NAME, kind, data)))
            elif text:
                events.extend(self._parts.last_text().add(text))
        return events

    def _give(self, content: str | list[object]) -> list[StreamEvent]:
        texts = [_words(part) for part in as_list(content)]
        result = as_text(content) if None in texts else "".join(filter(None, texts))
        return [self._parts.put(ToolResult(self._called, self._parts.mended(result)))] if result else []

    def _call(self, position: int, piece: Mapping[str, Any]) -> list[StreamEvent]:
        index = piece.get("index")
        place = index if isinstance(index, int) else position
        call, events = self._calls.get(place), list[StreamEvent]()
        if call is not None and call.id and as_text(piece.get("id")) not in {"", call.id}:
            events, call = self._complete(), None  # The number counts again from 0.
        if call is None:
            call = self._calls[place] = _Call(self._parts.begin())
        call.add(piece)
        return events

    def _complete(self) -> list[StreamEvent]:
        """Tell the calls whose pieces are all there, now that something else comes."""
        calls, mended = list(self._calls.values()), self._parts.mended
        self._calls.clear()
        events: list[StreamEvent] = []
        for call in calls:
            arguments = "".join(call.arguments)
            function = {"name": call.name, "arguments": arguments}
            unread = Opaque(
                NAME, "tool_call", mended({"id": call.id, "type": "function", "function": function})
            )
            part = to_tool_call(call.id, call.name, arguments, unread, mended)
            events.append(self._parts.put(part, call.index))
            self._called = mended(call.id)
        return events
