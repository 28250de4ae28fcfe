"""
What travels when a chatroom is asked for a completion, whole or as server-sent events.

Sources: "Tachyon API 0.58.1" (document), and the server's documentation at commit 21a23c0, which alone shows
the stream. The document declares the form of a chunk for whole answers too; both forms are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from attrs import define, field, frozen

from chatbridge.domain import ToolResult
from chatbridge.http import CallFold, CompletionFold, Said, as_list, as_text, words
from chatbridge_adapters.tachyon.parts import NAME

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


@define(repr=False)
class RoomFold(CompletionFold):
    """
    An answer in a room.

    A delta with content but no role is what a tool on the server gave. It belongs to the first call that has
    no result, and where all have one, to the last that got it.
    """

    origin: str = NAME
    _unanswered: deque[CallFold] = field(factory=deque[CallFold])
    _answered: CallFold | None = None

    def _texts(self, said: Said, *, whole: bool) -> dict[str, str]:
        return {} if _is_result(said, whole=whole) else super()._texts(said, whole=whole)

    def _hear(self, said: Said, *, whole: bool) -> None:
        (self._give if _is_result(said, whole=whole) else self._say)(said.content)

    def _give(self, content: str | list[object]) -> None:
        texts = [words(part) for part in as_list(content)]
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

    def _begin(self, call_id: str) -> CallFold:
        call = self._parts.call(call_id)
        self._unanswered.append(call)
        return call


def _is_result(said: Said, *, whole: bool) -> bool:
    return said.role == "tool" or (said.role is None and not whole)
