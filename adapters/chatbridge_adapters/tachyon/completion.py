"""
What travels when a chatroom is asked for a completion, whole or as server-sent events.

Sources: "Tachyon API 0.58.1" (document), and the server's documentation at commit 21a23c0, which alone shows
the stream. The document declares the form of a chunk for whole answers too; both forms are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from attrs import Attribute, define, field, frozen

from chatbridge.domain import Message, Reply, Role, StreamEvent, ToolResult, Usage
from chatbridge.http import Frame, Raw, beyond, keep_raw, loads, to_finish_reason, to_usage
from chatbridge_adapters.tachyon.fold import CallFold, PartsFold
from chatbridge_adapters.tachyon.parts import (
    DONE,
    as_list,
    as_object,
    as_text,
    beside_usage,
    read_fields,
    read_loosely,
    tells_failure,
    to_opaque,
    to_progress,
)

NO_CALL = "text without a role came before any call of a tool, and was taken for what a tool gave"


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

    @property
    def is_first(self) -> bool:
        """Whether it is the one that was asked for: its number is 0, or it has none."""
        index = self.raw.get("index")
        return not isinstance(index, int | float) or index == 0


@define
class Chunk:
    """
    A whole answer, or one event of a streamed one.

    Attributes:
        error: What failed, whatever it is; then there is no more.
        object: `[DONE]` stands for the end mark.
        beside: The whole event, where its name says that it is no part of the answer.
    """

    choices: list[Choice] | None = None
    model: str | None = None
    usage: Raw | None = None
    error: Any = field(default=None, repr=False)
    object: Any = None
    beside: Raw | None = None
    raw: Raw = keep_raw()

    @property
    def choice(self) -> Choice | None:
        """The first answer: the others were not asked for."""
        return next((each for each in self.choices or () if each.is_first), None)

    @property
    def is_answer(self) -> bool:
        """Whether it is a whole answer: without a message, or with a failure, it is none."""
        choice = self.choice
        return self.error is None and choice is not None and (choice.message or choice.delta) is not None


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
    if frame.name != "message":  # So an event without a name is called.
        fields = read_fields(frame)
        return {"beside": {**fields, "type": fields.get("type") or frame.name}}
    value: object = loads(data) if data else {}
    fields = as_object(value)
    return {"error": value} if tells_failure(fields) and "choices" not in fields else value


def _words(part: object) -> str | None:
    """Give the text of a part; None where it is no text."""
    match part:
        case str(text) | {"type": "text", "text": str(text)}:
            return text
        case _:
            return None


def _unread_call(call: CallFold) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": call.id, "type": "function", "function": function}


@define
class _Increments:
    """The fields of pieces: texts are joined, of other values the last counts."""

    _texts: dict[str, list[str]] = field(factory=dict[str, list[str]])
    _others: dict[str, Any] = field(factory=dict[str, Any])

    def add(self, fields: Mapping[str, Any]) -> None:
        for name, value in fields.items():
            if isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
            else:
                self._others[name] = value

    def joined(self) -> dict[str, Any]:
        return {name: "".join(pieces) for name, pieces in self._texts.items()} | self._others


@define
class CompletionFold:
    """
    An answer, put together from a stream or taken whole.

    A delta with content but no role is what a tool on the server gave. It belongs to the first call that has
    no result, and where all have one, to the last that got it.
    """

    model: str | None = None
    _usage: Usage | None = None
    _reason: str | None = None
    _parts: PartsFold = field(factory=lambda: PartsFold(_unread_call))
    _calls: dict[int, CallFold] = field(factory=dict[int, CallFold])
    _unanswered: deque[CallFold] = field(factory=deque[CallFold])
    _answered: CallFold | None = None
    _warnings: list[str] = field(factory=list[str])
    _told: dict[str, Any] = field(factory=dict[str, Any])
    _of_chunks: dict[str, Any] = field(factory=dict[str, Any])
    _of_choices: dict[str, Any] = field(factory=dict[str, Any])
    _of_messages: _Increments = field(factory=_Increments)

    def take(self, chunk: Chunk, *, whole: bool = False) -> list[StreamEvent]:
        """Take a chunk, or a *whole* answer, and tell what it adds."""
        if chunk.beside is not None:
            return [to_progress(chunk.beside, self._parts.mended)]
        if chunk.model != self.model:
            self.model = self._parts.mended(chunk.model) or self.model
        if chunk.usage is not None:
            self._usage = to_usage(chunk.usage) or self._usage
            self._told |= beside_usage(chunk.usage)
        self._of_chunks.update(chunk.raw)  # What is known of it is picked out once, at the end.
        choice = chunk.choice
        if choice is None:
            return []
        self._reason = choice.finish_reason or self._reason
        self._of_choices.update(choice.raw)
        message, delta = choice.message, choice.delta
        if message is not None and (message.content or message.tool_calls or delta is None):
            self._take(message, whole=True)
        elif delta is not None:
            self._take(delta, whole=whole or message is not None)
        return self._parts.events()

    def finish(self) -> list[StreamEvent]:
        """End the answer."""
        self._parts.finish()
        return self._parts.events()

    def reply(self) -> Reply:
        """Give the answer, once it has ended."""
        mended = self._parts.mended
        message = Message(Role.ASSISTANT, self._parts.parts, extra=mended(self._of_messages.joined()))
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
            warnings=(*self._warnings, *self._parts.warnings),
            extra=extra,
        )

    def _take(self, said: Said, *, whole: bool) -> None:
        self._of_messages.add(beyond(said.raw, "role", "content", "tool_calls"))
        if said.content:
            result = said.role == "tool" or (said.role is None and not whole)
            (self._give if result else self._say)(said.content)
        for position, piece in enumerate(said.tool_calls or ()):
            self._call(position, piece, whole=whole)

    def _say(self, content: str | list[object]) -> None:
        for part in as_list(content):
            text = _words(part)
            if text is None:
                self._parts.put(to_opaque(self._parts.mended(part)))
            elif text:
                self._parts.say(text)

    def _give(self, content: str | list[object]) -> None:
        texts = [_words(part) for part in as_list(content)]
        result = as_text(content) if None in texts else "".join(filter(None, texts))
        if not result:
            return
        if self._unanswered:
            self._answered = self._unanswered.popleft()
            self._parts.answer(self._answered)
        elif self._answered is None and NO_CALL not in self._warnings:
            self._warnings.append(NO_CALL)
        called = "" if self._answered is None else self._answered.id
        self._parts.put(ToolResult(self._parts.mended(called), self._parts.mended(result)))

    def _call(self, position: int, piece: Mapping[str, Any], *, whole: bool) -> None:
        index = piece.get("index")
        place = index if isinstance(index, int) else position
        function = as_object(piece.get("function"))
        call_id, name = as_text(piece.get("id")), as_text(function.get("name"))
        call = self._calls.get(place)
        if whole or call is None or _begins(call, call_id, name):
            call = self._calls[place] = self._parts.call(call_id)
            self._unanswered.append(call)
        call.add(call_id, name, as_text(function.get("arguments")))


def _begins(call: CallFold, call_id: str, name: str) -> bool:
    """Tell whether a piece with the number of *call* begins another, as numbers count again from 0."""
    if call.answered:
        return bool(call_id or name)
    return bool(call.id) and call_id not in {"", call.id}
