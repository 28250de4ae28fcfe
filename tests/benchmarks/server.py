"""A server that costs little: fixed answers in the forms of h2oGPTe and OpenAI, straight to the socket."""

from __future__ import annotations

import asyncio
import json
import sys

TEXT = "The maples of Kyoto turn in the second half of November, a little later in the valley. " * 4
WHOLE = json.dumps({"message_id": "9a1b7c44-0a55-4f2e-8f4b-2d9f7f6a1e22", "body": TEXT}).encode()
CHUNKS = 1000


def _stream() -> bytes:
    pieces = [
        f"piece {number:04} of the answer, some twenty words or tokens long; " for number in range(CHUNKS)
    ]
    lines = [json.dumps({"body": piece, "finished": False}) for piece in pieces]
    lines.append(json.dumps({"message_id": "m", "body": "".join(pieces), "finished": True}))
    return "".join(line + "\n" for line in lines).encode()


STREAM = _stream()


def _completion(**choice: object) -> dict[str, object]:
    choices = [{"index": 0, "logprobs": None, "finish_reason": None, **choice}]
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}


def _completion_chunks() -> bytes:
    pieces = [{"content": f"piece {number:04} of the answer; "} for number in range(CHUNKS)]
    events = [_completion(delta=delta) for delta in pieces]
    events.append(_completion(delta={}, finish_reason="stop"))
    lines = [*map(json.dumps, events), "[DONE]"]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


COMPLETION = json.dumps({
    **_completion(message={"role": "assistant", "content": TEXT}, finish_reason="stop"),
    "usage": {"prompt_tokens": 3, "completion_tokens": 80, "total_tokens": 83},
}).encode()  # fmt: skip


def _answer(kind: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(body))
    return head + body


ANSWERS = {
    (False, False): _answer(b"application/json", WHOLE),
    (False, True): _answer(b"application/jsonl", STREAM),
    (True, False): _answer(b"application/json", COMPLETION),
    (True, True): _answer(b"text/event-stream", _completion_chunks()),
}
EMPTY = _answer(b"application/json", b"[]")  # What is in a conversation before its first message.


class Protocol(asyncio.Protocol):
    """Answers each request as soon as its body is complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            _, found, rest = head.partition(b"content-length:")
            length = int(rest.split(b"\r\n", 1)[0]) if found else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            form = b"/chat/completions" in head, b'"stream"' in body
            self.transport.write(EMPTY if head.startswith(b"get ") else ANSWERS[form])


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
