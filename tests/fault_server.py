"""A server that misbehaves by script, counts what it was sent, and a client whose clock stands still."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, Self, TypeVar, cast

from aiohttp.abc import AbstractResolver, ResolveResult
from attrs import Factory, define, frozen

from chatbridge.http import Api, ApiError, Limits, Transport, bearer
from chatbridge.options import CommonOptions
from chatbridge.retry import Retrier, TokenBucket
from chatbridge.secret import Secret
from chatbridge.testing.clock import ManualClock

T = TypeVar("T")

KEY = "sk-Zq83hF/x+71kd"
"""The key that every client made here sends."""


class Step(Enum):
    """What a script can do besides sending bytes."""

    READ = "read the request, head and body"
    READ_HEAD = "read its head only"
    RESET = "break the connection with RST"
    FIN = "end what is sent, and wait until the client goes"
    STALL = "be silent, but keep reading, until the client goes"
    HANG = "be silent and read nothing"


Script = tuple[bytes | Step | asyncio.Event, ...]


def answer(body: bytes, status: str = "200 OK", *fields: str, framed: bool = True) -> bytes:
    """Write an answer, its length said unless not *framed*."""
    length = [f"Content-Length: {len(body)}"] if framed else []
    return "\r\n".join([f"HTTP/1.1 {status}", *length, *fields, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, last: bytes = b"0\r\n\r\n", status: str = "200 OK") -> bytes:
    """Write an answer in chunks."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return answer(b"", status, "Transfer-Encoding: chunked", framed=False) + body + last


@frozen
class Seen:
    """One request as it arrived."""

    connection: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        """Give the values of each field called *name*."""
        return [value for key, value in self.headers if key.lower() == name.lower()]


@define(eq=False)
class _Peer:
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    early: bytes = b""

    async def head(self) -> bytes:
        return self.early + await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Seen:
        line, *fields = (await self.head()).decode("latin-1")[:-4].split("\r\n")
        method, path, _ = line.split(" ")
        headers = [(name, value) for name, value in (field.split(": ", 1) for field in fields)]
        seen = Seen(self.number, method, path, headers, b"")
        length = int((seen.header("Content-Length") or ["0"])[0])
        return Seen(self.number, method, path, headers, await self.reader.readexactly(length))


@define(eq=False)
class FaultServer:
    """
    Plays one script for each request, and the last one for all that follow.

    Attributes:
        begun: How many scripts were begun: at a connection, or at its next request.
        requests: Those that were read.
        reached: Set when a script stands still: at `STALL`, `HANG`, or an event that is not set.
        left: Set when a client is seen to close a connection that stands still.
        open: Connections now open.
        busiest: The most scripts that ran at once.
    """

    scripts: tuple[Script, ...]
    begun: int = 0
    requests: list[Seen] = Factory(list[Seen])
    reached: asyncio.Event = Factory(asyncio.Event)
    left: asyncio.Event = Factory(asyncio.Event)
    open: int = 0
    busiest: int = 0
    url: str = ""
    _connections: int = 0
    _running: int = 0
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

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        task = asyncio.create_task(self._serve(_Peer(self._connections, reader, writer)))
        self._tasks.add(task)

    async def _serve(self, peer: _Peer) -> None:
        self.open += 1
        try:
            while True:
                script = self.scripts[min(self.begun, len(self.scripts) - 1)]
                self.begun += 1
                self._running += 1
                self.busiest = max(self.busiest, self._running)
                try:
                    for step in script:
                        await self._play(step, peer)
                finally:
                    self._running -= 1
                peer.early = await peer.reader.read(1)
                if not peer.early:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            self.open -= 1
            peer.writer.transport.abort()

    async def _play(self, step: bytes | Step | asyncio.Event, peer: _Peer) -> None:
        if isinstance(step, bytes):
            peer.writer.write(step)
            await peer.writer.drain()
        elif isinstance(step, asyncio.Event):
            if not step.is_set():
                self.reached.set()
            await step.wait()
        elif step is Step.READ:
            self.requests.append(await peer.request())
        elif step is Step.READ_HEAD:
            await peer.head()
        elif step is Step.RESET:
            linger: socket.socket = peer.writer.get_extra_info("socket")
            linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.writer.transport.abort()
            raise ConnectionError
        elif step is Step.HANG:
            self.reached.set()
            await asyncio.Event().wait()
        else:
            await self._wait_for_the_end(step, peer)

    async def _wait_for_the_end(self, step: Step, peer: _Peer) -> None:
        if step is Step.FIN:
            peer.writer.write_eof()
        else:
            self.reached.set()
        while await peer.reader.read(2**16):
            pass
        raise ConnectionError


async def settle() -> None:
    """Let what is under way on this machine's loopback arrive."""
    for _ in range(20):
        await asyncio.sleep(0)


class SteppingClock(ManualClock):
    """A clock that stands still, and knows what is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def waits(self, seconds: float) -> bool:
        """Say whether a time limit ends *seconds* from now."""
        return any(abs(when - self.now() - seconds) < 1e-6 for when in self._timeouts.values())

    async def until_waiting(self, seconds: float) -> None:
        """Let the others go on until a time limit ends *seconds* from now."""
        while not self.waits(seconds):
            self._changed.clear()
            await self._changed.wait()

    def timeout_at(self, when: float) -> asyncio.Timeout:
        self._changed.set()
        return super().timeout_at(when)

    def postpone(self, timeout: asyncio.Timeout, when: float) -> None:
        super().postpone(timeout, when)
        self._changed.set()

    async def through_stalls(self, server: FaultServer, call: Awaitable[T], seconds: float) -> T:
        """Await *call*; whenever the server stands still and *seconds* are being waited, let them pass."""
        task = asyncio.ensure_future(call)
        while not task.done():
            await asyncio.sleep(0)
            if server.reached.is_set():
                await settle()
            if server.reached.is_set() and self.waits(seconds):
                server.reached.clear()
                self.advance(seconds)
        return await task


@define(eq=False)
class Client:
    """A client of a fault server."""

    server: FaultServer
    clock: SteppingClock
    api: Api


def said(_: int, value: Any) -> ApiError:
    """Read `{"message": ..., "code": ...}`."""
    fields = cast(dict[str, str], value) if isinstance(value, dict) else {}
    return ApiError(fields.get("message"), fields.get("code"))


class FixedResolver(AbstractResolver):
    """Finds the given addresses, fails with the given error, or, given neither, never ends."""

    def __init__(self, found: list[ResolveResult] | OSError | None) -> None:
        self._found = found

    async def resolve(
        self,
        host: str,  # noqa: ARG002 - aiohttp's
        port: int = 0,  # noqa: ARG002 - aiohttp's
        family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002 - aiohttp's
    ) -> list[ResolveResult]:
        if self._found is None:
            await asyncio.Event().wait()
        if isinstance(self._found, OSError):
            raise self._found
        return self._found or []

    async def close(self) -> None:
        """Do nothing."""


@asynccontextmanager
async def client_of(
    *scripts: Script,
    limits: Limits | None = None,
    resolver: list[Any] | OSError | str | None = "",
    read_error: Callable[[int, Any], ApiError] = said,
    can_settle: bool = False,
    **options: Any,
) -> AsyncGenerator[Client]:
    """
    Start a server with *scripts* and give a client of it, with a long deadline.

    Given a *resolver*, the server is known by a name, and what a `FixedResolver` is told of that name.
    """
    clock = SteppingClock()
    chosen: dict[str, Any] = {"timeout": 10_000.0, **options}
    async with FaultServer(scripts) as server:
        transport = Transport(server.url, CommonOptions(**chosen), clock=clock, limits=limits)
        # A port may come again, and what an earlier test left of its budget of retries with it.
        transport.retrier = Retrier(clock, transport.options.attempts, TokenBucket())
        if not isinstance(resolver, str):
            transport.base_url = server.url.replace("127.0.0.1", "acme.test")
            for fresh in (True, False):
                connector = cast(Any, transport)._session(fresh=fresh).connector
                connector._resolver = FixedResolver(resolver)
        api = Api(
            transport,
            "acme",
            headers={"Authorization": bearer(Secret(KEY))},
            read_error=read_error,
            can_settle=can_settle,
        )
        try:
            yield Client(server, clock, api)
        finally:
            await transport.close()
