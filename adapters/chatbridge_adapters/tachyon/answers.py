"""Answers as the emulator of Tachyon writes them: completions, their streams, and the events of an agent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping

from attrs import frozen

from chatbridge.testing.responder import pieces
from chatbridge_adapters.tachyon.turns import Json

__all__ = [
    "Given",
    "compact",
    "event",
    "room_chunks",
    "run_of",
    "stateless_chunks",
    "usage",
    "whole_answer",
]

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
