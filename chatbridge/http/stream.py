"""
An answer that arrives event by event.

The idle limit counts events, not bytes, and only the time that is spent waiting for
the server; what the reader does between two events costs it nothing.
"""

from __future__ import annotations

import re
import warnings
from collections import deque
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast

import aiohttp

from chatbridge.errors import Attempt, ChatbridgeError, Phase
from chatbridge.http.content import BrokenContent, is_web_page
from chatbridge.http.endpoint import Endpoint
from chatbridge.http.failures import failed_reading
from chatbridge.http.framing import Frame, Framer, PrefixedLines
from chatbridge.http.headers import request_id
from chatbridge.http.transport import Request, compressed
from chatbridge.http.wire import structure
from chatbridge.observe import AttemptWatch
from chatbridge.retry import Failure, Hint

if TYPE_CHECKING:
    from chatbridge.http.api import Api

__all__ = ["EventStream"]

EventT = TypeVar("EventT")

_BLANK = b"\xef\xbb\xbf \t\r\n"  # What may come before a document.
_DOCUMENT = (b"{", b"[", b"<")
# How JSON begins, or a web page, or a field of an event: all that is no text for people.
_BEGINNING = re.compile(rb"""<|\{\s*(?:["}]|\Z)|\[\s*(?:[{\["\]]|\d+\s*,|\Z)|(?:data|event|id|retry)?:""")
_FIELDS = (b"data", b"event", b"id", b"retry")
_PREFIXED = re.compile(rb"[a-z0-9]{1,3}(?::|\Z)")


class EventStream(Generic[EventT]):
    """
    The events of one streamed answer, up to its end mark.

    As an asynchronous context manager it makes the request, with retries up to the first
    event, and closes the connection however the block is left. Iterating ends after the end mark, and raises
    StreamCut where the answer ends without one. One that is dropped in the middle is closed, with a
    ResourceWarning.

    A server that answers with one JSON document in place of a stream is understood: the
    document is the only event, and needs no end mark. (Where events are lines, a document on one line is
    an event like any other, unless the endpoint tells one by its `whole`.)

    Attributes:
        warnings: What had to be mended.
        whole: Whether the server sent one document in place of a stream.
    """

    _response: aiohttp.ClientResponse | None = None
    _watch: AttemptWatch | None = None
    _last: EventT

    def __init__(self, api: Api, endpoint: Endpoint[EventT], request: Request) -> None:
        if endpoint.framing is None:
            raise TypeError(f"{endpoint.operation} has no framing, so it cannot be streamed")
        self.warnings: list[str] = []
        self.whole = False
        self._api = api
        self._endpoint = endpoint
        self._request = request
        self._clock = api.transport.clock
        self._limits = api.transport.limits
        self._new_framer = endpoint.framing
        self._started = self._clock.now()
        self._reset()

    def _reset(self) -> None:
        self._headers: Mapping[str, str] = {}
        self._status: int | None = None
        self._response = None
        self._framer: Framer = self._new_framer(self._limits.line)
        self._frames: deque[Frame] = deque()
        self._first: list[EventT] = []
        self._received = 0
        self._before_first: list[bytes] | None = []
        self._given = 0
        self._attempts: tuple[Attempt, ...] = ()
        self._ended = False
        self._over = False

    async def __aenter__(self) -> Self:
        deadline = self._api.deadline()
        self._started = self._clock.now()
        self._watch = self._api.watch(self._endpoint, self._request)
        try:
            await self._api.transport.retrier.run(
                self._endpoint.kind, deadline, lambda earlier: self._open(deadline, earlier), self._watch
            )
        except Failure as caught:
            failure = caught
        else:
            return self
        raise self._api.error(self._endpoint, failure, self._request, self._started)

    async def __aexit__(self, *_: object) -> None:
        self._close()

    def __del__(self) -> None:
        if self._response is not None:
            self._close()
            warnings.warn("a stream was left open", ResourceWarning, source=self, stacklevel=1)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EventT:
        if self._first:
            return self._first.pop()
        event = None
        try:
            if self._frames and not self._over:  # Without a coroutine, which would cost as much as the event.
                event = self._decode(self._frames.popleft())
            if event is None:
                event = await self._next()
        except Exception as error:  # noqa: BLE001 - the boundary: nothing foreign gets past it
            failure = self._failure(error, Phase.EVENTS)
        else:
            if event is None:
                raise StopAsyncIteration
            return event
        self._close(failure)
        raise self._api.error(self._endpoint, failure, self._request, self._started)

    def failed(
        self, message: str | None, code: str | None = None, *, passing: Collection[str] = ()
    ) -> ChatbridgeError:
        """
        Make the error for a failure that the API reports inside the stream.

        Args:
            message: What it says.
            code: Its code for that.
            passing: The codes of failures that may pass, as an overload does, if nothing of the answer has
                come: where the API keeps nothing, the caller may then ask again.
        """
        clean = self._api.redactor.clean
        return self._broken(
            Failure(
                Phase.EVENTS,
                "the API reported a failure inside its answer",
                kind="provider",
                hint=Hint.REFUSED if code in passing else None,
                from_api=True,
                code=code if code is None else clean(code, 100),
                excerpt=message if message is None else clean(message),
            )
        )

    def cut(self, reason: str) -> ChatbridgeError:
        """Make the error for a stream without an end mark whose events tell that it ended too early."""
        return self._broken(Failure(Phase.EVENTS, reason, kind="cut"))

    def _broken(self, failure: Failure) -> ChatbridgeError:
        self._close()
        return self._api.error(self._endpoint, self._seen(failure), self._request, self._started)

    def _failure(self, error: Exception, phase: Phase) -> Failure:
        failure = error if isinstance(error, Failure) else failed_reading(error, phase)
        self._api.transport.blame_closing(failure, error)
        return self._seen(failure)

    def _seen(self, failure: Failure) -> Failure:
        failure.status, failure.request_id = self._status, request_id(self._headers)
        failure.attempts = self._attempts
        return failure

    async def _open(self, deadline: float, earlier: tuple[Failure, ...]) -> None:
        """Make one attempt, up to the first event."""
        api, begun = self._api, self._clock.now()
        self._reset()
        answer = await api.transport.attempt(
            self._endpoint, self._request, deadline, fresh=api.needs_fresh(self._endpoint), streamed=True
        )
        if self._watch is not None:
            self._watch.status = answer.status
        if answer.response is None:
            raise api.refusal(answer, self._request.url)
        self._response, self._status, self._headers = answer.response, answer.status, answer.headers
        self._budget = deadline - self._clock.now()
        self._patience = api.transport.options.first_byte_timeout
        failure = None
        try:
            if self._headers.get("Content-Encoding", "identity").lower() != "identity":
                raise compressed()
            event = await self._next()
            if event is None:
                raise Failure(Phase.FIRST_EVENT, "the answer is empty", kind="empty")
            self._first = [event]
            before = earlier[-1].attempts if earlier else ()
            seconds = self._clock.now() - begun
            self._attempts = (*before, Attempt(len(before) + 1, None, answer.status, None, seconds))
        except Exception as error:  # noqa: BLE001 - the boundary: nothing foreign gets past it
            failure = self._failure(error, Phase.FIRST_EVENT)
        finally:
            if not self._first:
                self._close(failure)
        if failure is not None:
            raise failure

    def _close(self, failure: Failure | None = None) -> None:
        if self._response is not None:
            # Not drained: what is not wanted is not read.
            response, self._response = self._response, None
            self._api.transport.release(response, failure)
        self._over = True

    async def _next(self) -> EventT | None:
        """Give the next event; None after the last."""
        while not self._over:
            if self._frames:
                event = self._decode(self._frames.popleft())
                if event is not None:
                    return event
            elif self._ended:
                return await self._finish()
            else:
                await self._read()
        return None

    def _decode(self, frame: Frame) -> EventT | None:
        try:
            value = self._endpoint.read(frame)
        except BrokenContent:
            if self._before_first is None:
                raise
            self._frames.clear()  # Not events at all, so perhaps one document over several lines.
            self._framer = _NoFrames()
            return None
        return self._accept(structure(value, self._endpoint.answer))

    def _accept(self, event: EventT) -> EventT:
        self._before_first = None
        self._last = event
        self._given += 1
        self._patience = self._api.transport.options.idle_timeout
        if self._endpoint.ends is not None and self._endpoint.ends(event):
            self._close()
        return event

    async def _finish(self) -> EventT | None:
        """Deal with the end of the body."""
        if self._before_first is not None:
            document = b"".join(self._before_first)
            if not document.strip(_BLANK):
                return None
            if self._is_foreign(document):
                raise self._foreign(document)
            if not isinstance(self._framer, _NoFrames) and document.lstrip(_BLANK)[:1] not in _DOCUMENT:
                raise BrokenContent("cut", "it ended before its first event")
            self.whole = True
            deadline = self._clock.now() + self._budget
            event: EventT = await self._api.decode(self._endpoint, document, self.warnings.append, deadline)
            self._close()
            return event
        whole = self._endpoint.whole
        self.whole = self._given == 1 and whole is not None and whole(self._last)
        if self._endpoint.ends is not None and not self.whole:
            raise BrokenContent("cut", "it ended without its end mark")
        self._close()
        return None

    async def _read(self) -> None:
        """Take in more bytes, waiting for them if there are none yet."""
        response = self._response
        if response is None:
            return
        if response.content.exception() is None:
            chunk = response.content.read_nowait()
        else:
            # What arrived before the connection broke is there, and `read_nowait` withholds it.
            chunk = cast(Any, response.content)._read_nowait(-1)  # noqa: SLF001 - there is no public way
        if not chunk and not response.content.at_eof():
            self._frames.extend(self._framer.feed(b""))  # Raises what good frames before it have put off.
            begun = self._clock.now()
            try:
                async with self._clock.timeout_at(begun + min(self._patience, self._budget)):
                    chunk = await response.content.readany()
            finally:
                waited = self._clock.now() - begun
                self._patience -= waited
                self._budget -= waited
        if chunk:
            self._received += len(chunk)
            limit = self._limits.stream if self._before_first is None else self._limits.body
            if self._received > limit:
                raise BrokenContent("oversize", f"over {limit} bytes")
            if self._before_first is not None:
                self._before_first.append(chunk)
            self._frames.extend(self._framer.feed(chunk))
        elif response.content.at_eof():
            self._ended = True
            self._frames.extend(self._close_framer())

    def _close_framer(self) -> list[Frame]:
        try:
            return self._framer.close()
        except BrokenContent:
            if self._before_first is None:
                raise
            document = b"".join(self._before_first)
            if not (is_web_page(document) or self._is_foreign(document)):
                raise
        return []

    def _is_foreign(self, document: bytes) -> bool:
        """Tell whether what came begins as nothing does that an API sends, such as a text for people."""
        begun = document.lstrip(_BLANK)
        if isinstance(self._new_framer(self._limits.line), PrefixedLines) and _PREFIXED.match(begun):
            return False
        is_cut = any(field.startswith(begun) for field in _FIELDS)
        return not is_cut and _BEGINNING.match(begun) is None

    def _foreign(self, document: bytes) -> Failure:
        said = self._api.redactor.clean(document.decode("utf-8", "replace").strip("\ufeff \t\r\n"))
        reason = "the answer is neither a stream of events nor a JSON object"
        return Failure(Phase.FIRST_EVENT, reason, kind="json", excerpt=said)


class _NoFrames:
    """Waits for the end of what turned out not to be a stream."""

    def feed(self, chunk: bytes) -> list[Frame]:  # noqa: ARG002 - a `Framer`
        return []

    def close(self) -> list[Frame]:
        return []
