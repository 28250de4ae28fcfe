"""Answers as the emulator of the Messages API writes them: messages, and their streams event by event."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chatbridge.testing.responder import pieces

__all__ = ["Json", "compact", "event", "event_stream", "signature"]

Json = Mapping[str, Any]


def event(value: Json) -> bytes:
    """Write an event, which has the name of its type."""
    return f"event: {value['type']}\ndata: {compact(value)}\n\n".encode()


def event_stream(message: Json, *, pings: bool) -> Iterator[bytes]:
    """Stream *message*: each block whole before the next begins, and the cost at its end."""
    usage = message["usage"]
    known: Json = {
        "stop_reason": None,
        "stop_sequence": None,
        "content": [],
        "usage": {**usage, "output_tokens": 1},
    }
    yield event({"type": "message_start", "message": {**message, **known}})
    for index, block in enumerate(message["content"]):
        begun, deltas = _in_pieces(block)
        yield event({"type": "content_block_start", "index": index, "content_block": begun})
        if pings and not index:
            yield event({"type": "ping"})
        for delta in deltas:
            yield event({"type": "content_block_delta", "index": index, "delta": delta})
        yield event({"type": "content_block_stop", "index": index})
    ended = {name: message[name] for name in ("stop_reason", "stop_sequence")}
    cost = {"output_tokens": usage["output_tokens"]}
    yield event({"type": "message_delta", "delta": ended, "usage": cost})
    yield event({"type": "message_stop"})


def _in_pieces(block: Json) -> tuple[Json, Sequence[Json]]:
    """Say what a block begins with, and what is added to it; what the server's tools found comes whole."""
    match block:
        case {"type": "text", "text": str(text)}:
            said = [{"type": "text_delta", "text": piece} for piece in pieces(text)]
            cited = [{"type": "citations_delta", "citation": each} for each in block.get("citations", ())]
            return {**block, "text": "", **({"citations": []} if cited else {})}, [*said, *cited]
        case {"type": "thinking", "thinking": str(text), "signature": signed}:
            thought = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(text)]
            begun = {**block, "thinking": "", "signature": ""}
            return begun, [*thought, {"type": "signature_delta", "signature": signed}]
        case {"type": "tool_use" | "server_tool_use", "input": given}:
            written = ["", *pieces(compact(given))]
            return {**block, "input": {}}, [
                {"type": "input_json_delta", "partial_json": piece} for piece in written
            ]
        case _:
            return block, ()


def signature(text: str) -> str:
    """Sign a thought, so that it is known when it comes back."""
    return hashlib.sha256(f"emulated thought: {text}".encode()).hexdigest()


def compact(value: object) -> str:
    """Write *value* as JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
