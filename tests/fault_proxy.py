"""A proxy that misbehaves by plan, at the level of sockets, and counts what it delivers behind itself."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Iterable
from enum import Enum
from typing import Self
from urllib.parse import urlsplit

from attrs import Factory, define, frozen

__all__ = ["FaultProxy", "Passed", "Wrong"]


class Wrong(Enum):
    """What goes wrong with a request; those from `LOST_RESET` on reach the server."""

    RESET_AT_ONCE = "reset before the request is read"
    RESET_IN_REQUEST = "reset within the request"
    RESET = "reset when the request was read"
    END = "closed when the request was read"
    BUSY = "429, from the proxy"
    DOWN = "503, from the proxy"
    REDIRECT = "307 to elsewhere, from the proxy"
    LOST_RESET = "reset before the answer"
    LOST_END = "closed before the answer"
    HEAD_RESET = "reset within the answer's head"
    HEAD_END = "closed within the answer's head"
    BODY_RESET = "reset within the answer's body"
    BODY_END = "closed within the answer's body"
    STALL = "silent before the answer"
    STALL_IN_HEAD = "silent within the answer's head"
    STALL_IN_BODY = "silent within the answer's body"
    DRIP = "the answer byte by byte"
    BAD_CHUNK = "the answer's body in chunks of no size"
    NOT_HTTP = "an answer that is no HTTP"
    GATEWAY = "502 with a web page, in place of the answer"
    GZIP = "the answer's body said to be compressed"
    LATE = "reset at once, and sent on when `go_on` is set"

    @property
    def delivers(self) -> bool:
        """Whether the server gets the request."""
        return _ORDER.index(self) >= _ORDER.index(Wrong.LOST_RESET)


_ORDER = list(Wrong)
_REFUSALS = {
    Wrong.BUSY: b"HTTP/1.1 429 Busy\r\nContent-Length: 2\r\n\r\n{}",
    Wrong.DOWN: b"HTTP/1.1 503 Down\r\nContent-Length: 2\r\n\r\n{}",
    Wrong.REDIRECT: b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
}
_INSTEAD = {
    Wrong.NOT_HTTP: b"220 mail.example.com ESMTP\r\n\r\n",
    Wrong.GATEWAY: b"HTTP/1.1 502 Bad\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
}
_RESETS = {Wrong.RESET, Wrong.LOST_RESET, Wrong.HEAD_RESET, Wrong.BODY_RESET, Wrong.LATE}
_SHOWN = {
    Wrong.LOST_RESET: (0, 0), Wrong.LOST_END: (0, 0), Wrong.STALL: (0, 0),
    Wrong.HEAD_RESET: (20, 0), Wrong.HEAD_END: (20, 0), Wrong.STALL_IN_HEAD: (20, 0),
    Wrong.BODY_RESET: (None, 0.5), Wrong.BODY_END: (None, 0.5), Wrong.STALL_IN_BODY: (None, 0.5),
}  # fmt: skip
"""How many bytes of the head are shown, None for all, and how much of the body."""


@frozen
class Passed:
    """A request, without its headers."""

    method: str
    path: str
    body: bytes


@define(eq=False)
class FaultProxy:
    """
    Passes requests on to *upstream*, each as the plan says; when that is at its end, untouched.

    Attributes:
        plan: What goes wrong with the requests to come.
        received: The requests that were read.
        delivered: Those that were sent on whole.
        go_on: What a late request waits for.
        reached: Set when the proxy falls silent.
    """

    upstream: str
    plan: deque[Wrong | None] = Factory(deque[Wrong | None])
    received: list[Passed] = Factory(list[Passed])
    delivered: list[Passed] = Factory(list[Passed])
    go_on: asyncio.Event = Factory(asyncio.Event)
    reached: asyncio.Event = Factory(asyncio.Event)
    url: str = ""
    _tasks: set[asyncio.Task[None]] = Factory(set[asyncio.Task[None]])
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def then(self, faults: Iterable[Wrong | None]) -> None:
        """Plan what goes wrong with the next requests."""
        self.plan.extend(faults)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while early := await reader.read(1):
                wrong = self.plan.popleft() if self.plan else None
                if not await self._one(early, wrong, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def _one(
        self, early: bytes, wrong: Wrong | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Deal with one request; tell whether the connection may be used again."""
        if wrong is Wrong.RESET_AT_ONCE:
            return _reset(writer)
        head = early + await reader.readuntil(b"\r\n\r\n")
        if wrong is Wrong.RESET_IN_REQUEST:
            return _reset(writer)
        request, body = _read_head(head)
        request = Passed(request.method, request.path, await reader.readexactly(body))
        self.received.append(request)
        if wrong is not None and not wrong.delivers:
            writer.write(_REFUSALS.get(wrong, b""))
            await writer.drain()
            return _reset(writer) if wrong is Wrong.RESET else wrong is not Wrong.END
        if wrong is Wrong.LATE:
            _reset(writer)
            await self.go_on.wait()
        answer = await self._pass_on(head, request)
        return wrong is not Wrong.LATE and await self._tell(answer, wrong, reader, writer)

    async def _pass_on(self, head: bytes, request: Passed) -> bytes:
        """Send a request on, and read the whole answer."""
        host = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(host.hostname, host.port)
        line, _, fields = head.partition(b"\r\n")
        writer.write(line + b"\r\nConnection: close\r\n" + fields + request.body)
        await writer.drain()
        self.delivered.append(request)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()

    async def _tell(
        self, answer: bytes, wrong: Wrong | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Give the answer, or what is left of it; what it is made of was complete, so its length is known."""
        head, mark, body = answer.partition(b"\r\n\r\n")
        if wrong in _INSTEAD:
            writer.write(_INSTEAD[wrong])
        elif wrong in _SHOWN:
            of_head, of_body = _SHOWN[wrong]
            writer.write(answer[:of_head] if of_head is not None else head + mark)
            writer.write(body[: int(len(body) * of_body)])
        elif wrong is Wrong.BAD_CHUNK:
            fields = [field for field in head.split(b"\r\n") if not field.lower().startswith(_FRAMING)]
            writer.write(b"\r\n".join([*fields, b"Transfer-Encoding: chunked"]) + mark + b"zz\r\n" + body)
        elif wrong is Wrong.GZIP:
            writer.write(head + b"\r\nContent-Encoding: gzip" + mark + body)
        elif wrong is Wrong.DRIP:
            for place in range(len(answer)):
                writer.write(answer[place : place + 1])
                await writer.drain()
                await asyncio.sleep(0)
        else:
            writer.write(answer)
        await writer.drain()
        if wrong in _RESETS:
            return _reset(writer)
        if wrong in {Wrong.STALL, Wrong.STALL_IN_HEAD, Wrong.STALL_IN_BODY}:
            self.reached.set()
            while await reader.read(2**16):
                pass
        return False  # The server has closed its connection, so this one ends too.


_FRAMING = (b"content-length", b"transfer-encoding")


def _read_head(head: bytes) -> tuple[Passed, int]:
    line, *fields = head.decode("latin-1").split("\r\n")
    method, path, _ = line.split(" ")
    named = dict(field.lower().split(": ", 1) for field in fields if ": " in field)
    return Passed(method, path, b""), int(named.get("content-length", "0"))


def _reset(writer: asyncio.StreamWriter) -> bool:
    linger: socket.socket = writer.get_extra_info("socket")
    linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False
