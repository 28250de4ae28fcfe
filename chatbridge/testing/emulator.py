"""
What emulators of chat APIs share: routes as data, a log of calls, planned faults, and serving.

An emulator says how its API answers: it lists operations, each with a handler that turns a `Call` into an
`Answer`. Everything between that and the socket happens here, so that faults strike all APIs alike.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit

from aiohttp import web
from attrs import define, evolve, field, frozen

from chatbridge.bridge import Bridge, connect
from chatbridge.registry import load_adapter
from chatbridge.testing.exchange import Answer, BadBody, Call, Keeper, Kept, Refusal, is_array, is_object
from chatbridge.testing.faults import Fault, phrase
from chatbridge.testing.responder import Responder, respond

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler

__all__ = [
    "Answer",
    "BadBody",
    "Call",
    "Emulator",
    "Fault",
    "Keeper",
    "Kept",
    "Operation",
    "Refusal",
    "Served",
    "is_array",
    "is_object",
    "serve",
]


@frozen
class Operation:
    """
    One route of an API.

    Attributes:
        id: Its operationId in the API's document.
        path: With placeholders such as ``{session_id}``, below the base path.
        public: Needs no key.
    """

    id: str
    method: str
    path: str
    handler: Callable[[Call], Awaitable[Answer]]
    public: bool = False


def _real_time() -> datetime:
    return datetime.now(UTC)


@define(kw_only=True, eq=False)
class Emulator(ABC):
    """
    A server that behaves as the documents of one API say; subclass it for each API.

    Attributes:
        name: The API's scheme in config strings.
        base_path: Where the API's paths start.
        key_variable: The environment variable that a client reads its key from.
        key: The key that is accepted.
        responder: Answers what is said.
        now: The clock, in UTC.
        ids: Where fresh ids come from.
        sleep: How the delay of a fault passes; a test gives its clock's.
        calls: Every request so far, oldest first.
        faults: The planned faults that have not struck, each with the operation it waits for (None: any).
        crashes: What handlers raised by mistake; each was answered with a 500.
        server: aiohttp's server, once it is served.
    """

    name: ClassVar[str]
    base_path: ClassVar[str] = ""
    key_variable: ClassVar[str]

    key: str = field(default="sk-emulator", repr=False)
    responder: Responder = respond
    now: Callable[[], datetime] = _real_time
    ids: Callable[[], uuid.UUID] = uuid.uuid4
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    calls: list[Call] = field(init=False, factory=list[Call], repr=False)
    faults: list[tuple[str | None, Fault]] = field(init=False, factory=list[tuple[str | None, Fault]])
    crashes: list[Exception] = field(init=False, factory=list[Exception])
    server: Any = field(init=False, default=None, repr=False)

    @property
    @abstractmethod
    def operations(self) -> Sequence[Operation]:
        """The API's routes, fixed paths before those with placeholders."""

    @abstractmethod
    def admit(self, call: Call) -> None:
        """Raise `Refusal` unless *call* carries the key."""

    @abstractmethod
    def error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Say *message* in the API's own error form."""

    def error_line(self, message: str) -> bytes | None:
        """Say *message* in the API's own form inside a stream; None where it has none."""
        del message
        return None

    @property
    def writes(self) -> int:
        """How many requests so far were no reads."""
        return sum(call.method not in {"GET", "HEAD"} for call in self.calls)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        handlers = () if self.server is None else self.server.connections
        return sum(handler.transport is not None for handler in handlers)

    @property
    def env(self) -> dict[str, str]:
        """The environment variables that give a client the key."""
        return {self.key_variable: self.key}

    @property
    def options(self) -> dict[str, str]:
        """What a client must be told beside the key, by the names of the adapter's options."""
        return {}

    @property
    def reasoning(self) -> Mapping[str, Any] | None:
        """The `extra` of a message that has the model show its reasoning; None where nothing has."""
        return {}

    def config(self, base_url: str) -> str:
        """Give the config string that reaches this emulator at *base_url*, with its `options`."""
        url = urlsplit(base_url)
        path = url.path.rstrip("/")
        scheme = self.name if url.scheme == "https" else f"{self.name}+{url.scheme}"
        options = f"?{urlencode(self.options, quote_via=quote)}" if self.options else ""
        return f"{scheme}://{url.netloc}{path + self.base_path if path else ''}{options}"

    @property
    def heard(self) -> str:
        """The body of the last call, as text."""
        return self.calls[-1].body.decode(errors="replace") if self.calls else ""

    def fail(self, fault: Fault | str, *, operation: str | None = None, times: int = 1) -> Fault:
        """
        Plan *fault*, or what a word such as "lost" stands for, for the next calls of *operation*, or of any.

        Raises:
            ValueError: There is no such operation, or this API has no error lines.
            UsageError: There is no such word.
        """
        if isinstance(fault, str):
            fault = Fault.parse(fault)
        known = [each.id for each in self.operations]
        if operation is not None and operation not in known:
            raise ValueError(f"{self.name} has no operation {operation!r}, only {', '.join(known)}")
        if fault.error is not None and fault.cut_after is not None and self.error_line(fault.error) is None:
            raise ValueError(f"{self.name} has no error lines in a stream")
        self.faults.extend([(operation, fault)] * times)
        return fault

    def __init_subclass__(cls) -> None:
        """Keep the names free that serving needs."""
        super().__init_subclass__()
        taken = sorted(name for name in vars(cls) if name in _SERVING)
        if taken:
            raise TypeError(f"{cls.__name__}: an emulator's own {', '.join(taken)} cannot be replaced")

    def app(self) -> web.Application:
        """Build the application that serves this emulator, whose state it shares."""

        @web.middleware
        async def unmatched(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                return await handler(request)
            except web.HTTPException as refused:
                call = self._record(request, None, await request.read())
                allow = {name: value for name, value in refused.headers.items() if name == "Allow"}
                return await self._send(
                    request, call, self.error(refused.status, refused.reason, allow), Fault()
                )

        # No limit of size: what a body may hold is the API's to say.
        app = web.Application(middlewares=[unmatched], client_max_size=0)
        for operation in self.operations:
            app.router.add_route(
                operation.method, self.base_path + operation.path, partial(self._serve, operation)
            )
        return app

    async def _serve(self, operation: Operation, request: web.Request) -> web.StreamResponse:
        call = self._record(request, operation.id, await request.read())
        fault = self._next_fault(operation.id)
        if fault.drop not in {"after", "during"} and fault.cut_after is None:
            await fault.wait(self.sleep)
        if fault.drop == "before":
            return _abort(request)
        if fault.status is not None:
            if fault.leaves != "nothing":
                self._keep(await self._process(operation, call), fault)
            return await self._send(request, call, self._refuse(fault, fault.status), fault)
        answer = await self._process(operation, call)
        if fault.drop == "during":
            gone = _abort(request)
            await fault.wait(self.sleep)
            self._keep(answer, fault)
            return gone
        if fault.drop == "after":
            self._keep(answer, fault)
            await fault.wait(self.sleep)
            return _abort(request)
        return await self._send(request, call, answer, fault)

    async def _process(self, operation: Operation, call: Call) -> Answer:
        try:
            if not operation.public:
                self.admit(call)
            return await operation.handler(call)
        except Refusal as refusal:
            return refusal.answer
        except BadBody as error:
            return self.error(400, str(error))
        except Exception as crash:  # noqa: BLE001 - any bug in a handler is answered, and kept for tests to see
            return self._crashed(crash)

    def _keep(self, answer: Answer, fault: Fault) -> Answer:
        """Store what a send leaves behind; the answer, unless that fails."""
        try:
            if answer.keep is not None and fault.leaves != "nothing":
                answer.keep(fault.leaves, fault.words)
        except Exception as crash:  # noqa: BLE001 - the same
            return self._crashed(crash)
        return answer

    def _crashed(self, crash: Exception) -> Answer:
        self.crashes.append(crash)
        return self.error(500, phrase(500))

    def _refuse(self, fault: Fault, status: int) -> Answer:
        if fault.body is None:
            return self.error(status, fault.error or phrase(status), fault.headers)
        return Answer(parts=(fault.body,), status=status, headers=fault.headers)

    async def _send(
        self, request: web.Request, call: Call, answer: Answer, fault: Fault
    ) -> web.StreamResponse:
        if fault.cut_after is not None and fault.error is not None and not answer.streamed:
            await fault.wait(self.sleep)
            self._keep(answer, fault)
            answer, fault = self.error(500, fault.error), Fault()
        whole = not answer.streamed and fault.cut_after is None
        if whole:
            answer = self._keep(answer, fault)
        self._answered(call, answer.status)
        headers = dict(answer.headers)
        if answer.content_type is not None and "content-type" not in map(str.lower, headers):
            headers["Content-Type"] = answer.content_type
        if whole:
            return web.Response(status=answer.status, headers=headers, body=b"".join(answer.parts))
        response = web.StreamResponse(status=answer.status, headers=headers)
        return await self._stream(request, response, answer, fault)

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, answer: Answer, fault: Fault
    ) -> web.StreamResponse:
        parts, at = answer.parts, fault.cut_after or 0
        if not answer.streamed:
            parts, at = _halves(parts), min(at, 1)
        shown, rest = parts[:at], parts[at:]
        with suppress(ConnectionError):
            await response.prepare(request)
            await _write(response, shown)
        if fault.cut_after is not None:
            await fault.wait(self.sleep)
            if fault.cut != "resume":
                self._keep(answer, fault)
                return await self._cut(request, response, fault)
        # A client that leaves does not stop the model: the turn is kept all the same.
        with suppress(ConnectionError):
            await _write(response, rest[:-1])
        self._keep(answer, fault)
        with suppress(ConnectionError):
            await _write(response, rest[-1:])
        return response

    async def _cut(
        self, request: web.Request, response: web.StreamResponse, fault: Fault
    ) -> web.StreamResponse:
        line = None if fault.error is None else self.error_line(fault.error)
        if line is not None:
            with suppress(ConnectionError):
                await response.write(line)
        elif fault.cut == "abort":
            _abort(request)
        return response

    def _record(self, request: web.Request, operation: str | None, body: bytes) -> Call:
        call = Call(
            operation=operation,
            method=request.method,
            path=request.rel_url.raw_path,
            params=dict(request.match_info),
            query=dict(request.query.items()),
            headers=request.headers,
            body=body,
        )
        self.calls.append(call)
        return call

    def _answered(self, call: Call, status: int) -> None:
        for index in range(len(self.calls) - 1, -1, -1):
            if self.calls[index] is call:
                self.calls[index] = evolve(call, status=status)

    def _next_fault(self, operation: str) -> Fault:
        for index, (wanted, fault) in enumerate(self.faults):
            if wanted in {None, operation}:
                del self.faults[index]
                return fault
        return Fault()


@frozen
class Served:
    """An emulator that listens at *base_url*, which has no path and no slash at its end."""

    emulator: Emulator
    base_url: str

    @property
    def config(self) -> str:
        """The config string that reaches it."""
        return self.emulator.config(self.base_url)

    def connect(self, **options: Any) -> Bridge:  # noqa: ANN401 - those of `connect`, each of its own type
        """Make a bridge to it, which has the key; *options* are those of `chatbridge.connect`."""
        return connect(self.config, **(self.credentials | options))

    @property
    def credentials(self) -> dict[str, Any]:
        """Give the options that the emulator's variables stand for."""
        env = self.emulator.env
        return {
            option: env[variable]
            for option, variables in load_adapter(self.emulator.name).defaults.env.items()
            for variable in variables
            if variable in env
        }


@asynccontextmanager
async def serve(emulator: Emulator, host: str = "127.0.0.1", port: int = 0) -> AsyncGenerator[Served, None]:
    """Serve *emulator* for the length of the block, by default on a free port of the loopback interface."""
    # What is still being answered at the end is cut off.
    runner = web.AppRunner(emulator.app(), access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    emulator.server = runner.server
    try:
        await web.TCPSite(runner, host, port).start()
        bound = runner.addresses[0][1]
        yield Served(emulator, f"http://{f'[{host}]' if ':' in host else host}:{bound}")
    finally:
        await runner.cleanup()


def _abort(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def _halves(parts: Sequence[bytes]) -> tuple[bytes, bytes]:
    body = b"".join(parts)
    return body[: len(body) // 2], body[len(body) // 2 :]


async def _write(response: web.StreamResponse, parts: Sequence[bytes]) -> None:
    for part in parts:
        await response.write(part)


_SERVING = frozenset(
    name for name, value in vars(Emulator).items() if re.match("_[a-z]", name) and callable(value)
)
