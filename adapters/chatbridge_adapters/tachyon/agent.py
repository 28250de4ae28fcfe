"""
What travels when an agent is set to work in a chatroom: always server-sent events.

Sources: "Tachyon API 0.58.1" (document), the readers in quantum-box/tachyon-sdk at commit 6c56873, and the
server's documentation at commit 21a23c0.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import define, field, fields_dict, frozen

from chatbridge.domain import FinishReason, Message, Reply, Role, StreamEvent, ToolResult, Usage
from chatbridge.http import (
    DONE,
    CallFold,
    Frame,
    Id,
    PartsFold,
    Raw,
    TextFold,
    as_text,
    beside_usage,
    beyond,
    keep_raw,
    loads,
    read_fields,
    tells_failure,
    to_progress,
    to_usage,
)
from chatbridge_adapters.tachyon.parts import NAME

SAID_AFTER_ALL = "the agent spoke after its attempt at an answer, which is in `extra`"

ANSWERING = frozenset({
    "say", "ask", "attempt_completion", "tool_call", "tool_call_args", "tool_result", "usage", "error",
    "done",
})  # fmt: skip
"""The types that belong to the answer; all else is told as progress."""

_ENDING = frozenset({"error", "done"})  # As the name of an event they count whatever its data is.
_READ_STRICTLY = ANSWERING - _ENDING | {"message"}  # An event without a name is called "message".


@frozen(kw_only=True)
class AgentRequest:
    """A task; what is left out is up to the server."""

    task: str
    model: str | None = None
    auto_approve: bool | None = None
    max_requests: int | None = None
    agent_protocol_id: str | None = None
    agent_protocol_mode: str | None = None
    chatroom_name_generation: str | None = None
    use_json_tool_calls: bool | None = None
    user_custom_instructions: str | None = None
    assistant_name: str | None = None
    additional_tool_description: str | None = None
    mcp_hub_config_json: str | None = None
    tool_access: Any = None


@define
class AgentChunk:
    """
    One event of a run.

    Attributes:
        type: One of `ANSWERING`; empty for anything else.
        beside: The whole event, where it is no part of the answer: of a type that is not known, or passed on
            from an agent that this one has set to work.
    """

    type: str = field(default="", repr=False)
    beside: Raw | None = field(default=None, repr=False)
    text: str | None = None
    tool_id: Id | None = None
    tool_name: str | None = None
    args: Any = None
    result: Any = None
    is_error: bool | None = None
    is_finished: bool | None = None
    command: Any = None
    options: Any = None
    raw: Raw = keep_raw()


_KNOWN = (*fields_dict(AgentChunk), "index", "agent")


def read_chunk(frame: Frame) -> object:
    """
    Make of an event what an `AgentChunk` is built from.

    The data tells the type, and the name does where that is `error` or `done`, or the data tells none; an
    event with neither is an error if it has the form of one.

    Raises:
        BrokenContent: Its data is not JSON, and it belongs to the answer.
    """
    data = frame.data.strip()
    if data == DONE.encode():
        return {"type": "done"}
    if data and frame.name in _READ_STRICTLY:
        value: object = loads(data)
        if not isinstance(value, dict):
            return value
        chunk = cast(dict[str, Any], value)
    else:
        chunk = dict(read_fields(frame))
    kind = chunk.get("type")
    if frame.name in _ENDING or not kind:
        kind = "error" if frame.name == "message" and tells_failure(chunk) else frame.name
    chunk = {**chunk, "type": kind}
    ours = isinstance(kind, str) and kind in ANSWERING and chunk.get("agent") is None
    return chunk if ours else {"beside": chunk}


def _unread_call(call: CallFold) -> dict[str, Any]:
    return {"tool_id": call.id, "tool_name": call.name, "args": call.arguments}


@define
class _Result:
    """What a tool gives, as its pieces arrive."""

    index: int
    pieces: list[str] = field(factory=list[str])
    failed: bool = False


@define
class AgentFold:
    """
    A run, put together from its events.

    What shows is what the agent says; its attempts at an answer do only where it says nothing. What else the
    events hold is told in `extra`, of each field the last.
    """

    _parts: PartsFold = field(factory=lambda: PartsFold(NAME, _unread_call))
    _calls: dict[str, CallFold] = field(factory=dict[str, CallFold])
    _results: dict[str, _Result] = field(factory=dict[str, _Result])
    _speaking: str | None = None
    _said: bool = False
    _shown_attempts: list[TextFold] = field(factory=list[TextFold])
    _attempt: list[str] = field(factory=list[str])
    _usage: Usage | None = None
    _reason: str | None = None
    _of_events: dict[str, Any] = field(factory=dict[str, Any])
    _beside: dict[str, Any] = field(factory=dict[str, Any])

    def take(self, chunk: AgentChunk) -> list[StreamEvent]:
        """Take an event, and tell what it adds to the answer."""
        if chunk.beside is not None:
            return [to_progress(chunk.beside, self._parts.mended)]
        if chunk.type == "usage":
            self._usage = to_usage(chunk.raw) or self._usage
            self._beside |= beside_usage(chunk.raw)
            return []
        self._of_events |= beyond(chunk.raw, *_KNOWN)
        match chunk.type:
            case "say":
                self._say(chunk)
            case "ask":
                self._ask(chunk)
            case "attempt_completion":
                self._try(chunk)
            case "tool_call" | "tool_call_args":
                self._call(chunk)
            case "tool_result":
                self._give(chunk)
            case _:
                pass
        return self._parts.events()

    def finish(self) -> list[StreamEvent]:
        """End the answer."""
        for tool_id, result in self._results.items():
            self._put(tool_id, result)
        self._parts.finish()
        return self._parts.events()

    def reply(self) -> Reply:
        """Give the answer, once it has ended."""
        mended = self._parts.mended
        attempt = "" if self._shown_attempts else "".join(self._attempt)
        extra = mended(self._of_events | self._beside | ({"attempt_completion": attempt} if attempt else {}))
        reasons = {"ask": FinishReason.INPUT_REQUIRED, "attempt_completion": FinishReason.STOP}
        return Reply(
            (Message(Role.ASSISTANT, self._parts.parts),),
            finish_reason=None if self._reason is None else reasons[self._reason],
            raw_finish_reason=self._reason,
            usage=self._usage,
            warnings=self._parts.warnings,
            extra=extra,
        )

    def _say(self, chunk: AgentChunk) -> None:
        if not chunk.text:
            return
        self._said = True
        if self._shown_attempts:
            self._parts.take_back(self._shown_attempts, SAID_AFTER_ALL)
            self._shown_attempts = []
        self._speak(chunk.type, chunk.text)

    def _ask(self, chunk: AgentChunk) -> None:
        self._reason = chunk.type
        if chunk.options is not None:
            self._beside["options"] = chunk.options
        if chunk.text:
            self._speak(chunk.type, chunk.text)

    def _try(self, chunk: AgentChunk) -> None:
        text = as_text(chunk.result)
        if text or self._reason is None:  # An empty one may end a run that has asked.
            self._reason = chunk.type
        if chunk.command is not None:
            self._beside["command"] = chunk.command
        if not text:
            return
        self._attempt.append(text)
        if not self._said:
            shown = self._speak(chunk.type, text)
            if shown not in self._shown_attempts[-1:]:
                self._shown_attempts.append(shown)

    def _speak(self, kind: str, text: str) -> TextFold:
        fresh, self._speaking = kind != self._speaking, kind
        return self._parts.say(text, fresh=fresh)

    def _call(self, chunk: AgentChunk) -> None:
        tool_id = chunk.tool_id or ""
        call = self._calls.get(tool_id)
        if call is None or (call.answered and chunk.type == "tool_call"):
            call = self._calls[tool_id] = self._parts.call(tool_id)
        call.add(tool_id, chunk.tool_name or "", as_text(chunk.args))

    def _give(self, chunk: AgentChunk) -> None:
        tool_id = chunk.tool_id or ""
        if tool_id in self._calls:
            self._parts.answer(self._calls[tool_id])
        result = self._results.get(tool_id)
        if result is None:
            result = self._results[tool_id] = _Result(self._parts.begin())
        result.pieces.append(as_text(chunk.result))
        result.failed = result.failed or chunk.is_error is True
        if chunk.is_finished:
            self._put(tool_id, self._results.pop(tool_id))

    def _put(self, tool_id: str, result: _Result) -> None:
        mended = self._parts.mended
        content = mended("".join(result.pieces))
        self._parts.put(ToolResult(mended(tool_id), content, is_error=result.failed), result.index)
