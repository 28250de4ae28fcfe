"""
One HTTP request and its answer, within limits of size and time.

The transport is a bridge's: it makes its sessions when they are first needed and
closes them. It follows no redirect, keeps no cookie, reads no proxy or netrc from the
environment, and bounds every wait with a timer of its own, as aiohttp can wait for ever
for a chunk that was malformed.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from importlib.metadata import version
from types import NoneType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import aiohttp
from attrs import define, field, frozen
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from chatbridge.clock import Clock, SystemClock
from chatbridge.delivery import Delivery, current_delivery
from chatbridge.errors import Outcome, Phase
from chatbridge.guard import check_reachable
from chatbridge.http.content import BrokenContent
from chatbridge.http.endpoint import Endpoint
from chatbridge.http.failures import failed_reading, failed_to_connect, failed_waiting
from chatbridge.http.headers import request_id
from chatbridge.http.limiter import Limiter
from chatbridge.http.redact import Redactor
from chatbridge.observe import OnAttempt
from chatbridge.options import CommonOptions, check_hook
from chatbridge.retry import Failure, Kind, Retrier, TokenBucket, outcome_of

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

__all__ = ["Answer", "Headers", "Limits", "OnHead", "Request", "Transport"]

USER_AGENT = f"chatbridge/{version('chatbridge')}"


@frozen
class Limits:
    """How much of an answer is read at most, in bytes."""

    body: int = 16 * 2**20
    error_body: int = 64 * 2**10
    line: int = 16 * 2**20
    stream: int = 64 * 2**20
    header: int = 64 * 2**10
    header_field: int = 8190
    header_fields: int = 128


class Headers(CIMultiDict[str]):
    """Request headers, which may hold a key and so never show."""

    def __repr__(self) -> str:
        return f"<{len(self)} headers>"


@frozen
class Request:
    """What goes out, the same bytes at every attempt."""

    method: str
    url: URL
    headers: Headers
    body: bytes | None = field(repr=False)


@frozen
class Answer:
    """
    What came back.

    Attributes:
        body: None where it was not wanted, or is not readable in a refusal.
        response: The open response of a streamed answer.
    """

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes | None = field(repr=False)
    response: aiohttp.ClientResponse | None = None


OnHead = Callable[[Mapping[str, str]], None]
"""Is told the headers of an answer."""


class _Aborted(Exception):
    """Carries out what aiohttp would otherwise take as a reason to send the request again."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


@define
class _Exchange:
    """How far one attempt has come."""

    clock: Clock
    timer: asyncio.Timeout
    deadline: float
    connect_timeout: float
    first_byte_timeout: float
    delivery: Delivery | None = None
    tracker: Any = None
    before: Outcome | None = None
    connecting: bool = False
    connected: bool = False
    answered: bool = False

    def on_connecting(self) -> None:
        """Begin to wait for a new connection."""
        self.connecting = True
        self.wait(self.connect_timeout)

    def on_connection(self) -> None:
        """Begin to wait for the head. For a connection that was there already, that has begun."""
        self.connected = True
        self.note(Outcome.UNKNOWN)
        if self.connecting:
            self.wait(self.first_byte_timeout)

    def note(self, outcome: Outcome) -> None:
        """Tell what is now known of the message that this attempt carries, if it carries one."""
        if self.delivery is not None:
            self.delivery.note(outcome, self.before)

    def wait(self, seconds: float) -> None:
        """Allow *seconds* from now, within the deadline."""
        self.clock.postpone(self.timer, min(self.deadline, self.clock.now() + seconds))

    async def failure(self, error: Exception, url: URL) -> Failure:
        """Say what *error* means at this point of a request to *url*."""
        if isinstance(error, _Aborted):
            error = error.cause
        if not self.connected:
            return failed_to_connect(error, str(url.with_query(None)))
        if self.answered:
            return failed_reading(error)
        return failed_waiting(error, uploaded=await self._uploaded())

    async def _uploaded(self) -> bool:
        if self.tracker is None:
            return True
        await asyncio.sleep(0)  # The tracker settles up to one turn of the loop later.
        complete: asyncio.Future[None] = self.tracker.upload_complete
        return not (complete.done() and complete.exception() is not None)


_exchange: ContextVar[_Exchange] = ContextVar("chatbridge_exchange")


def compressed() -> Failure:
    """Say that an answer is compressed; unpacking it would open the door to bombs."""
    return Failure(Phase.CONTENT, "the answer is compressed, which was not asked for", kind="encoding")


def _outcome_of(status: int) -> Outcome:
    return outcome_of(Failure(Phase.STATUS, "", status=status))


class _Connector(aiohttp.TCPConnector):
    """A connector that tells the exchange when it has its connection: until then, nothing was sent."""

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        _exchange.get().on_connection()
        return connection

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's
    ) -> ResponseHandler:
        _exchange.get().on_connecting()
        return await super()._create_connection(req, traces, timeout)


async def _send_once(
    request: aiohttp.ClientRequest,
    handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]],
) -> aiohttp.ClientResponse:
    """Keep aiohttp from repeating a request by itself, which it does for these two errors."""
    try:
        return await handler(request)
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        aborted = _Aborted(error)
    raise aborted


# The retry budget belongs to the origin, whichever bridge goes there; it lasts as long as one does.
_buckets: WeakValueDictionary[str, TokenBucket] = WeakValueDictionary()


class Transport:
    """
    Carries the endpoint calls of one bridge to one origin.

    Args:
        base_url: Scheme, host, port and base path, without a slash at the end.
        options: Time limits, attempts and concurrency.
        clock: Measures time.
        limits: Bound what is read.
        on_attempt: Told of every attempt.

    Attributes:
        redactor: Knows the secrets that are sent.
        loop: The event loop that its connections belong to; None while there are none.
    """

    POOLED_SECONDS = 2.0
    TRACKED_UPLOAD = 64 * 2**10
    BYTES_UPLOAD = 2**20

    def __init__(
        self,
        base_url: str,
        options: CommonOptions,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        on_attempt: OnAttempt | None = None,
    ) -> None:
        check_hook("on_attempt", on_attempt)
        self.base_url = base_url
        self.options = options
        self.clock: Clock = SystemClock() if clock is None else clock
        self.limits = Limits() if limits is None else limits
        self.on_attempt = on_attempt
        self.redactor = Redactor()
        self.limiter = Limiter(options.concurrency, self.clock)
        origin = "/".join(base_url.split("/", 3)[:3])
        self.retrier = Retrier(self.clock, options.attempts, _buckets.setdefault(origin, TokenBucket()))
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._responses: set[aiohttp.ClientResponse] = set()
        self._closed = False
        self.loop: asyncio.AbstractEventLoop | None = None

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        """Give the session whose connections are new each time, or the one that pools them briefly."""
        if fresh not in self._sessions:
            self.loop = asyncio.get_running_loop()
            pool: dict[str, Any] = {"keepalive_timeout": self.POOLED_SECONDS}
            if fresh:
                pool = {"force_close": True}
            self._sessions[fresh] = aiohttp.ClientSession(
                connector=_Connector(limit=0, **pool),
                timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                max_line_size=self.limits.header_field,
                max_field_size=self.limits.header_field,
                max_headers=self.limits.header_fields,
                middlewares=(_send_once,),
                skip_auto_headers=("Content-Type",),
            )
        return self._sessions[fresh]

    async def close(self) -> None:
        """Close the sessions; calls under way fail and are not repeated, later ones raise UsageError."""
        self._closed = True
        self.limiter.close()
        self.retrier.close()
        for response in tuple(self._responses):  # aiohttp would let a reader wait on.
            response.content.set_exception(aiohttp.ClientConnectionError())
        sessions = list(self._sessions.values())
        self._sessions.clear()
        self.loop = None
        for session in sessions:
            await session.close()

    async def attempt(
        self,
        endpoint: Endpoint[Any],
        request: Request,
        deadline: float,
        *,
        fresh: bool = False,
        streamed: bool = False,
        on_head: OnHead | None = None,
    ) -> Answer:
        """
        Make one attempt.

        *on_head* is told the headers of the answer, whatever its status and whatever becomes of its body.
        With *streamed*, an answer of success is not read: it carries the open response, with which the
        caller calls `release` at last.

        Raises:
            Failure: There is no answer. A refusal is one.
            LiveBackendForbidden: A test forbids to reach another machine.
        """
        check_reachable(self.base_url)
        self._check(deadline)
        delivery = current_delivery()
        if delivery is not None:
            delivery.begin()
        await self.limiter.acquire(deadline)
        exchange = self._exchange(endpoint.kind, request, deadline)
        token = _exchange.set(exchange)
        response, keep = None, False
        try:
            self._check(deadline)
            async with exchange.timer:
                response = await self._head(self._session(fresh=fresh), request, exchange)
                if on_head is not None:
                    on_head(response.headers)
                success = response.status in endpoint.success
                exchange.note(Outcome.ACCEPTED if success else _outcome_of(response.status))
                keep = streamed and success
                body = None if keep else await self._read(endpoint, response, exchange)
            return Answer(response.status, response.headers, body, response if keep else None)
        except Failure as broken:
            exchange.note(outcome_of(broken))
            raise
        except asyncio.CancelledError as error:
            if not self._cancelled_by_closing():
                # Neither aiohttp's frames nor this one may show headers among their locals.
                self.release(response)
                response, keep = None, True
                raise error.with_traceback(None)
            caught: Exception = aiohttp.ClientConnectionError()
        except Exception as error:  # noqa: BLE001 - the boundary: nothing foreign gets past it
            caught = error
        finally:
            _exchange.reset(token)
            if not keep:
                self.release(response)
        if response is not None and response.status not in endpoint.success:
            return Answer(response.status, response.headers, None)  # What it says needs no body.
        failure = await exchange.failure(caught, request.url)
        self.blame_closing(failure, caught)
        if response is not None:
            failure.status, failure.request_id = response.status, request_id(response.headers)
        exchange.note(outcome_of(failure))
        raise failure

    def release(
        self,
        response: aiohttp.ClientResponse | None,
        failure: Failure | None = None,  # noqa: ARG002 - for a transport that records
    ) -> None:
        """Close *response*, which *failure* may have ended, and let the next call begin."""
        if response is not None:
            self._responses.discard(response)
            response.close()
        self.limiter.release()

    def blame_closing(self, failure: Failure, error: Exception) -> None:
        """Say in *failure*, made of *error*, if it was closing that ended the call, and not the server."""
        if self._closed:
            failure.final = True
            if not isinstance(error, BrokenContent | Failure | TimeoutError):
                failure.reason = "the bridge was closed"

    def _check(self, deadline: float) -> None:
        """Refuse to begin when closed, or with less time than an attempt may need."""
        if self._closed:
            raise Failure(Phase.LOCAL, "the bridge is closed")
        if deadline - self.clock.now() < Retrier.SHORTEST_ATTEMPT:
            raise Failure(Phase.QUEUE, "there was no time left to begin", timed_out=True)

    def _cancelled_by_closing(self) -> bool:
        """Tell aiohttp's own cancellation, of a name lookup when it is closed, from the caller's."""
        task = asyncio.current_task()
        return self._closed and task is not None and not task.cancelling()

    def _exchange(self, kind: Kind, request: Request, deadline: float) -> _Exchange:
        options, now = self.options, self.clock.now()
        tracker = None
        if request.body is not None and len(request.body) > self.TRACKED_UPLOAD:
            # Of aiohttp 3.14.4 and later; a small body leaves in one piece.
            make = getattr(aiohttp, "UploadTracker", None)
            tracker = None if make is None else make()
        # What is written may be the message, for all that is known here.
        delivery = None if kind is Kind.READ else current_delivery()
        return _Exchange(
            self.clock,
            self.clock.timeout_at(min(deadline, now + options.first_byte_timeout)),
            deadline,
            options.connect_timeout,
            options.first_byte_timeout,
            delivery,
            tracker,
            None if delivery is None else delivery.outcome,
        )

    async def _head(
        self, session: aiohttp.ClientSession, request: Request, exchange: _Exchange
    ) -> aiohttp.ClientResponse:
        extra: dict[str, Any] = {} if exchange.tracker is None else {"upload_tracker": exchange.tracker}
        data: bytes | io.BytesIO | None = request.body
        if request.body is not None and len(request.body) > self.BYTES_UPLOAD:
            data = io.BytesIO(request.body)  # Sent in pieces; aiohttp warns of one so large.
        response = await session.request(
            request.method,
            request.url,
            data=data,
            headers=request.headers,
            allow_redirects=False,
            **extra,
        )
        exchange.answered = True
        problem = self._bad_head(response)
        if problem is not None:
            response.close()
            raise problem
        self._responses.add(response)
        return response

    def _bad_head(self, response: aiohttp.ClientResponse) -> Failure | None:
        if not 200 <= response.status <= 599:  # noqa: PLR2004 - what HTTP defines, informational ones aside
            strange = f"the answer has status {response.status}"
            return Failure(Phase.STATUS, strange, kind="bad_http", status=response.status)
        fields = response.raw_headers
        if len(fields) * self.limits.header_field > self.limits.header:
            size = sum(len(name) + len(value) for name, value in fields)
            if size > self.limits.header:
                return Failure(Phase.BAD_HEAD, "the head of the answer is too large", kind="bad_http")
        return None

    async def _read(
        self, endpoint: Endpoint[Any], response: aiohttp.ClientResponse, exchange: _Exchange
    ) -> bytes | None:
        success = response.status in endpoint.success
        if success and endpoint.answer is NoneType:
            return None
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            if success:
                raise compressed()
            return None
        limit = self.limits.body if success else self.limits.error_body
        content, pieces, size = response.content, list[bytes](), 0
        while not content.at_eof():
            if not content.is_eof():
                exchange.wait(self.options.idle_timeout)
            piece = await content.readany()
            size += len(piece)
            if size > limit:
                if not success:
                    break
                raise BrokenContent("oversize", f"over {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)
