"""Answers as the emulator of Tachyon writes them: completions, their streams, and the events of an agent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from attrs import frozen

from chatbridge.testing.emulator import is_array, is_object
from chatbridge.testing.responder import pieces

__all__ = [
    "Given",
    "Json",
    "Step",
    "compact",
    "event",
    "room_chunks",
    "run_of",
    "said_in_run",
    "stateless_chunks",
    "steps_of_deltas",
    "steps_of_run",
    "tool_parts",
    "usage",
    "whole_answer",
]

Json = Mapping[str, object]

DONE = b"data: [DONE]\n\n"
_SINGLY = 64
"""So many characters are said one by one; the rest goes word by word, as a long answer would take ages."""


@frozen(kw_only=True)
class Given:
    """What answers a message: a text, or the call of a tool."""

    text: str
    reason: str
    call: Mapping[str, str] | None = None

    def message(self) -> Json:
        """Show it as a message."""
        if self.call is None:
            return {"role": "assistant", "content": self.text}
        function = {"name": self.call["name"], "arguments": self.call["arguments"]}
        call = {"id": self.call["id"], "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}

    def deltas(self) -> Iterator[Json]:
        """Show it piece by piece; arguments come in fragments, the role with all but those."""
        yield {"role": "assistant"}
        if self.call is None:
            yield from ({"role": "assistant", "content": piece} for piece in pieces(self.text))
            return
        function = {"name": self.call["name"], "arguments": ""}
        first = {"index": 0, "id": self.call["id"], "type": "function", "function": function}
        yield {"role": "assistant", "tool_calls": [first]}
        for piece in pieces(self.call["arguments"]):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}

    def content(self) -> Json:
        """Show it as a stored message does."""
        if self.call is None:
            return {"type": "text", "text": self.text}
        named = {"tool_call_id": self.call["id"], "tool_name": self.call["name"]}
        return {"type": "tool-call", **named, "args": self.call["arguments"]}


def event(value: object, name: str | None = None) -> bytes:
    """Write an event, by default without a name."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {compact(value)}\n\n".encode()


def compact(value: object) -> str:
    """Write *value* as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def usage(read: str, written: str) -> Json:
    """Count tokens, taking a word for one."""
    prompt, completion = len(read.split()), len(written.split())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def whole_answer(head: Json, created: int, given: Given, counts: Json, *, chunk_shaped: bool) -> Json:
    """Show a whole answer: as a completion, or *chunk_shaped*, which is what the document declares."""
    if chunk_shaped:
        choice = {"index": 0, "delta": given.message(), "finish_reason": given.reason}
        return {
            "id": head["id"],
            "object": "chat.completion.chunk",
            "model": head["model"],
            "choices": [choice],
        }
    choice = {"index": 0, "message": given.message(), "finish_reason": given.reason}
    return {
        "id": head["id"],
        "object": "chat.completion",
        "created": created,
        "model": head["model"],
        "choices": [choice],
        "usage": counts,
    }


def room_chunks(head: Json, given: Given, before: Iterable[Json]) -> Iterator[bytes]:
    """Stream an answer in a room; *before* it come other deltas, such as those of the server's tools."""

    def chunk(choice: Json) -> bytes:
        return event({
            "id": head["id"],
            "object": "chat.completion.chunk",
            "model": head["model"],
            "choices": [choice],
        })  # fmt: skip

    first, *deltas = given.deltas()
    yield from (chunk({"delta": delta, "index": 0}) for delta in (first, *before, *deltas))
    yield chunk({"delta": {}, "index": 0, "finish_reason": given.reason})
    yield DONE


def stateless_chunks(head: Json, created: int, given: Given) -> Iterator[bytes]:
    """Stream an answer outside any room, where more fields are told and those unset are null."""
    nothing = {"role": None, "content": None, "tool_calls": None}
    choices: list[Json] = [{"delta": {**nothing, **delta}, "finish_reason": None} for delta in given.deltas()]
    choices.append({"delta": nothing, "finish_reason": given.reason})
    for choice in choices:
        yield event({
            "id": head["id"],
            "object": "chat.completion.chunk",
            "created": created,
            "model": head["model"],
            "system_fingerprint": None,
            "choices": [{"index": 0, **choice, "logprobs": None}],
        })  # fmt: skip
    yield DONE


def run_of(text: str) -> list[Json]:
    """Say *text* as an agent does, which says that it has tried when it has said all."""
    said = [*text[:_SINGLY], *pieces(text[_SINGLY:])]
    says = [{"type": "say", "index": 1, "text": piece} for piece in said]
    return [*says, {"type": "attempt_completion", "result": "", "command": None, "is_finished": True}]


Step = tuple[str, str, object]
"""Of a tool: `call` with its name, `args` or `result` with a piece of either; the id is in the middle."""


def steps_of_deltas(deltas: Iterable[Json]) -> Iterator[Step]:
    """Pick what tools do from the deltas of a completion."""
    called = ""
    for delta in deltas:
        calls = delta.get("tool_calls")
        for piece in filter(is_object, calls if is_array(calls) else ()):
            function = piece.get("function")
            named = function if is_object(function) else {}
            if piece.get("id"):
                called = str(piece["id"])
                yield "call", called, named.get("name")
            yield "args", called, named.get("arguments")
        if delta.get("content") and delta.get("role") is None:
            yield "result", called, delta["content"]


def _own(chunks: Iterable[Json]) -> Iterator[Json]:
    """Leave out what is passed on from agents that were set to work."""
    return (chunk for chunk in chunks if chunk.get("agent") is None)


def steps_of_run(chunks: Iterable[Json]) -> Iterator[Step]:
    """Pick what tools do from the events of an agent."""
    for chunk in _own(chunks):
        tool_id = str(chunk.get("tool_id"))
        match chunk.get("type"):
            case "tool_call":
                yield "call", tool_id, chunk.get("tool_name")
            case "tool_call_args":
                yield "args", tool_id, chunk.get("args")
            case "tool_result":
                yield "result", tool_id, chunk.get("result")
            case _:
                pass


def tool_parts(steps: Iterable[Step]) -> list[Json]:
    """Put what tools did together as stored messages have it."""
    parts: list[dict[str, object]] = []
    calls: dict[str, dict[str, object]] = {}
    for what, tool_id, told in steps:
        text = told if isinstance(told, str) else compact(told) if told else ""
        last = parts[-1] if parts else {}
        if what == "result":
            if (last.get("type"), last.get("tool_call_id")) != ("tool-result", tool_id):
                name = calls.get(tool_id, {}).get("tool_name", "")
                last = {"type": "tool-result", "tool_call_id": tool_id, "tool_name": name, "result": ""}
                parts.append(last)
            last["result"] = f"{last['result']}{text}"
            continue
        if tool_id not in calls:
            calls[tool_id] = {"type": "tool-call", "tool_call_id": tool_id, "tool_name": "", "args": ""}
            parts.append(calls[tool_id])
        key = "tool_name" if what == "call" else "args"
        calls[tool_id][key] = f"{calls[tool_id][key]}{text}"
    return list[Json](parts)


def said_in_run(chunks: Sequence[Json]) -> Json:
    """Give what a run says as a stored message does: its words and questions, else its attempt."""

    def joined(key: str, *kinds: str) -> str:
        own = (chunk for chunk in _own(chunks) if chunk.get("type") in kinds)
        return "".join(str(chunk.get(key) or "") for chunk in own)

    said, tried = joined("text", "say", "ask"), joined("result", "attempt_completion")
    if said or not tried:
        return {"type": "text", "text": said}
    return {"type": "attempt-completion", "result": tried}
