"""What the tests of chat completions share: a backend that reaches an emulator, and answers of one's own."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from attrs import frozen

from chatbridge import Finished, Message, Reply, SendOptions, StreamEvent
from chatbridge.config import BackendURL
from chatbridge.http import Transport
from chatbridge.registry import resolve
from chatbridge.testing.clock import ManualClock
from chatbridge.testing.emulator import Fault, serve
from chatbridge_adapters.openai import ADAPTER, OpenAIBackend
from chatbridge_adapters.openai.emulator import OpenAIEmulator

Json = dict[str, Any]
Open = Callable[..., Awaitable[OpenAIBackend]]
HELLO = (Message.user("Hello"),)
NOTHING = SendOptions()


@asynccontextmanager
async def opener() -> AsyncGenerator[Open, None]:
    """Serve emulators until the block ends, and give backends to them; keywords are options."""
    served: list[OpenAIEmulator] = []
    async with AsyncExitStack() as stack:

        async def reach(emulator: OpenAIEmulator, **options: object) -> OpenAIBackend:
            at = await stack.enter_async_context(serve(emulator))
            served.append(emulator)
            target = resolve(BackendURL.parse(at.config), {"key": emulator.key, **options}, {})
            assert target.base_url is not None
            transport = Transport(target.base_url, target.options, clock=ManualClock())
            stack.push_async_callback(transport.close)
            backend = ADAPTER.open(target.options, transport)
            assert isinstance(backend, OpenAIBackend)
            return backend

        yield reach
    assert [] == [crash for emulator in served for crash in emulator.crashes]


@frozen
class Streamed:
    """A stream that was read to its end."""

    events: Sequence[StreamEvent]

    @property
    def reply(self) -> Reply:
        last = self.events[-1]
        assert isinstance(last, Finished)
        return last.reply


async def streamed(
    backend: OpenAIBackend, messages: Sequence[Message] = HELLO, options: SendOptions = NOTHING
) -> Streamed:
    """Read a whole stream."""
    return Streamed([event async for event in backend.stream(messages, options)])


def both(
    backend: OpenAIBackend, messages: Sequence[Message] = HELLO, options: SendOptions = NOTHING
) -> list[Callable[[], Awaitable[object]]]:
    """Give both ways to have *messages* answered."""
    return [lambda: backend.complete(messages, options), lambda: streamed(backend, messages, options)]


def answer(emulator: OpenAIEmulator, body: bytes | object, status: int = 200) -> None:
    """Have the next call answered with *body*, which is JSON unless it is bytes."""
    written = body if isinstance(body, bytes) else json.dumps(body).encode()
    emulator.fail(Fault(status=status, body=written))


def said(**message: object) -> Json:
    """Write a whole answer."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"},
        ],
    }


def events(*chunks: str | Json, done: bool = True) -> bytes:
    """Write a stream; a text is an event's data as it is, any other a delta, or a chunk if it has choices."""
    lines = [*map(_line, chunks), *(["[DONE]"] if done else [])]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def _line(chunk: str | Json) -> str:
    if isinstance(chunk, str):
        return chunk
    whole = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "delta": chunk}]}
    return json.dumps(chunk if {"choices", "error", "usage"} & set(chunk) else whole)


def end(reason: str | None = "stop", **beside: object) -> Json:
    """Write the last chunk of an answer."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **beside}


def sent(emulator: OpenAIEmulator) -> Json:
    """Give the last request."""
    return cast(Json, emulator.calls[-1].json())
