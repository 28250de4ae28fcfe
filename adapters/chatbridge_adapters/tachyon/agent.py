"""
What travels when an agent is set to work in a chatroom: always server-sent events.

Sources: "Tachyon API 0.58.1" (document), the readers in quantum-box/tachyon-sdk at commit 6c56873, and the
server's documentation at commit 21a23c0.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import define, field, frozen

from chatbridge.domain import (
    FinishReason,
    Message,
    Opaque,
    Part,
    Progress,
    Reply,
    Role,
    StreamEvent,
    ToolResult,
    Usage,
)
from chatbridge.http import BrokenContent, Frame, Id, Raw, TextFold, keep_raw, loads, to_usage
from chatbridge_adapters.tachyon.completion import DONE, read_loosely
from chatbridge_adapters.tachyon.parts import NAME, PartsFold, as_text, beside_usage, to_tool_call

SAID_AFTER_ALL = "the agent spoke after its attempt at an answer, which is in `extra`"

ANSWERING = frozenset({
    "say", "ask", "attempt_completion", "tool_call", "tool_call_args", "tool_result", "usage", "error",
    "done",
})  # fmt: skip
"""The types that belong to the answer; all else is told as progress."""

_READ_STRICTLY = ANSWERING - {"error"} | {"message"}  # An event without a name is called "message".


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

    type: str = ""
    beside: Raw | None = None
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


def read_chunk(frame: Frame) -> object:
    """
    Make of an event what an `AgentChunk` is built from.

    The data tells the type; only where it does not, the event's name does.

    Raises:
        BrokenContent: Its data is not JSON, and it belongs to the answer.
    """
    data = frame.data.strip()
    if data == DONE.encode():
        return {"type": "done"}
    value: object = {}
    if data:
        try:
            value = loads(data)
        except BrokenContent:
            if frame.name in _READ_STRICTLY:
                raise
            value = {"message": read_loosely(data)}
    if not isinstance(value, dict):
        return value
    chunk = cast(dict[str, object], value)
    kind = chunk.get("type") or frame.name
    chunk = {**chunk, "type": kind}
    ours = isinstance(kind, str) and kind in ANSWERING and chunk.get("agent") is None
    return chunk if ours else {"beside": chunk}


@define
class _Call:
    """A call of a tool whose pieces arrive, and what it gave."""

    index: int
    id: str
    name: str = ""
    arguments: list[str] = field(factory=list[str])

    def part(self, parts: PartsFold) -> Part:
        arguments = "".join(self.arguments)
        data = {"tool_id": self.id, "tool_name": self.name, "args": arguments}
        unread = Opaque(NAME, "tool_call", parts.mended(data))
        return to_tool_call(self.id, self.name, arguments, unread, parts.mended)


@define
class _Result:
    """What a tool gives, as its pieces arrive."""

    index: int
    id: str
    pieces: list[str] = field(factory=list[str])
    failed: bool = False

    def part(self, parts: PartsFold) -> Part:
        mended = parts.mended
        return ToolResult(mended(self.id), mended("".join(self.pieces)), is_error=self.failed)


@define
class AgentFold:
    """
    A run, put together from its events.

    What shows is what the agent says; its attempt at an answer does only where it says nothing.
    """

    _parts: PartsFold = field(factory=PartsFold)
    _calls: dict[str, _Call] = field(factory=dict[str, _Call])
    _results: dict[str, _Result] = field(factory=dict[str, _Result])
    _changed: dict[int, _Call | _Result] = field(factory=dict[int, _Call | _Result])
    _speaking: str | None = None
    _said: bool = False
    _shown_attempt: TextFold | None = None
    _attempt: list[str] = field(factory=list[str])
    _usage: Usage | None = None
    _reason: str | None = None
    _beside: dict[str, Any] = field(factory=dict[str, Any])

    def take(self, chunk: AgentChunk) -> list[StreamEvent]:
        """Take an event, and tell what it adds to the answer."""
        if chunk.beside is not None:
            data = self._parts.mended(chunk.beside)
            return [Progress(as_text(data.get("type")), data)]
        match chunk.type:
            case "say":
                return self._say(chunk)
            case "ask":
                return self._ask(chunk)
            case "attempt_completion":
                return self._try(chunk)
            case "tool_call" | "tool_call_args":
                self._call(chunk)
            case "tool_result":
                return self._give(chunk)
            case "usage":
                self._usage = to_usage(chunk.raw) or self._usage
                self._beside |= beside_usage(chunk.raw)
            case _:
                pass
        return []

    def finish(self) -> list[StreamEvent]:
        """End the answer."""
        return [*self._complete(results=True), *self._parts.finish()]

    def reply(self) -> Reply:
        """Give the answer, once it has ended."""
        mended = self._parts.mended
        attempt = "" if self._shown_attempt is not None else "".join(self._attempt)
        beside = mended(self._beside | ({"attempt_completion": attempt} if attempt else {}))
        reasons = {"ask": FinishReason.INPUT_REQUIRED, "attempt_completion": FinishReason.STOP}
        return Reply(
            (Message(Role.ASSISTANT, self._parts.parts),),
            finish_reason=None if self._reason is None else reasons[self._reason],
            raw_finish_reason=self._reason,
            usage=self._usage,
            warnings=self._parts.warnings,
            extra=beside,
        )

    def _say(self, chunk: AgentChunk) -> list[StreamEvent]:
        if not chunk.text:
            return []
        events, self._said = self._complete(), True
        if self._shown_attempt is not None:
            events.extend(self._parts.take_back(self._shown_attempt, SAID_AFTER_ALL))
            self._shown_attempt = None
        return [*events, *self._speak(chunk)]

    def _ask(self, chunk: AgentChunk) -> list[StreamEvent]:
        self._reason = chunk.type
        if chunk.options is not None:
            self._beside["options"] = chunk.options
        return [*self._complete(), *self._speak(chunk)]

    def _speak(self, chunk: AgentChunk) -> list[StreamEvent]:
        fresh, self._speaking = chunk.type != self._speaking, chunk.type
        return self._parts.last_text(fresh=fresh).add(chunk.text or "")

    def _try(self, chunk: AgentChunk) -> list[StreamEvent]:
        self._reason = chunk.type
        if chunk.command is not None:
            self._beside["command"] = chunk.command
        text = as_text(chunk.result)
        self._attempt.append(text)
        events = self._complete()
        if self._said or not text:
            return events
        if self._shown_attempt is None:
            self._speaking = chunk.type
            self._shown_attempt = self._parts.last_text(fresh=True)
        return [*events, *self._shown_attempt.add(text)]

    def _call(self, chunk: AgentChunk) -> None:
        tool_id = chunk.tool_id or ""
        call = self._calls.get(tool_id)
        if call is None:
            call = self._calls[tool_id] = _Call(self._parts.begin(), tool_id)
        call.name = chunk.tool_name or call.name
        call.arguments.append(as_text(chunk.args))
        self._changed[call.index] = call

    def _give(self, chunk: AgentChunk) -> list[StreamEvent]:
        tool_id = chunk.tool_id or ""
        result = self._results.get(tool_id)
        if result is None:
            result = self._results[tool_id] = _Result(self._parts.begin(), tool_id)
        result.pieces.append(as_text(chunk.result))
        result.failed = result.failed or chunk.is_error is True
        self._changed[result.index] = result
        return self._complete(results=chunk.is_finished is True)

    def _complete(self, *, results: bool = False) -> list[StreamEvent]:
        """Tell the calls whose pieces are all there, now that something else comes, and the *results*."""
        ready = [each for each in self._changed.values() if results or isinstance(each, _Call)]
        for each in ready:
            del self._changed[each.index]
        return [self._parts.put(each.part(self._parts), each.index) for each in ready]
