"""What the tests of Anthropic's adapter share: a backend at an emulator, and answers written by hand."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import define

from chatbridge import Finished, Message, Reply, SendOptions, StreamEvent
from chatbridge.config import BackendURL
from chatbridge.http import Transport
from chatbridge.registry import resolve
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.anthropic import AnthropicBackend
from chatbridge_adapters.anthropic.emulator import AnthropicEmulator

Json = dict[str, Any]
MODEL = "claude-emulated-2"
EVENTS = {"Content-Type": "text/event-stream"}
JSON = {"Content-Type": "application/json"}


@define
class Talk:
    """A backend, the emulator that it talks to, and the events of the last stream."""

    backend: AnthropicBackend
    emulator: AnthropicEmulator
    clock: ManualClock
    transport: Transport
    events: list[StreamEvent]

    async def whole(self, *messages: Message | str, **options: Any) -> Reply:
        """Complete *messages*, of which texts are the user's."""
        return await self.backend.complete(said(messages), SendOptions(**options))

    async def streamed(self, *messages: Message | str, **options: Any) -> Reply:
        """Complete *messages* as a stream."""
        self.events.clear()
        async for event in self.backend.stream(said(messages), SendOptions(**options)):
            self.events.append(event)
        finished = self.events[-1]
        assert isinstance(finished, Finished)
        assert 1 == sum(isinstance(event, Finished) for event in self.events)
        return finished.reply

    async def answered(self, *bodies: bytes, how: str = "streamed", **options: Any) -> Reply:
        """Complete while the server answers with *bodies*, a run each."""
        for body in bodies:
            headers = JSON if body.startswith(b"{") else EVENTS
            self.emulator.fail(Fault(status=200, body=body, headers=headers))
        reply: Reply = await getattr(self, how)("Hello", **options)
        return reply

    @property
    def sent(self) -> list[Json]:
        """The bodies of the requests so far."""
        return [json.loads(call.body) for call in self.emulator.calls]


def said(messages: Sequence[Message | str]) -> list[Message]:
    return [Message.user(each) if isinstance(each, str) else each for each in messages]


@asynccontextmanager
async def talk(emulator: AnthropicEmulator | None = None, **options: Any) -> AsyncGenerator[Talk, None]:
    """Serve *emulator*, and open a backend to it as a bridge does; its clock is turned by hand."""
    emulator = AnthropicEmulator() if emulator is None else emulator
    async with serve(emulator) as served:
        target = resolve(BackendURL.parse(served.config), {"key": emulator.key, **options}, {})
        assert target.base_url is not None
        clock = ManualClock()
        transport = Transport(target.base_url, target.options, clock=clock)
        backend = target.adapter.open(target.options, transport)
        assert isinstance(backend, AnthropicBackend)
        try:
            yield Talk(backend, emulator, clock, transport, [])
        finally:
            await backend.close()
            await transport.close()
    assert [] == emulator.crashes


def event(kind: str, **fields: Any) -> bytes:
    """Write an event; halves of characters are escaped."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def message(*content: Json, reason: str | None = "end_turn", **more: Any) -> bytes:
    """Write a whole answer."""
    fields = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "stop_sequence": None}
    usage = {"input_tokens": 3, "output_tokens": 4}
    return json.dumps({**fields, "content": content, "stop_reason": reason, "usage": usage, **more}).encode()


def begin(**more: Any) -> bytes:
    """Write how a stream begins."""
    fields: Json = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": []}
    usage = {"input_tokens": 3, "output_tokens": 1}
    return event("message_start", message={**fields, "stop_reason": None, "usage": usage, **more})


def block(index: int, begun: Json, *deltas: Json) -> bytes:
    """Write a block of a stream."""
    return b"".join([
        event("content_block_start", index=index, content_block=begun),
        *(event("content_block_delta", index=index, delta=delta) for delta in deltas),
        event("content_block_stop", index=index),
    ])  # fmt: skip


def text(index: int, *pieces: str) -> bytes:
    """Write a block of text."""
    deltas: list[Json] = [{"type": "text_delta", "text": piece} for piece in pieces]
    return block(index, {"type": "text", "text": ""}, *deltas)


def end(reason: str | None = "end_turn", **more: Any) -> bytes:
    """Write how a stream ends."""
    delta = {"stop_reason": reason, "stop_sequence": None, **more}
    return event("message_delta", delta=delta, usage={"output_tokens": 4}) + event("message_stop")
