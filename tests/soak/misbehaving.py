"""A server that takes its time, or gives too much; what it does stands in the path."""

from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from collections.abc import AsyncIterator, Callable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
MEBIBYTE = 2**20


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def _bomb() -> AsyncIterator[bytes]:
    yield HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    for _ in range(1024):
        data = packer.compress(bytes(MEBIBYTE))
        if data:
            yield _chunk(data)
    yield _chunk(packer.flush()) + b"0\r\n\r\n"


async def _forever(head: bytes, piece: bytes, pause: float) -> AsyncIterator[bytes]:
    yield head
    while True:
        yield piece
        await asyncio.sleep(pause)


async def _late_bad_chunk() -> AsyncIterator[bytes]:
    yield CHUNKED + _chunk(b'{"id"')
    await asyncio.sleep(0.1)
    yield b"zz\r\nnonsense"


async def _large(size: int) -> AsyncIterator[bytes]:
    yield HEAD + b"Content-Length: %d\r\n\r\n" % (size * MEBIBYTE)
    for _ in range(size):
        yield b" " * MEBIBYTE


async def _events(count: int) -> AsyncIterator[bytes]:
    yield CHUNKED
    for _ in range(count):
        yield _chunk(EVENT)
    yield LAST


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


EVENT = b'{"id":"' + b"x" * (MEBIBYTE - 10) + b'"}\n'
LAST = _chunk(b'{"id":"end"}\n') + b"0\r\n\r\n"
OK = HEAD + b'Content-Length: 10\r\n\r\n{"id":"x"}'
SMALL_BOMB = gzip.compress(bytes(64 * MEBIBYTE))

ANSWERS: dict[str, Callable[[], AsyncIterator[bytes]]] = {
    "ok": lambda: _pieces(OK),
    "stall": _pieces,
    "stall-in-head": lambda: _pieces(HEAD),
    "stall-in-body": lambda: _pieces(CHUNKED + _chunk(b'{"id"')),
    "drip-head": lambda: _forever(HEAD + b"A: ", b"b", 0.02),
    "drip-body": lambda: _forever(CHUNKED + _chunk(b'{"id":"'), _chunk(b"x"), 0.02),
    "comments": lambda: _forever(CHUNKED, _chunk(b": nothing\n\n"), 0.02),
    "blank-lines": lambda: _forever(CHUNKED, _chunk(b"\n"), 0.02),
    "late-bad-chunk": _late_bad_chunk,
    "bomb": _bomb,
    "small-bomb": lambda: _pieces(
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(SMALL_BOMB) + SMALL_BOMB
    ),
    "body-64": lambda: _large(64),
    "body-15": lambda: _pieces(
        HEAD + b"Content-Length: %d\r\n\r\n" % (15 * MEBIBYTE),
        b'{"id":"' + b"x" * (15 * MEBIBYTE - 9) + b'"}',
    ),
    "stream-63": lambda: _events(63),
    "stream-for-ever": lambda: _forever(CHUNKED, _chunk(EVENT), 0),
    "line-5": lambda: _pieces(CHUNKED + _chunk(b'{"id":"' + b"x" * 5_000_000 + b'"}\n'), LAST),
}


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Play what the path of each request names."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            async for piece in ANSWERS[head.split(b" ", 2)[1].decode().removeprefix("/")]():
                writer.write(piece)
                await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.transport.abort()


async def main() -> None:
    """Serve until the standard input ends."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
